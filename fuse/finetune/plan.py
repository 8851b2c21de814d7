"""What a fine-tune starts from, checked before any rank starts: the run, its encoders, its clips and their media."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cache.conditions import CLEAN, MODALITIES, parse_joint
from cache.corpus.clips import Corpus, read_corpus
from cache.features.store import open_store
from cache.features.table import (
    FeatureTable,
    layer_numbers,
    layers_of,
    load_table,
    load_transcripts,
    origin_of,
    side_by_side,
)
from cache.features.units import unit_size
from cache.media import SAMPLE_RATE_HZ, MediaStore
from cache.protocols.folds import PARTS, Fold
from configs.schema.finetune import FinetuneConfig
from extract.corrupt.noise.sources import RECORDED
from extract.encoders.catalogue import encoder_class
from extract.encoders.models import Model, find_model
from fuse.finetune.clips import ClipItem
from fuse.model.fusion import FusionModel
from fuse.runs.checkpoint import Checkpoint, read_stage_two
from fuse.runs.folder import CHECKPOINT, run_folders


@dataclass(frozen=True)
class Start:
    """The run of stage two that is continued."""

    folder: Path
    fusion: FusionModel
    checkpoint: Checkpoint

    @property
    def fold(self) -> Fold:
        """Its speakers: who was never seen there stays unseen."""
        return self.checkpoint.fold

    @property
    def fixed(self) -> dict[str, Any]:
        """The keys of the configuration that this run decides."""
        kept = self.checkpoint
        return {
            "modalities": kept.modalities,
            "protocol": kept.protocol,
            "head": kept.settings.head,
            "hidden": kept.settings.hidden,
            "dropout": kept.settings.dropout,
            "layers": kept.layers,
            "standardise": kept.standardise,
        }


@dataclass(frozen=True)
class FinetunePlan:
    """Everything a rank needs to know.

    Attributes:
        config: with the keys of the continued run filled in.
        start: that run.
        models: encoders by modality.
        parts: the clips of `train`, `validation` and `test`.
        media: None where only text is used.
        stored: clips in the media store.
        left_out: ids of clips that failed in stage one.
        random_weights: some encoder was never trained.
        label_names: the label set of the corpus, in its order.
    """

    config: FinetuneConfig
    start: Start
    models: Mapping[str, Model]
    parts: Mapping[str, tuple[ClipItem, ...]]
    media: MediaStore | None
    stored: int
    left_out: tuple[str, ...]
    random_weights: bool
    label_names: tuple[str, ...]

    @property
    def seed(self) -> int:
        """The one seed of the run."""
        assert self.config.seeds is not None
        return self.config.seeds[0]

    @property
    def samples(self) -> int:
        """Length of every clip's sound."""
        return round(self.config.audio_seconds * SAMPLE_RATE_HZ)


