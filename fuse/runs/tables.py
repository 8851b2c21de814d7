"""The tables that stage two works on: what a configuration says of features, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from cache.conditions import CLEAN, JointCondition
from cache.corpus.clips import Corpus, read_corpus
from cache.features.cached import lacking
from cache.features.provenance import refuse_mixing
from cache.features.remedy import features_command
from cache.features.table import FeatureTable, load_table
from cache.protocols.choice import fitting_protocol
from configs.command.again import again
from configs.loader import load_config
from configs.schema.fusion import FusionConfig
from configs.schema.protocols import AUTO
from fuse.runs.adaptation import adapted
from fuse.runs.checkpoint import Checkpoint
from fuse.runs.folder import CONFIG

SIGNALS = ("audio", "video")


@dataclass(frozen=True)
class Tables:
    """What training reads: one table to train, validate and test on, and variants to draw from, by signal."""

    main: FeatureTable
    variants: Mapping[str, Sequence[FeatureTable]]


def corpus_of(config: FusionConfig) -> Corpus:
    """The corpus of a configuration, its labels under the names that the configuration gives them.

    Raises:
        ValueError: one line: what is wrong in its metadata, or a name for a label that there is not.
    """
    return read_corpus(Path(config.corpus), follow_links=True, mapping=config.labels)


def print_notes(corpus: Corpus) -> None:
    """What was read otherwise than it is written."""
    for note in corpus.notes:
        print(f"note: {note}")


def trained_config(
    leaf: Path,
    kept: Checkpoint,
    corpus: str | None,
    features_dir: str | None,
    labels: Mapping[str, str | None] | None = None,
) -> FusionConfig:
    """The configuration of a run, for its features to be loaded again.

    Args:
        leaf: folder of the run.
        kept: its checkpoint, which knows its encoders where the configuration left them to what was there.
        corpus, features_dir, labels: others than the run's own; None: as there.
    """
    config = load_config(FusionConfig, leaf / CONFIG)
    return replace(
        config,
        corpus=corpus or config.corpus,
        features_dir=features_dir or config.features_dir,
        labels=config.labels if labels is None else dict(labels),
        encoders=dict(kept.encoders),
    )


def with_protocol(config: FusionConfig, corpus: Corpus) -> FusionConfig:
    """The configuration with the name of a protocol: where it is `auto`, of the one that fits the corpus, printed.

    Raises:
        ValueError: none fits.
    """
    if config.protocol != AUTO:
        return config
    fitting = fitting_protocol(corpus.clips)
    print(f"protocol: {fitting.name} ({fitting.why})")
    return replace(config, protocol=fitting.name)


def load_tables(config: FusionConfig, corpus: Corpus) -> Tables:
    """The table of `condition` and those of the variants that training draws from.

    Raises:
        ValueError: features are missing, with the commands that make all of them, or train without the variants.
    """
    _refuse_missing_variants(config)
    variants = {}
    for signal in SIGNALS:
        changed = [name for name in config.modalities if name == signal or (signal == "audio" and name == "text")]
        joints = getattr(config.augment, signal) if signal in config.modalities else ()
        variants[signal] = [table_under(config, corpus, joint, changed) for joint in joints]
    main = table_under(config, corpus, config.condition)
    for table in chain.from_iterable(variants.values()):
        refuse_mixed(main, table)
    return Tables(main, variants)


def _refuse_missing_variants(config: FusionConfig) -> None:
    _refuse_no_features(config)
    folder = Path(config.features_dir)
    drawn = [joint for signal in SIGNALS if signal in config.modalities for joint in getattr(config.augment, signal)]
    missing = [name for joint in drawn for name in lacking(folder, joint, config.modalities, config.encoders)]
    if missing:
        raise ValueError(
            f"no cached features in {folder} for {', '.join(missing)}, which augment draws from; make them: "
            f"{features_command(folder, missing)}; or train without variants: {again('augment=null')}"
        )


def _refuse_no_features(config: FusionConfig) -> None:
    folder = Path(config.features_dir)
    if not (folder / f"{CLEAN}.zarr").exists():
        command = features_command(folder, corpus=config.corpus)
        raise ValueError(f"no feature store {folder / CLEAN}.zarr; run: {command}")


def refuse_mixed(main: FeatureTable, other: FeatureTable) -> None:
    """Refuse to use rows of both with one head where they were made differently.

    Raises:
        ValueError: one line with the difference and the remedy.
    """
    for name, origin in other.origins.items():
        folder, both = Path(origin.store).parent, (main.condition, other.condition)
        remedy = f"make both anew: {features_command(folder, both, ['features_dir=<a new folder>'])}"
        refuse_mixing(name, origin, main.origins[name], remedy)


def table_under(
    config: FusionConfig, corpus: Corpus, condition: JointCondition, modalities: Sequence[str] | None = None
) -> FeatureTable:
    """The features of a configuration under one condition, adapted to each speaker where it says so."""
    table = raw_table(config, corpus, condition, modalities)
    return adapted(table) if config.standardise == "speaker" else table


def raw_table(
    config: FusionConfig, corpus: Corpus, condition: JointCondition, modalities: Sequence[str] | None = None
) -> FeatureTable:
    """The features as they are cached."""
    _refuse_no_features(config)
    names = config.modalities if modalities is None else modalities
    return load_table(
        Path(config.features_dir),
        corpus.clips,
        names,
        condition,
        config.layers,
        config.encoders,
        label_names=corpus.labels,
    )
