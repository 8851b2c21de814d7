"""The tables that stage two works on: what a configuration says of features, in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from cache.conditions import CLEAN, UNCHANGED, JointCondition
from cache.corpus.clips import Clip, Corpus, read_corpus
from cache.features.cached import lacking
from cache.features.provenance import refuse_mixing
from cache.features.store import open_store
from cache.features.table import FeatureTable, load_table, load_word_error_rates, one_after_other, reaches
from cache.files.commands import setting
from cache.files.remedy import features_command
from cache.protocols.choice import fitting_protocol
from cache.protocols.cross_corpus import CROSS_CORPUS, TEST, CorpusPart, corpus_names, joined, parts_of
from cache.protocols.leakage import recorded_hashes
from cache.remote.fetch import fetch_features
from configs.command.again import again_run
from configs.loader import load_config
from configs.schema.features import FeaturesConfig
from configs.schema.fusion import FusionConfig
from configs.schema.protocols import AUTO
from extract.asr.transcript import scored_words
from fuse.runs.adaptation import adapted
from fuse.runs.checkpoint import Checkpoint
from fuse.runs.folder import CONFIG

SIGNALS = ("audio", "video")


class Variants(Sequence[FeatureTable]):
    """Tables under several conditions, each loaded when it is asked for: they need not be in memory together."""

    def __init__(self, conditions: Sequence[JointCondition], load: Callable[[JointCondition], FeatureTable]) -> None:
        """`load`: of one condition."""
        self._conditions, self._load = conditions, load

    def __len__(self) -> int:
        """How many there are."""
        return len(self._conditions)

    @overload
    def __getitem__(self, place: int) -> FeatureTable: ...
    @overload
    def __getitem__(self, place: slice) -> Variants: ...
    def __getitem__(self, place: int | slice) -> FeatureTable | Variants:
        """One of them, loaded anew; or some, which are not."""
        if isinstance(place, slice):
            return Variants(self._conditions[place], self._load)
        return self._load(self._conditions[place])


@dataclass(frozen=True)
class Tables:
    """What training reads: one table to train, validate and test on, and variants to draw from, by signal."""

    main: FeatureTable
    variants: Mapping[str, Sequence[FeatureTable]]


def corpus_of(config: FusionConfig) -> Corpus:
    """The corpus of a configuration, or the two, labels under the names that the configuration gives them.

    Raises:
        ValueError: one line: what is wrong in its metadata, a name for a label that there is not, or two corpora whose
            labels are not the same.
    """
    own = read_corpus(Path(config.corpus), follow_links=True, mapping=config.labels)
    if config.target is None:
        return own
    other = read_corpus(Path(config.target.corpus), follow_links=True, mapping=config.target.labels)
    return joined(own, other, corpus_names(Path(config.corpus), Path(config.target.corpus)))


def with_root(corpus: Corpus, features_dir: Path) -> Corpus:
    """The corpus with its clips where stage one found them: `corpus_root` is a setting of that stage alone."""
    settings = stage_one_settings(features_dir)
    return replace(corpus, root=Path(settings.corpus_root)) if settings and settings.corpus_root else corpus


def stage_one_settings(features_dir: Path) -> FeaturesConfig | None:
    """What the last `make features` into a folder was told; None where the folder does not keep it."""
    settings = features_dir / CONFIG
    return load_config(FeaturesConfig, settings) if settings.is_file() else None


def tested(config: FusionConfig, corpus: Corpus) -> Corpus:
    """All that is needed to test a run again: of two corpora the target alone, so that no other needs conditions."""
    if config.target is None:
        return corpus
    return replace(corpus, clips=tuple(clip for clip in corpus.clips if clip.split == TEST))


def tuned_on(table: FeatureTable) -> dict[str, tuple[str, ...]]:
    """By modality, the speakers that the encoder of its features was fine-tuned on."""
    return {name: tuple(origin.made.get("tuned_on", ())) for name, origin in table.origins.items()}


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
    if config.target is not None and any(given is not None for given in (corpus, features_dir, labels)):
        raise ValueError(f"{leaf} is of two corpora; leave corpus, features_dir and labels out, to use the run's own")
    return replace(
        config,
        corpus=corpus or config.corpus,
        features_dir=features_dir or config.features_dir,
        # It has the features of the run's own folder.
        remote=None if features_dir else config.remote,
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
    if config.target is not None:
        print(f"protocol: {CROSS_CORPUS} (a target is named)")
        return replace(config, protocol=CROSS_CORPUS)
    fitting = fitting_protocol(corpus.clips)
    print(f"protocol: {fitting.name} ({fitting.why})")
    return replace(config, protocol=fitting.name)


def load_tables(config: FusionConfig, corpus: Corpus) -> Tables:
    """The table of `condition` and those of the variants that training draws from.

    Raises:
        ValueError: features are missing, with the commands that make all of them, or train without the variants.
    """
    fetch(config, [config.condition, *(joint for signal in SIGNALS for joint in getattr(config.augment, signal))])
    _refuse_missing_variants(config)
    # Of two corpora, the target is never drawn from, and needs no variant.
    drawn_from = replace(
        corpus, clips=tuple(clip for clip in corpus.clips if config.target is None or clip.split != TEST)
    )
    main = table_under(config, corpus, config.condition)
    _refuse_empty_modalities(config, main)
    return Tables(main, {signal: _variants(config, drawn_from, main, signal) for signal in SIGNALS})


def _variants(config: FusionConfig, drawn_from: Corpus, main: FeatureTable, signal: str) -> Variants:
    """Those of a signal, of the modalities that it changes."""
    changed = [name for name in config.modalities if name == signal or (signal == "audio" and name == "text")]

    def load(joint: JointCondition) -> FeatureTable:
        table = table_under(config, drawn_from, joint, changed)
        refuse_mixed(main, table)
        return table

    return Variants(getattr(config.augment, signal) if signal in config.modalities else (), load)


def _refuse_missing_variants(config: FusionConfig) -> None:
    refuse_no_features(config)
    folder = Path(config.features_dir)
    drawn = [joint for signal in SIGNALS if signal in config.modalities for joint in getattr(config.augment, signal)]
    missing = [name for joint in drawn for name in lacking(folder, joint, config.modalities, config.encoders)]
    if missing:
        raise ValueError(
            f"no cached features in {folder} for {', '.join(missing)}, which augment draws from; make them: "
            f"{features_command(folder, missing)}; or train without variants: {again_run('augment=null')}"
        )


def _refuse_empty_modalities(config: FusionConfig, table: FeatureTable) -> None:
    """Refuse to train on a modality that no clip has, which a head would learn nothing of."""
    empty = [name for name in config.modalities if not table.present[name].any()]
    if not empty:
        return
    others = [name for name in config.modalities if name not in empty]
    ways = [f"leave it out: {again_run(setting('modalities', others))}"] if others else []
    folder = Path(config.features_dir)
    if "text" in empty and not reaches(open_store(folder / f"{CLEAN}.zarr"), "text", config.encoders.get("text")):
        anew = features_command(folder, (), ["asr.model=base.en", "features_dir=<a new folder>"])
        ways.append(
            f"its text was the corpus's statements (asr.model=null), of which there is none; to have it heard: {anew}"
        )
    raise ValueError("; ".join([f"no clip has {' or '.join(empty)} in {folder}", *ways]))


def fetch(config: FusionConfig, conditions: Iterable[JointCondition] | None) -> None:
    """Bring what a configuration reads under these conditions, None: under all that are there, if it says from where.

    Raises:
        ValueError: what is there is not what is here.
        OSError: the object store does not answer, or refuses.
    """
    if config.remote is not None:
        fetch_features(Path(config.features_dir), config.remote, conditions, config.modalities, config.encoders)


def refuse_no_features(config: FusionConfig) -> None:
    """Refuse a folder without features of clean clips.

    Raises:
        ValueError: one line with the command that makes them.
    """
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
    """The features as they are cached; of two corpora, those of the source before those of the target."""
    fetch(config, [condition])
    refuse_no_features(config)
    names = config.modalities if modalities is None else modalities
    first, *others = [
        _named(
            load_table(folder, part.own, names, condition, config.layers, config.encoders, label_names=corpus.labels),
            part,
        )
        for folder, part in _parts(config, corpus.clips)
    ]
    remedy = "make both with the same settings, in features_dir and in target.features_dir"
    return one_after_other(first, others[0], remedy) if others else first


def word_error_rate(config: FusionConfig, clips: Sequence[Clip], condition: JointCondition) -> float | None:
    """Wrong words over words spoken, in the transcripts of these clips under a condition; None where there are none.

    A word that was added counts as wrong, so that it may exceed 1.
    """
    wrong = spoken = 0.0
    for folder, part in _parts(config, clips):
        rate_N = load_word_error_rates(folder, part.own, condition, config.encoders.get("text"))
        if rate_N is None:
            return None
        words_N = np.array([len(scored_words(clip.statement).split()) for clip in part.own])
        known_N = np.isfinite(rate_N)
        wrong, spoken = wrong + float(rate_N[known_N] @ words_N[known_N]), spoken + float(words_N[known_N].sum())
    return wrong / spoken if spoken else None


def recorded(config: FusionConfig, clips: Sequence[Clip]) -> dict[str, str]:
    """SHA-256 of media files by clip id, as stage one found them (`cache.protocols.leakage.recorded_hashes`)."""
    fetch(config, [UNCHANGED])
    found = {}
    for folder, part in _parts(config, clips):
        known = recorded_hashes(folder, part.own)
        pairs = zip(part.clips, part.own, strict=True)
        found.update({clip.clip_id: known[own.clip_id] for clip, own in pairs if own.clip_id in known})
    return found


def _parts(config: FusionConfig, clips: Sequence[Clip]) -> list[tuple[Path, CorpusPart]]:
    """The clips by the folder that their features are in."""
    if config.target is None:
        return [(Path(config.features_dir), CorpusPart("", tuple(clips)))]
    folders = (Path(config.features_dir), Path(config.target.features_dir))
    parts = parts_of(clips, corpus_names(Path(config.corpus), Path(config.target.corpus)))
    return [(folder, part) for folder, part in zip(folders, parts, strict=True) if part.clips]


def _named(table: FeatureTable, part: CorpusPart) -> FeatureTable:
    """The table with the ids of the joined corpora."""
    if not part.name:
        return table
    joint = {own.clip_id: clip for own, clip in zip(part.own, part.clips, strict=True)}
    left_out = tuple(joint[clip_id].clip_id for clip_id in table.left_out)
    return replace(table, clips=tuple(joint[clip.clip_id] for clip in table.clips), left_out=left_out)
