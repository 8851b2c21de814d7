"""Encoders: frozen pretrained models that turn one modality into pooled hidden states of every layer.

A new one is a small class here or in a file beside this one, and a line in `ENCODERS` under its `model_type`.
"""

from __future__ import annotations

from extract.encoders.audio import SpectrogramEncoder, WaveformEncoder, WhisperEncoder
from extract.encoders.base import NetworkEncoder
from extract.encoders.models import Model
from extract.encoders.options import DEFAULT, EncoderOptions
from extract.encoders.text import SharedBlockEncoder, TextEncoder
from extract.encoders.video import ClassTokenVideoEncoder, ClipEncoder, ImageEncoder, VideoEncoder

ENCODERS: dict[str, dict[str, type[NetworkEncoder]]] = {
    "audio": {
        "wav2vec2": WaveformEncoder,
        "hubert": WaveformEncoder,
        "wavlm": WaveformEncoder,
        "data2vec-audio": WaveformEncoder,
        "whisper": WhisperEncoder,
        "audio-spectrogram-transformer": SpectrogramEncoder,
    },
    "video": {
        "videomae": VideoEncoder,
        "timesformer": ClassTokenVideoEncoder,
        "vivit": ClassTokenVideoEncoder,
        "clip": ClipEncoder,
        "clip_vision_model": ClipEncoder,
        "dinov2": ImageEncoder,
        "vit": ImageEncoder,
    },
    "text": {
        "roberta": TextEncoder,
        "bert": TextEncoder,
        "distilbert": TextEncoder,
        "xlm-roberta": TextEncoder,
        "camembert": TextEncoder,
        "electra": TextEncoder,
        "mpnet": TextEncoder,
        "deberta": TextEncoder,
        "deberta-v2": TextEncoder,
        "modernbert": TextEncoder,
        "albert": SharedBlockEncoder,
    },
}


def encoder_class(modality: str, model: Model) -> type[NetworkEncoder]:
    """The class that runs a model type.

    Raises:
        ValueError: no class for this model type; names those there are.
    """
    kinds = ENCODERS[modality]
    if model.model_type not in kinds:
        raise ValueError(
            f"encoders.{modality}: model type {model.model_type!r} is not supported; supported: {', '.join(kinds)}"
        )
    return kinds[model.model_type]


def check_options(modality: str, model: Model, options: EncoderOptions = DEFAULT) -> None:
    """Refuse, before anything is loaded, a model type or options that no encoder has.

    Raises:
        ValueError: one line that names what there is.
    """
    kind = encoder_class(modality, model)
    kind.check(model, options)
    if options.window_seconds is not None:
        kind.preparer_class(model, options)
