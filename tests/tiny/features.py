"""Feature stores written directly, without any encoder: a learnable corpus for the tests of stage two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache.corpus.clips import Clip, Corpus, write_metadata
from cache.corpus.ravdess import LABELS
from cache.features.rows import ArraySpec, State, UnitRows
from cache.features.store import FeatureStore
from cache.features.units import unit_count, unit_rows

WIDTHS = {"audio": 12, "video": 10, "text": 6}
LAYERS = 3


def tiny_clips(speakers: Sequence[int] = tuple(range(1, 25)), per_class: int = 2) -> list[Clip]:
    """Clips of several speakers, every emotion `per_class` times; no file is behind them."""
    return [
        Clip(f"{label}-{take}-{speaker}", f"{speaker}/{label}{take}.wav", label, str(speaker), sex="male")
        for speaker in speakers
        for label in LABELS
        for take in range(per_class)
    ]


def tiny_corpus(clips: Sequence[Clip] | None = None) -> Corpus:
    """The tiny clips, or these, with RAVDESS's labels."""
    return Corpus(Path(), tuple(tiny_clips() if clips is None else clips), LABELS)


def write_tiny_features(
    folder: Path,
    clips: Sequence[Clip],
    noise: Mapping[str, float] | None = None,
    states: Mapping[tuple[str, str, str], State] | None = None,
    asr: str | None = None,
    widths: Mapping[str, int] = WIDTHS,
    offset: float = 0.0,
    made: Mapping[str, Any] | None = None,
) -> Path:
    """Write metadata.csv and stores in which class means differ; returns the metadata's path.

    Args:
        noise: condition name to the SD of what it adds to a row; `clean` is always there.
        states: (condition, modality, clip id) to a state other than done.
        asr: name of a recogniser, so that noise reaches text.
        widths: modality to width.
        offset: SD of what tells one speaker's rows from another's, whatever the emotion.
        made: further keys of the provenance.
    """
    write_metadata(clips, folder / "metadata.csv")
    centres = {name: np.random.default_rng(7).normal(size=(len(LABELS), width)) for name, width in widths.items()}
    for condition, scale in {"clean": 0.0, **(noise or {})}.items():
        changed = [name for name in widths if condition == "clean" or _changes(condition, name, asr)]
        store = FeatureStore.create(folder / f"{condition}.zarr", [clip.clip_id for clip in clips])
        for name in changed:
            provenance = {"random_weights": False, "asr": {"model": asr}, **(made or {})}
            spec = ArraySpec(name, "tiny", LAYERS, widths[name], provenance)
            store.require(spec)
            for unit in range(unit_count(len(clips))):
                rows = [clips[row] for row in unit_rows(len(clips), unit)]
                store.write_unit(spec, unit, _unit(rows, spec, condition, scale, centres[name], states or {}, offset))
    return folder / "metadata.csv"


def _changes(condition: str, modality: str, asr: str | None) -> bool:
    if condition.startswith("noise"):
        return modality == "audio" or (modality == "text" and asr is not None)
    return modality == "video"


def _unit(
    clips: Sequence[Clip],
    spec: ArraySpec,
    condition: str,
    scale: float,
    centres: np.ndarray,
    states: Mapping[tuple[str, str, str], State],
    offset: float,
) -> UnitRows:
    unit = UnitRows.empty(len(clips), spec)
    for row, clip in enumerate(clips):
        state = states.get((condition, spec.modality, clip.clip_id), State.DONE)
        if state == State.FAILED:
            unit.fail(row, "made to fail")
        elif state == State.ABSENT:
            unit.absent(row, "made to be absent")
        else:
            rng = np.random.default_rng([*clip.clip_id.encode(), *spec.modality.encode()])
            own = centres[LABELS.index(clip.label)] + rng.normal(size=(spec.layers, spec.width))
            worse = np.random.default_rng([*clip.clip_id.encode(), 1]).normal(size=own.shape) * scale
            person = np.random.default_rng([*clip.speaker.encode(), 2]).normal(size=own.shape) * offset
            unit.done(row, (own + worse + person).astype(np.float32))
    return unit