def make_plan(config: FinetuneConfig) -> FinetunePlan:
    """Check everything that can be checked without loading an encoder.

    Raises:
        ValueError: one line; nothing was written.
    """
    start = find_start(Path(config.init))
    config = resolve(config, start)
    _refuse_recorded_noise(config)
    encoder_dtype(config.precision, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    corpus = read_corpus(Path(config.corpus))
    start.checkpoint.refuse_other_labels(corpus.labels, start.folder)
    models = _models(config, start)
    table = _table(config, start, corpus, models)
    store = open_store(Path(config.features_dir, f"{CLEAN}.zarr"))
    rows = {clip_id: row for row, clip_id in enumerate(store.clip_ids)}
    parts = {part: _items(config, start, table, rows, models, part) for part in PARTS}
    media = _media(config, models, [item.row for items in parts.values() for item in items], len(rows))
    return FinetunePlan(
        config, start, models, parts, media, len(rows), table.left_out, table.random_weights, table.label_names
    )


def find_start(init: Path) -> Start:
    """The one run of stage two in a folder.

    Raises:
        ValueError: there is none, several, or it is no run of stage two.
    """
    runs = run_folders(init)
    if len(runs) > 1:
        raise ValueError(f"init={init} holds {len(runs)} runs; name the one to continue, e.g. init={runs[0]}")
    checkpoint = read_stage_two(runs[0] / CHECKPOINT)
    return Start(runs[0], checkpoint.head(), checkpoint)


def resolve(config: FinetuneConfig, start: Start) -> FinetuneConfig:
    """Fill in what the continued run decides.

    Raises:
        ValueError: the configuration says something else.
    """
    if start.checkpoint.standardise == "speaker":
        raise ValueError(
            f"{start.folder} is adapted to each speaker's cached features, which fine-tuning changes; "
            "start from a run with standardise=train"
        )
    for name, value in start.fixed.items():
        given = getattr(config, name)
        same = set(given) == set(value) if name == "modalities" and given else given == value
        if given is not None and not same:
            raise ValueError(
                f"{name}={_shown(given)} contradicts the run it starts from ({start.folder}: {_shown(value)}); "
                f"leave {name} out, or set init to another run"
            )
    return replace(config, **start.fixed, seeds=config.seeds or (start.checkpoint.seed,))


def encoder_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The precision encoders run in on this device.

    Raises:
        ValueError: the device does not have it.
    """
    if precision == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if _has_bfloat16(device) else torch.float16
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision=float16 needs a GPU; set precision=auto")
    if precision == "bfloat16" and not _has_bfloat16(device):
        raise ValueError("precision=bfloat16: this GPU does not have it; set precision=auto")
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return dtypes[precision]


def _has_bfloat16(device: torch.device) -> bool:
    return device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)


def _refuse_recorded_noise(config: FinetuneConfig) -> None:
    for name in (config.condition, *config.augment.audio):
        if any(part.kind in RECORDED for part in parse_joint(name)):
            raise ValueError(
                f"{name} mixes in recordings, which only make features does; "
                "take noise-white or noise-pink to fine-tune"
            )


def _models(config: FinetuneConfig, start: Start) -> dict[str, Model]:
    """The encoders, which must be those whose features the run was trained on."""
    models = {}
    store = open_store(Path(config.features_dir, f"{CLEAN}.zarr"))
    for name, width in start.fusion.widths.items():
        if name not in MODALITIES:
            raise ValueError(
                f"{start.folder} uses {name}, whose features were imported: there is no encoder to fine-tune"
            )
        wanted = getattr(config.encoders, name)
        if wanted is None:
            raise ValueError(
                f"encoders.{name} is null, but {start.folder} uses {name}; name the encoder of its features"
            )
        model = find_model(wanted)
        encoder_class(name, model)
        chosen = layers_of(name, start.checkpoint.layers)
        joined = len(layer_numbers(chosen, model.layers)) if side_by_side(chosen) else 1
        trained_on = start.checkpoint.encoders[name]
        if trained_on != model.name or model.width * joined != width:
            named = trained_on if trained_on != model.name else f"an encoder of width {width // joined}"
            raise ValueError(f"encoders.{name}={wanted} is not what {start.folder} was trained on: {named}")
        if model.name in store.encoders(name):
            stored = store.provenance(f"{name}/{model.name}")
            _refuse_other_pooling(name, stored, model)
            if stored.get("weights_sha256") != model.weights_sha256:
                raise ValueError(
                    f"encoders.{name}={wanted} has other weights than the features in {config.features_dir} "
                    "were made with; name the same model folder, or run make features again"
                )
        models[name] = model
    return models


def _refuse_other_pooling(modality: str, stored: Mapping[str, Any], model: Model) -> None:
    """Fine-tuning pools by the mean, over every token of Whisper's own window."""
    for key, usual in (("pooling", "mean"), ("window", "30s"), ("layers", list(range(model.layers)))):
        if stored.get(key, usual) != usual:
            raise ValueError(
                f"the {modality} features were made with {key}={stored[key]}; fine-tuning knows {key}={usual} only: "
                "run make features with it, in another features_dir"
            )


def _table(config: FinetuneConfig, start: Start, corpus: Corpus, models: Mapping[str, Model]) -> FeatureTable:
    """Which clips stage one finished, and what they have; the features themselves are not used.

    Raises:
        ValueError: the run was trained on features that were made otherwise.
    """
    encoders = {name: model.name for name, model in models.items()}
    folder, layers = Path(config.features_dir), start.checkpoint.layers
    origins = {name: origin_of(folder, name, config.condition, layers, one) for name, one in encoders.items()}
    start.checkpoint.refuse_other_features(origins, start.folder)
    modalities, names = tuple(models), corpus.labels
    return load_table(folder, corpus.clips, modalities, config.condition, "last", encoders, label_names=names)


def _items(
    config: FinetuneConfig,
    start: Start,
    table: FeatureTable,
    rows: Mapping[str, int],
    models: Mapping[str, Model],
    part: str,
) -> tuple[ClipItem, ...]:
    chosen = table.rows_of(start.fold.clip_ids(part, table.clips))
    if not chosen:
        speakers = ", ".join(getattr(start.fold, part))
        raise ValueError(f"{config.corpus} has no clips of the {part} speakers of {start.folder} ({speakers})")
    clips = [table.clips[row] for row in chosen]
    texts = [""] * len(clips)
    if "text" in models:
        texts = load_transcripts(Path(config.features_dir), clips, config.condition, models["text"].name)
    present = [frozenset(name for name in models if table.present[name][row]) for row in chosen]
    numbers = table.labels[list(chosen)].tolist()
    return tuple(
        ClipItem(clip, label, rows[clip.clip_id], text, has)
        for clip, label, text, has in zip(clips, numbers, texts, present, strict=True)
    )


def _media(config: FinetuneConfig, models: Mapping[str, Model], rows: Sequence[int], stored: int) -> MediaStore | None:
    """The media store that holds these rows at the size the video encoder takes."""
    if not models.keys() & {"audio", "video"}:
        return None
    folder = Path(config.features_dir)
    kept = [_media_of(folder, models["video"])] if "video" in models else _every_media(folder)
    units = sorted({row // unit_size(stored) for row in rows})
    missing = f"no decoded clips in {folder / 'media'}"
    for provenance in kept:
        media = MediaStore(folder, provenance)
        lacking = [unit for unit in units if not media.has_unit(unit)]
        if not lacking:
            return media
        missing = f"{media.folder} lacks {len(lacking)} of {len(units)} units of decoded clips"
    raise ValueError(
        f"{missing}; run make features with SET=restore_media=true and the same corpus, features_dir and encoders"
    )


def _media_of(folder: Path, model: Model) -> Mapping[str, Any]:
    """The media that the features of a video encoder were made of."""
    store, plain = open_store(folder / f"{CLEAN}.zarr"), {"frames": model.frames, "size": model.size}
    stored = store.provenance(f"video/{model.name}") if model.name in store.encoders("video") else {}
    media: Mapping[str, Any] = stored.get("media", plain)
    return media


def _every_media(folder: Path) -> list[Mapping[str, Any]]:
    """The media that are there, by their settings: any will do where only sound is wanted."""
    records = [next(path.glob("*.sources.json"), None) for path in sorted(folder.glob("media/frames*"))]
    return [json.loads(record.read_text())["provenance"] for record in records if record]


def _shown(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
