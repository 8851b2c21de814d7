"""Recordings that stage one mixed into a condition, found again: the same clips that babble, the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cache.conditions import Condition, JointCondition
from cache.corpus.clips import Corpus, read_corpus
from cache.features.store import open_store
from configs.command.again import again
from configs.schema.features import NoiseSettings
from configs.schema.fusion import FusionConfig
from extract.corrupt.noise.sources import RECORDED, NoiseSources, known_sources, noise_sources
from fuse.runs.tables import stage_one_settings, with_root

CHANGED = {
    "noise-babble": "clips that are heard in it have changed; leave it out",
    "noise-file": "noise.folder has other files than its features were made with; set it to these, or leave it out",
}


def recordings_again(
    condition: JointCondition, config: FusionConfig, encoder: str, folder: str | None = None
) -> NoiseSources | None:
    """What a condition was mixed of in stage one; None where it mixes in nothing that was recorded.

    Args:
        condition: as it is cached.
        config: of a run of stage two: its corpus, and its features.
        encoder: of the features of sound, whose store says what was mixed in.
        folder: of the files of `noise-file`; None: the one that the last `make features` was given.

    Raises:
        ValueError: one line: recordings that are not there, or are not what they were.
    """
    recorded = [part for part in condition.parts if part.kind in RECORDED]
    if not recorded:
        return None
    (part,) = recorded
    store = open_store(Path(config.features_dir, f"{part.name}.zarr"))
    drawn = store.provenance(f"audio/{encoder}")["noise"]
    noises = _clips(part, config, drawn) if part.kind == "noise-babble" else _files(part, config, folder)
    if noises.provenance(part.kind) != drawn:
        raise ValueError(f"{part.name}: {CHANGED[part.kind]}")
    return noises


def _clips(part: Condition, config: FusionConfig, drawn: dict[str, Any]) -> NoiseSources:
    """Babble, of the clips that the store names."""
    read = read_corpus(Path(config.corpus), follow_links=True, mapping=config.labels)
    corpus = with_root(read, Path(config.features_dir))
    known = {clip.clip_id for clip in corpus.clips}
    if not set(drawn["pool"]) <= known:
        raise ValueError(f"{part.name}: {config.corpus} lacks clips that are heard in it; leave it out")
    return known_sources(NoiseSettings(), corpus, {part.kind: drawn["pool"]})


def _files(part: Condition, config: FusionConfig, folder: str | None) -> NoiseSources:
    """The files of a folder: the store knows how many, and their hash."""
    last = stage_one_settings(Path(config.features_dir))
    folder = folder or (last.noise.folder if last else None)
    if folder is None:
        remedy = again("noise.folder=<that of make features>")
        raise ValueError(f"{part.name}: nothing says which folder its files are in; name it: {remedy}; or leave it out")
    return noise_sources(NoiseSettings(folder=folder), Corpus(Path(), (), ()), [part.kind])
