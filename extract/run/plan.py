"""What a run has to compute: jobs (condition x modality) over units. No torch; launcher and ranks agree on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from cache.conditions import Condition, stored_conditions
from cache.corpus.clips import Clip, Corpus, read_corpus
from cache.features.store import ArraySpec, FeatureStore
from cache.features.units import unit_count, unit_rows
from cache.media import MediaStore
from configs.schema.features import FeaturesConfig
from extract.corrupt.noise.sources import NoiseSources, noise_sources
from extract.encoders.models import Model, check_asr_model, check_video_media, find_model
from extract.encoders.options import EncoderOptions
from extract.run.provenance import array_spec, media_provenance, stored_layers, text_provenance


@dataclass(frozen=True)
class Job:
    """One array to fill: a modality under a condition."""

    condition: Condition
    spec: ArraySpec


@dataclass(frozen=True)
class Plan:
    """A run: the corpus, the models, where things are kept and which arrays are wanted."""

    config: FeaturesConfig
    corpus: Corpus
    models: Mapping[str, Model]
    jobs: tuple[Job, ...]
    noises: NoiseSources

    @property
    def features_dir(self) -> Path:
        """Folder of the stores."""
        return Path(self.config.features_dir)

    @property
    def units(self) -> range:
        """All unit numbers."""
        return range(unit_count(len(self.corpus.clips)))

    @cached_property
    def media(self) -> MediaStore:
        """The decoded clips."""
        return MediaStore(self.features_dir, media_provenance(self.config))

    @cached_property
    def stores(self) -> dict[str, FeatureStore]:
        """The feature store of each condition, opened or made."""
        ids = [clip.clip_id for clip in self.corpus.clips]
        names = dict.fromkeys(job.condition.name for job in self.jobs)
        return {name: FeatureStore.create(self.features_dir / f"{name}.zarr", ids) for name in names}

    def clips(self, unit: int) -> tuple[Clip, ...]:
        """The clips of a unit, in the order of its rows."""
        rows = unit_rows(len(self.corpus.clips), unit)
        return self.corpus.clips[rows.start : rows.stop]

    def pending(self, unit: int) -> list[Job]:
        """The jobs that still lack this unit."""
        return [job for job in self.jobs if self.stores[job.condition.name].unit_is_pending(job.spec.path, unit)]

    def lacks(self, unit: int) -> bool:
        """Whether anything of a unit is to be computed or decoded."""
        return bool(self.pending(unit)) or self.lacks_media(unit)

    def lacks_media(self, unit: int) -> bool:
        """Whether a unit is to be decoded for its own sake: fine-tuning reads what features no longer need."""
        return self.config.restore_media and not self.media.has_unit(unit)


def make_plan(config: FeaturesConfig) -> Plan:
    """Check everything that can be checked before work begins.

    Raises:
        ValueError: one line; nothing was written.
    """
    corpus = read_corpus(Path(config.corpus), Path(config.corpus_root) if config.corpus_root else None)
    wanted = {name: value for name, value in asdict(config.encoders).items() if value is not None}
    models = {modality: find_model(name) for modality, name in wanted.items()}
    for modality, model in models.items():
        _check_options(config, modality, model)
    if "video" in models:
        check_video_media(models["video"], config.media)
    if config.asr.model is not None and "text" in models:
        check_asr_model(config.asr.model)
    text = text_provenance(config, corpus) if "text" in models else {}
    conditions = stored_conditions(config.conditions)
    noises = noise_sources(config.noise, corpus, [condition.kind for condition in conditions])
    # Once per kind: recordings are read through for their hashes.
    drawn = {kind: noises.provenance(kind) for kind in noises.by_kind}
    jobs = [
        Job(condition, array_spec(config, modality, models[modality], condition, drawn, text))
        for condition in conditions
        for modality in condition.changes
        if modality in models and (modality != "text" or not condition.modality or config.asr.model)
    ]
    return Plan(config, corpus, models, tuple(jobs), noises)


def _check_options(config: FeaturesConfig, modality: str, model: Model) -> None:
    """Refuse a pooling or layers that an encoder does not have, before a store is made for them."""
    stored_layers(config.layers, model)
    if config.pooling != "mean":
        # Only then: importing torch takes longer than the rest of a run with nothing to do.
        from extract.encoders.catalogue import check_options

        check_options(modality, model, EncoderOptions(config.pooling))


def prepare_stores(plan: Plan) -> None:
    """Make the stores and check those there are. One process, before any rank starts."""
    plan.features_dir.mkdir(parents=True, exist_ok=True)
    for job in plan.jobs:
        plan.stores[job.condition.name].require(job.spec)
