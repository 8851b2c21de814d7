"""Small untrained encoders of the true architectures, for demos and tests: plumbing, never results.

Each folder loads like a published model; `config.json` carries `random_weights: true`, which follows
the features into every table that is made of them. Dropout is off: two clips' untrained features differ by
less than dropout changes either, so that fine-tuning would see noise alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from cache.corpus.ravdess import STATEMENTS
from cache.files.atomic import write_atomic
from configs.schema.demo import RandomEncodersConfig

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VOCABULARY = 400


def write_random_encoders(config: RandomEncodersConfig) -> dict[str, Path]:
    """Write the three model folders; returns them by modality."""
    out = Path(config.out)
    folders = {"audio": out / "wav2vec2", "video": out / "videomae", "text": out / "roberta"}
    _write_wav2vec2(folders["audio"], config)
    _write_videomae(folders["video"], config)
    _write_roberta(folders["text"], config)
    return folders


def _write_wav2vec2(folder: Path, config: RandomEncodersConfig) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    sizes = _transformer_sizes(config)
    own = {"conv_dim": [config.width] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    off = dict.fromkeys(("hidden_dropout", "activation_dropout", "attention_dropout"), 0.0)
    _save(folder, Wav2Vec2Model, Wav2Vec2Config(**sizes, **own, **off), config.seed)
    Wav2Vec2FeatureExtractor(return_attention_mask=False, do_normalize=True).save_pretrained(folder)


def _write_videomae(folder: Path, config: RandomEncodersConfig) -> None:
    from transformers import VideoMAEConfig, VideoMAEModel

    own = {"image_size": config.size, "patch_size": config.patch}
    _save(folder, VideoMAEModel, VideoMAEConfig(**_transformer_sizes(config), **own), config.seed)
    settings = {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": config.size},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": config.size, "width": config.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    }
    write_atomic(folder / "preprocessor_config.json", json.dumps(settings, indent=2))


def _write_roberta(folder: Path, config: RandomEncodersConfig) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(STATEMENTS, VOCABULARY, min_frequency=1, special_tokens=special, show_progress=False)
    trained.save_model(str(folder))
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    RobertaTokenizerFast(**files).save_pretrained(folder)
    own = {"vocab_size": trained.get_vocab_size(), "max_position_embeddings": 66, "type_vocab_size": 1}
    off = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    _save(folder, RobertaModel, RobertaConfig(**_transformer_sizes(config), **own, **off), config.seed)


def _transformer_sizes(config: RandomEncodersConfig) -> dict[str, int]:
    return {
        "hidden_size": config.width,
        "num_hidden_layers": config.blocks,
        "num_attention_heads": 4,
        "intermediate_size": 2 * config.width,
    }


def _save(folder: Path, model: Any, config: Any, seed: int) -> None:
    from transformers.utils import logging

    # A bar for files of half a megabyte would only break up the output.
    logging.disable_progress_bar()
    config.random_weights = True
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model(config).save_pretrained(folder)


def run(config: RandomEncodersConfig) -> int:
    """Write the encoders and say where they are."""
    for modality, folder in write_random_encoders(config).items():
        print(f"encoders.{modality}={folder} (random weights: for plumbing, not for results)")
    return 0
