"""Small random models of every type that stage one runs, as folders like published ones. Tests only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.tiny.corpus import write_tiny_encoders

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PICTURES = {"image_size": 32, "patch_size": 16}
CONVOLUTIONS = {
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 12,
}
WORDS = ["<s>", "<pad>", "</s>", "<unk>", "kids", "dogs", "are", "talking", "sitting", "by", "the", "door", "a", "!"]
POSITIONS = 40


def save(folder: Path, kind: str, config: Any, change: Callable[[Any], None] = lambda _: None) -> Path:
    """A model whose every weight is random: biases and norms too, so that none can be lost unseen."""
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    change(model)
    model.save_pretrained(folder)
    return folder


def settings(folder: Path, **values: Any) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


# Sound


def waveforms(kind: str, **own: Any) -> Callable[[Path], Path]:
    """wav2vec 2.0 or kin."""

    def write(folder: Path) -> Path:
        config = getattr(transformers, f"{kind}Config")(**(SIZES | CONVOLUTIONS | own))
        save(folder, f"{kind}Model", config)
        masked = getattr(config, "feat_extract_norm", "layer") == "layer"
        kind_of_extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1}
        return settings(
            folder, **kind_of_extractor, sampling_rate=16_000, do_normalize=True, return_attention_mask=masked
        )

    return write


def whisper(folder: Path) -> Path:
    """With a window of 3 s."""
    sizes = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "num_mel_bins": 8, "vocab_size": 20}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
    config = transformers.WhisperConfig(max_source_positions=150, **sizes, **heads, **tokens)
    save(folder, "WhisperModel", config)
    transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=3).save_pretrained(folder)
    return folder


# What a tiny recogniser of OpenAI's kind can say: a time, three words, a time, the end.
SAID = ((" kids", " dogs", " cats"), (" are", " were", " have"), (" talking.", " sitting.", " gone."))
PLACE, KIND, LEFT, LOUD = 20.0, 3.0, 24, 30.0


def recogniser(file: Path, multilingual: bool = False) -> Path:
    """A checkpoint of OpenAI's that says three words between times, and then no more.

    Where a token stands decides what kind it is: each place has a direction of its own, and the tokens that may stand
    there share it. The other directions are left to sound, which decides when and how surely words are said. Weights
    are random otherwise.
    """
    import whisper
    from whisper.tokenizer import get_tokenizer

    vocabulary = get_tokenizer(multilingual, num_languages=99)
    width, prompt = 32, len(vocabulary.sot_sequence)
    sizes = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": width, "n_audio_head": 2, "n_audio_layer": 1}
    sizes |= {"n_text_ctx": 448, "n_text_state": width, "n_text_head": 2, "n_text_layer": 2}
    sizes["n_vocab"] = vocabulary.encoding.n_vocab
    torch.manual_seed(0)
    network = whisper.model.Whisper(whisper.model.ModelDimensions(**sizes))
    kinds = [[vocabulary.timestamp_begin], *([vocabulary.encode(word)[0] for word in words] for words in SAID)]
    kinds += [[vocabulary.timestamp_begin + 100], [vocabulary.eot]]
    with torch.no_grad():
        embedding_VD = network.decoder.token_embedding.weight.zero_()
        places_LD = network.decoder.positional_embedding.zero_()
        for number, tokens in enumerate(kinds):
            places_LD[prompt - 1 + number :, :] = 0
            places_LD[prompt - 1 + number :, number] = PLACE
            for token in tokens:
                embedding_VD[token, number] = KIND
                embedding_VD[token, -LEFT:] = 0.5 * torch.randn(LEFT)
        for block in network.decoder.blocks:
            block.cross_attn.out.weight.mul_(LOUD)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"dims": sizes, "model_state_dict": network.state_dict()}, file)
    return file


def spectrogram(folder: Path) -> Path:
    """With a window of 1.4 s."""
    config = transformers.ASTConfig(**SIZES, max_length=140, num_mel_bins=32)
    save(folder, "ASTModel", config)
    transformers.ASTFeatureExtractor(max_length=140, num_mel_bins=32).save_pretrained(folder)
    return folder


# Pictures


def pictures_of(kind: str, processor: dict[str, Any], **own: Any) -> Callable[[Path], Path]:
    """An encoder of videos or images."""

    def write(folder: Path) -> Path:
        config = getattr(transformers, f"{kind}Config")(**SIZES, **PICTURES, **own)
        save(folder, f"{kind}Model", config)
        return settings(folder, **(NORMALISED | processor))

    return write


def clip(folder: Path) -> Path:
    """Both halves."""
    text = {**SIZES, "vocab_size": 20, "max_position_embeddings": 8, "hidden_size": 8, "num_hidden_layers": 1}
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = transformers.CLIPConfig(text_config=text | tokens, vision_config=SIZES | PICTURES, projection_dim=8)
    save(folder, "CLIPModel", config)
    return settings(folder, **NORMALISED, **PROCESSORS["clip"])


NORMALISED = {
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
SQUARE = {"height": 32, "width": 32}
PROCESSORS: dict[str, dict[str, Any]] = {
    "videomae": {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 32}, "crop_size": SQUARE},
    "vivit": {
        "image_processor_type": "VivitImageProcessor",
        "size": {"shortest_edge": 36},
        "crop_size": SQUARE,
        "rescale_factor": 1 / 127.5,
        "offset": True,
    },
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": 32, "crop_size": 32, "do_convert_rgb": True},
    "dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 36}, "crop_size": SQUARE},
    "vit": {"image_processor_type": "ViTImageProcessor", "size": SQUARE, "do_center_crop": False},
}


# Text


def texts(kind: str, first_position: int = 0, segments: bool = True, **own: Any) -> Callable[[Path], Path]:
    """BERT or kin, with a vocabulary of a dozen words; `first_position`: positions that are never used."""

    def write(folder: Path) -> Path:
        sizes = {**SIZES, "max_position_embeddings": POSITIONS + first_position, "vocab_size": len(WORDS)}
        config = getattr(transformers, f"{kind}Config")(**{**sizes, "pad_token_id": 1, **own})
        save(folder, f"{kind}Model", config)
        return write_tokenizer(folder, segments)

    return write


def write_tokenizer(folder: Path, segments: bool) -> Path:
    """Words, between a start and an end token."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokens = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    names = ["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"]
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=names, **tokens)
    fast.save_pretrained(folder)
    return folder


