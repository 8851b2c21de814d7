"""A clip's rows for a trained run, made as stage one made those that it was trained on.

Shape letters: L layers, D width.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cache.conditions import MODALITIES, UNCHANGED
from cache.corpus.clips import Corpus
from cache.features.provenance import Origin, difference
from cache.features.table import layers_of, side_by_side
from cache.media import SAMPLE_RATE_HZ, Media
from configs.schema.features import FeaturesConfig
from extract.asr.recogniser import load_recogniser
from extract.asr.transcript import Transcript
from extract.encoders.base import NetworkEncoder
from extract.encoders.catalogue import encoder_class
from extract.encoders.models import find_model
from extract.media.cut import Cut
from extract.run.provenance import array_spec, text_provenance
from extract.run.unit import encoder_options
from fuse.finetune.inputs.clips import of_length
from fuse.runs.checkpoint import Checkpoint

Row = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EncodedClip:
    """What the encoders made of a clip.

    Attributes:
        rows: modality to (D,); a modality that the clip lacks has no row.
        missing: modality to why there is no row.
        heard: what the recogniser understood; None where the run listens to no words.
    """

    rows: Mapping[str, Row]
    missing: Mapping[str, str] = field(default_factory=dict)
    heard: Transcript | None = None


class ClipEncoder:
    """The encoders of a run and its recogniser, loaded once; `loading_seconds`: what each of them took."""

    def __init__(self, config: FeaturesConfig, checkpoint: Checkpoint, run: Path, device: torch.device) -> None:
        """Load them.

        Args:
            config: how the run's features were made.
            checkpoint: the run; a fine-tuned one brings the encoders' weights.
            run: its folder, to be named.
            device: where they run.

        Raises:
            ValueError: an encoder is not there, or is not the one that the run was trained on.
        """
        self.config, self.checkpoint = config, checkpoint
        self.modalities = tuple(name for name in checkpoint.modalities if name in MODALITIES)
        self.encoders: dict[str, NetworkEncoder] = {}
        self.loading_seconds: dict[str, float] = {}
        for name in self.modalities:
            start = time.monotonic()
            self.encoders[name] = self._load(name, run, device)
            self.loading_seconds[name] = time.monotonic() - start
        asr, start = config.asr, time.monotonic()
        self.recogniser = None
        if asr.model and "text" in self.encoders:
            self.recogniser = load_recogniser(asr, device, one_by_one=True)
            self.loading_seconds["recogniser"] = time.monotonic() - start

    @property
    def frames(self) -> int:
        """How many frames of a clip are wanted."""
        return self.config.media.frames if "video" in self.encoders else 0

    @property
    def cut(self) -> Cut:
        """How they are cut."""
        return Cut.of(self.config.media)

    def encode(self, media: Media, statement: str = "") -> EncodedClip:
        """The rows of one decoded clip; `statement` is what is said in it, for a run without a recogniser."""
        rows, missing = {}, {name: IMPORTED for name in self.checkpoint.modalities if name not in MODALITIES}
        heard = self._heard(media, statement) if "text" in self.encoders else None
        signals = {"audio": _sound(media), "video": media.frames_THWC, "text": heard.transcript if heard else None}
        for name in self.encoders:
            signal = signals[name]
            if signal is None or not len(signal):
                missing[name] = NOTHING[name] if name != "text" or self.recogniser else NO_STATEMENT
                continue
            rows[name] = self.row(name, signal)
        return EncodedClip(rows, missing, heard)

    def row(self, name: str, signal: Any) -> Row:
        """(D,), of one modality's signal alone: samples, frames or text."""
        seconds = self.checkpoint.audio_seconds
        if name == "audio" and seconds is not None:
            signal = of_length(signal, round(seconds * SAMPLE_RATE_HZ), 0.5)
        encoder = self.encoders[name]
        # Fine-tuning knows no windows: of a long text it takes the beginning.
        prepare = encoder.preparer.inputs if self.checkpoint.fine_tuned else encoder.preparer.prepare
        with torch.inference_mode():
            hidden_LD = encoder.encode_prepared(prepare([signal]))[0]
        return joined(hidden_LD, side_by_side(layers_of(name, self.checkpoint.layers)))

    def _heard(self, media: Media, statement: str) -> Transcript:
        sound = _sound(media)
        if self.recogniser is None:
            return Transcript(statement)
        return Transcript("") if sound is None else self.recogniser.transcribe(sound, statement)

    def _load(self, name: str, run: Path, device: torch.device) -> NetworkEncoder:
        path = getattr(self.config.encoders, name)
        if path is None:
            raise ValueError(
                f"{run} needs the {name} encoder {self.checkpoint.encoders[name]}, which its features folder "
                f"does not name (it was last made without it); give encoders.{name}=<folder or hub name>"
            )
        model, made = find_model(path), self.checkpoint.features[name]
        used = tuple(made["layers"])
        text = text_provenance(self.config, Corpus(Path(), (), ()), device.type) if name == "text" else {}
        spec = array_spec(self.config, name, model, UNCHANGED.parts[0], {}, text, device.type)
        now = Origin.of("", model.name, spec.provenance, used).made
        if differs := difference(_anywhere(now), _anywhere(made)):
            raise ValueError(
                f"{run} was trained on {name} features that were made otherwise ({differs}); "
                f"give the encoders, asr and media settings that they were made with"
            )
        encoder = encoder_class(name, model)(model, device, encoder_options(self.config, model, device, used))
        if self.checkpoint.fine_tuned:
            encoder.network.load_state_dict(self.checkpoint.networks[name])
        return encoder


IMPORTED = "imported features: they do not come from the clip"
NO_STATEMENT = "no recogniser and no statement"
NOTHING = {"audio": "no sound", "video": "no picture", "text": "nothing was understood"}


def _anywhere(made: Mapping[str, Any]) -> dict[str, Any]:
    """Without the recogniser's precision: a run that was trained beside a GPU may be used on a laptop."""
    return {key: value for key, value in made.items() if key != "asr.precision"}


def joined(hidden_LD: npt.NDArray[np.float32], beside: bool) -> Row:
    """The layers that are used, side by side or averaged, as a feature table has them."""
    if beside or len(hidden_LD) == 1:
        return np.ascontiguousarray(hidden_LD.reshape(-1))
    total_D = hidden_LD[0].astype(np.float64)
    for layer_D in hidden_LD[1:]:
        total_D = total_D + layer_D
    mean_D: Row = (total_D / len(hidden_LD)).astype(np.float32)
    return mean_D


def _sound(media: Media) -> Any:
    return media.waveform_T if media.waveform_T is not None and len(media.waveform_T) else None


def with_encoders(config: FeaturesConfig, given: Mapping[str, str | None], asr_model: str | None) -> FeaturesConfig:
    """The same configuration with other places to find the models."""
    encoders = replace(config.encoders, **{name: path for name, path in given.items() if path is not None})
    asr = config.asr if asr_model is None else replace(config.asr, model=asr_model)
    return replace(config, encoders=encoders, asr=asr)
