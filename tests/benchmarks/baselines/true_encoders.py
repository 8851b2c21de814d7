"""The three default encoders at their true size, with random weights: enough for time and memory."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from configs.schema.demo import RandomEncodersConfig
from extract.corpora.synthetic.encoders import write_random_encoders


def write_true_encoders(folder: Path) -> dict[str, str]:
    """wav2vec2-base, VideoMAE-base and distilroberta architectures; returns their folders by modality."""
    from transformers import RobertaConfig, RobertaModel, VideoMAEConfig, VideoMAEModel, Wav2Vec2Config, Wav2Vec2Model

    # Processors and tokenizer from the small ones; the networks below take their places.
    folders = write_random_encoders(RandomEncodersConfig(out=str(folder), width=16, blocks=1))
    vocabulary = json.loads((folders["text"] / "config.json").read_text())["vocab_size"]
    text = {"vocab_size": vocabulary, "num_hidden_layers": 6, "max_position_embeddings": 514, "type_vocab_size": 1}
    models = {
        "audio": (Wav2Vec2Model, Wav2Vec2Config()),
        "video": (VideoMAEModel, VideoMAEConfig()),
        "text": (RobertaModel, RobertaConfig(**text)),
    }
    torch.manual_seed(0)
    for modality, (model, config) in models.items():
        config.random_weights = True
        model(config).save_pretrained(folders[modality])
    return {modality: str(path) for modality, path in folders.items()}