DISTILBERT: dict[str, Any] = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
RELATIVE: dict[str, Any] = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["c2p", "p2c"]}
MODERN: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
ALBERT: dict[str, Any] = {"embedding_size": 8, "num_hidden_groups": 1}

# What is tried, under the name it is tried by: the modality, and what writes the folder.
WRITERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "wav2vec2": ("audio", waveforms("Wav2Vec2")),
    "wav2vec2 with layer norm": (
        "audio",
        waveforms("Wav2Vec2", feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True),
    ),
    "hubert": ("audio", waveforms("Hubert")),
    "wavlm": ("audio", waveforms("WavLM")),
    "data2vec-audio": ("audio", waveforms("Data2VecAudio", num_conv_pos_embeddings=5, conv_pos_kernel_size=5)),
    "whisper": ("audio", whisper),
    "audio-spectrogram-transformer": ("audio", spectrogram),
    "videomae": ("video", pictures_of("VideoMAE", PROCESSORS["videomae"])),
    "timesformer": ("video", pictures_of("Timesformer", PROCESSORS["videomae"], num_frames=4)),
    "vivit": ("video", pictures_of("Vivit", PROCESSORS["vivit"], num_frames=4, tubelet_size=[2, 16, 16])),
    "clip": ("video", clip),
    "clip_vision_model": ("video", pictures_of("CLIPVision", PROCESSORS["clip"])),
    "dinov2": ("video", pictures_of("Dinov2", PROCESSORS["dinov2"] | {"image_size": 48})),
    "vit": ("video", pictures_of("ViT", PROCESSORS["vit"])),
    "roberta": ("text", texts("Roberta", 2, segments=False, type_vocab_size=1)),
    "xlm-roberta": ("text", texts("XLMRoberta", 2, segments=False, type_vocab_size=1)),
    "camembert": ("text", texts("Camembert", 2, segments=False, type_vocab_size=1)),
    "bert": ("text", texts("Bert")),
    "distilbert": ("text", texts("DistilBert", segments=False, **DISTILBERT)),
    "electra": ("text", texts("Electra", embedding_size=8)),
    "mpnet": ("text", texts("MPNet", 2, segments=False)),
    "deberta": ("text", texts("Deberta", **RELATIVE, type_vocab_size=0)),
    "deberta-v2": ("text", texts("DebertaV2", **RELATIVE, type_vocab_size=0, position_buckets=8)),
    "modernbert": ("text", texts("ModernBert", segments=False, **MODERN)),
    "albert": ("text", texts("Albert", **ALBERT)),
}


def write_encoders(folder: Path) -> dict[str, Path]:
    """All of `WRITERS`, and those of the demo under `random <modality>`."""
    written = {name: write(folder / name) for name, (_, write) in WRITERS.items()}
    return written | {f"random {modality}": path for modality, path in write_tiny_encoders(folder / "demo").items()}
