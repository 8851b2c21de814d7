"""What a run has to compute: arrays (a modality under a condition each) over units. No torch.

The launcher makes the plan, and hands it over whole, as JSON: whoever computes units hashes and looks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter

from cache.conditions import Condition, stored_conditions
from cache.corpus.clips import Clip, Corpus, read_corpus
from cache.features.rows import ArraySpec
from cache.features.store import FeatureStore
from cache.features.units import unit_count, unit_rows
from cache.files.atomic import revealed
from cache.media import MediaStore, Source
from cache.remote.live import Live
from configs.schema.features import FeaturesConfig
from extract.asr.models import check_asr, recogniser_files
from extract.corrupt.noise.sources import NoiseSources, known_sources, noise_sources
from extract.encoders.models import (
    Model,
    check_preprocessing,
    check_video_media,
    find_model,
    refuse_changed,
)
from extract.encoders.options import EncoderOptions
from extract.run.provenance import array_spec, device_kind, kept_layers, media_provenance, text_provenance

# In the folder where launcher and ranks leave word for each other.
PLAN_FILE = "plan.json"
CLIPS_PER_LINE = 1000


@dataclass(frozen=True)
class PlannedArray:
    """One array to fill: a modality under a condition."""

    condition: Condition
    spec: ArraySpec

    @property
    def place(self) -> tuple[str, str]:
        """Condition and path."""
        return self.condition.name, self.spec.path


@dataclass(frozen=True)
class Plan:
    """A run: the corpus, the models, where things are kept and which arrays are wanted.

    Attributes:
        config: what was asked for.
        corpus: the clips.
        models: by modality, the encoder.
        arrays: those that are wanted, a modality under a condition each.
        recordings: by kind of noise, the names of what it draws from (`NoiseSource.names`).
        device: kind of device that encodes, `cuda` or `cpu`.
        checkpoint: the recogniser's files as they were when they were hashed; empty where there is none, or it goes by
            name.
    """

    config: FeaturesConfig
    corpus: Corpus
    models: Mapping[str, Model]
    arrays: tuple[PlannedArray, ...]
    recordings: Mapping[str, tuple[str, ...]]
    device: str
    checkpoint: Mapping[Path, Source]

    def refuse_changed_models(self) -> None:
        """Check that the files of all models are still those whose hashes are in the provenance; they are not read.

        Raises:
            ValueError: one is not; its name.
        """
        for files in (*(model.files for model in self.models.values()), self.checkpoint):
            refuse_changed(files)

    @cached_property
    def noises(self) -> NoiseSources:
        """The recordings to mix in."""
        return known_sources(self.config.noise, self.corpus, self.recordings)

    @property
    def features_dir(self) -> Path:
        """Folder of the stores."""
        return Path(self.config.features_dir)

    @property
    def specs(self) -> dict[str, list[ArraySpec]]:
        """The arrays of each condition's store."""
        specs: dict[str, list[ArraySpec]] = {}
        for array in self.arrays:
            specs.setdefault(array.condition.name, []).append(array.spec)
        return specs

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
        ids = tuple(clip.clip_id for clip in self.corpus.clips)
        names = dict.fromkeys(array.condition.name for array in self.arrays)
        return {name: FeatureStore.create(self.features_dir / f"{name}.zarr", ids) for name in names}

    @cached_property
    def live(self) -> Live | None:
        """The object store that this run works with, if any."""
        return Live(self.features_dir, self.config.remote) if self.config.remote else None

    def clips(self, unit: int) -> tuple[Clip, ...]:
        """The clips of a unit, in the order of its rows."""
        rows = unit_rows(len(self.corpus.clips), unit)
        return self.corpus.clips[rows.start : rows.stop]

    def pending(self, unit: int) -> list[PlannedArray]:
        """The arrays that still lack this unit."""
        return [
            array for array in self.arrays if self.stores[array.condition.name].unit_is_pending(array.spec.path, unit)
        ]

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
    root = Path(config.corpus_root) if config.corpus_root else None
    corpus = read_corpus(Path(config.corpus), root, config.follow_links, config.labels)
    wanted = {name: value for name, value in asdict(config.encoders).items() if value is not None}
    models = {modality: find_model(name) for modality, name in wanted.items()}
    for modality, model in models.items():
        _check_options(config, modality, model)
    if "video" in models:
        check_video_media(models["video"], config.media)
    if config.asr.model is not None and "text" in models:
        check_asr(config.asr)
    checkpoint = recogniser_files(config.asr) if "text" in models else {}
    device = _device(config)
    text = text_provenance(config, corpus, device) if "text" in models else {}
    conditions = stored_conditions(config.conditions)
    noises = noise_sources(config.noise, corpus, [condition.kind for condition in conditions])
    # Once per kind: recordings are read through for their hashes.
    drawn = {kind: noises.provenance(kind) for kind in noises.by_kind}
    arrays = [
        PlannedArray(condition, array_spec(config, modality, models[modality], condition, drawn, text, device))
        for condition in conditions
        for modality in condition.changes
        if modality in models and (modality != "text" or not condition.modality or config.asr.model)
    ]
    recordings = {kind: source.names for kind, source in noises.by_kind.items()}
    return Plan(config, corpus, models, tuple(arrays), recordings, device, checkpoint)


def _device(config: FeaturesConfig) -> str:
    """What ranks will encode on: what they are allotted, which this machine need not have, or what it has."""
    if config.engine.allots:
        return "cuda" if config.engine.gpus_per_task else "cpu"
    return device_kind()


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan for `read_plan`: a line of JSON without clips, then lines of some clips each."""
    clips, plans = TypeAdapter(tuple[Clip, ...]), TypeAdapter(Plan)
    parts = (
        plan.corpus.clips[first : first + CLIPS_PER_LINE] for first in range(0, len(plan.corpus.clips), CLIPS_PER_LINE)
    )
    with revealed(path) as part, part.open("wb") as file:
        file.write(plans.dump_json(replace(plan, corpus=replace(plan.corpus, clips=()))) + b"\n")
        file.writelines(clips.dump_json(some, exclude_defaults=True) + b"\n" for some in parts)


def read_plan(path: Path) -> Plan:
    """The plan that was written there; stores and media are opened when they are asked for."""
    some = TypeAdapter(tuple[Clip, ...])
    with path.open("rb") as file:
        plan = TypeAdapter(Plan).validate_json(file.readline())
        # A line at a time: JSON of a million clips, and the objects of a parser, are 1.2 GB in every rank.
        clips = tuple(clip for line in file for clip in some.validate_json(line))
    return replace(plan, corpus=replace(plan.corpus, clips=clips))


def _check_options(config: FeaturesConfig, modality: str, model: Model) -> None:
    """Refuse a model that cannot be fed, and options that it does not have, before a store is made."""
    check_preprocessing(modality, model)
    kept_layers(config.layers, model)
    window_seconds = config.window_seconds if modality == "audio" else None
    if config.pooling != "mean" or window_seconds is not None:
        # Only then: importing torch takes longer than the rest of a run with nothing to do.
        from extract.encoders.catalogue import check_options

        check_options(modality, model, EncoderOptions(config.pooling, window_seconds=window_seconds))


def prepare_stores(plan: Plan) -> None:
    """Make the stores and check those there are. One process, before any rank starts."""
    plan.features_dir.mkdir(parents=True, exist_ok=True)
    for array in plan.arrays:
        plan.stores[array.condition.name].require(array.spec)
