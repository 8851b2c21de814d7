"""What a fine-tune starts from, checked before any rank starts: the run, its encoders, its clips and their media."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cache.conditions import CLEAN, MODALITIES
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
from cache.files.commands import setting
from cache.files.remedy import features_command
from cache.media import SAMPLE_RATE_HZ, MediaStore
from cache.protocols.folds import PARTS
from cache.remote.fetch import fetch_features, fetch_media
from configs.schema.finetune import FinetuneConfig
from extract.corrupt.noise.sources import RECORDED, NoiseSources
from extract.encoders.catalogue import encoder_class
from extract.encoders.models import Model, check_preprocessing, find_model
from extract.encoders.options import DEFAULT, EncoderOptions
from fuse.finetune.inputs.clips import ClipItem
from fuse.finetune.inputs.media import find_media
from fuse.finetune.network import encoder_dtype
from fuse.finetune.start import Start, find_start, resolve


@dataclass(frozen=True)
class FinetunePlan:
    """Everything a rank needs to know.

    Attributes:
        config: with the keys of the continued run filled in.
        start: that run.
        models: encoders by modality.
        options: how each of them is run: as for the features.
        parts: the clips of `train`, `validation` and `test`.
        media: None where only text is used.
        stored: clips in the media store.
        left_out: ids of clips that failed in stage one.
        random_weights: some encoder was never trained.
        label_names: the label set of the corpus, in its order.
        notes: what was read otherwise than it is written, in lines to print.
        noises: recordings that its condition mixes in; None: it mixes in none.
    """

    config: FinetuneConfig
    start: Start
    models: Mapping[str, Model]
    options: Mapping[str, EncoderOptions]
    parts: Mapping[str, tuple[ClipItem, ...]]
    media: MediaStore | None
    stored: int
    left_out: tuple[str, ...]
    random_weights: bool
    label_names: tuple[str, ...]
    notes: tuple[str, ...]
    noises: NoiseSources | None = None

    @property
    def seed(self) -> int:
        """The one seed of the run."""
        assert self.config.seeds is not None
        return self.config.seeds[0]

    @property
    def samples(self) -> int | None:
        """Length of every clip's sound; None: its own."""
        seconds = self.config.audio_seconds
        return None if seconds is None else round(seconds * SAMPLE_RATE_HZ)


def plan_finetune(config: FinetuneConfig, noises: NoiseSources | None = None) -> FinetunePlan:
    """Check everything that can be checked without loading an encoder.

    `noises`: recordings to mix in; without them a condition that wants some is refused.

    Raises:
        ValueError: one line; nothing was written.
    """
    start = find_start(Path(config.init))
    config = resolve(config, start)
    _refuse_recorded_noise(config, noises)
    encoder_dtype(config.precision, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    corpus = read_corpus(Path(config.corpus), follow_links=True, mapping=config.labels)
    start.checkpoint.refuse_other_labels(corpus.labels, start.folder)
    _fetch(config, start)
    models, options = _models(config, start)
    table = _table(config, start, corpus, models)
    store = open_store(Path(config.features_dir, f"{CLEAN}.zarr"))
    rows = {clip_id: row for row, clip_id in enumerate(store.clip_ids)}
    parts = {part: _items(config, start, table, rows, models, part) for part in PARTS}
    media = find_media(
        Path(config.features_dir), models, [item.row for items in parts.values() for item in items], len(rows)
    )
    return FinetunePlan(
        config,
        start,
        models,
        options,
        parts,
        media,
        len(rows),
        table.left_out,
        table.random_weights,
        table.label_names,
        corpus.notes,
        noises,
    )


def _fetch(config: FinetuneConfig, start: Start) -> None:
    if config.remote is not None:
        folder, encoders = Path(config.features_dir), start.checkpoint.encoders
        fetch_features(folder, config.remote, [config.condition], tuple(start.fusion.widths), encoders)
        if set(start.fusion.widths) != {"text"}:
            fetch_media(folder, config.remote)


def _refuse_recorded_noise(config: FinetuneConfig, noises: NoiseSources | None) -> None:
    missing = RECORDED.keys() - (noises.by_kind if noises else {})
    for joint in (config.condition, *config.augment.audio):
        if any(part.kind in missing for part in joint.parts):
            raise ValueError(
                f"{joint} mixes in recordings, which only make features does; "
                "take noise-white or noise-pink to fine-tune"
            )


def _models(config: FinetuneConfig, start: Start) -> tuple[dict[str, Model], dict[str, EncoderOptions]]:
    """The encoders, which must be those whose features the run was trained on, and how they were run."""
    options = dict.fromkeys(start.fusion.widths, DEFAULT)
    models = {name: _model(config, start, name) for name in start.fusion.widths}
    store = open_store(Path(config.features_dir, f"{CLEAN}.zarr"))
    for name, model in models.items():
        if model.name not in store.encoders(name):
            continue
        stored = store.provenance(f"{name}/{model.name}")
        _refuse_other_pooling(Path(config.features_dir), name, stored, model)
        options[name] = EncoderOptions(window=stored.get("window", DEFAULT.window))
        if stored.get("weights_sha256") != model.weights_sha256:
            wanted = setting(f"encoders.{name}", getattr(config.encoders, name))
            command = features_command(Path(config.features_dir), (), [wanted, "features_dir=<another>"])
            raise ValueError(
                f"{wanted} has other weights than the features in {config.features_dir} were made with; "
                f"name the same model folder, or run: {command}"
            )
    return models, options


def _model(config: FinetuneConfig, start: Start, name: str) -> Model:
    """The encoder of one modality, of the name and width that the run has."""
    if name not in MODALITIES:
        raise ValueError(f"{start.folder} uses {name}, whose features were imported: there is no encoder to fine-tune")
    wanted = getattr(config.encoders, name)
    if wanted is None:
        raise ValueError(f"encoders.{name} is null, but {start.folder} uses {name}; name the encoder of its features")
    model = find_model(wanted)
    encoder_class(name, model)
    check_preprocessing(name, model)
    chosen, width = layers_of(name, start.checkpoint.layers), start.fusion.widths[name]
    joined = len(layer_numbers(chosen, model.layers)) if side_by_side(chosen) else 1
    trained_on = start.checkpoint.encoders[name]
    if trained_on != model.name or model.width * joined != width:
        named = trained_on if trained_on != model.name else f"an encoder of width {width // joined}"
        raise ValueError(f"encoders.{name}={wanted} is not what {start.folder} was trained on: {named}")
    return model


def _refuse_other_pooling(features_dir: Path, modality: str, stored: Mapping[str, Any], model: Model) -> None:
    """Fine-tuning pools by the mean, and keeps every layer."""
    every = list(range(model.layers))
    known = (("pooling", "mean", "pooling=mean"), ("layers", every, "layers=all"))
    for key, usual, word in known:
        if stored.get(key, usual) != usual:
            raise ValueError(
                f"the {modality} features were made with {key}={stored[key]}; fine-tuning knows {key}={usual} only; "
                f"run: {features_command(features_dir, (), [word, 'features_dir=<another>'])}"
            )
    if windows := stored.get("windows"):
        remedy = features_command(features_dir, (), ["window_seconds=null", "features_dir=<another>"])
        raise ValueError(
            f"the {modality} features were made with window_seconds={windows['seconds']:g}; fine-tuning knows no "
            f"windows; run: {remedy}"
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
