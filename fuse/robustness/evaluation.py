"""Runs put to the test: predictions for their test speakers, under every condition, with every subset of modalities."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache.conditions import UNCHANGED, JointCondition
from cache.corpus.clips import Corpus
from cache.features.table import FeatureTable, sharing
from configs.command.launch import rank_count
from configs.command.progress import Progress
from configs.loader import load_config
from configs.schema.fusion import FusionConfig
from configs.schema.studies import RobustnessConfig
from fuse.robustness.conditions import settled
from fuse.robustness.missing import scenarios
from fuse.robustness.numbers import Evaluated
from fuse.robustness.tuned import TunedEncoders, refuse_shared_speakers, tuned_table
from fuse.runs.caveats import caveats, run_in_words
from fuse.runs.checkpoint import Checkpoint, read_checkpoint
from fuse.runs.folder import CHECKPOINT, CONFIG, PREDICTIONS, run_folders
from fuse.runs.predict import predictions_of
from fuse.runs.tables import corpus_of, print_notes, table_under, tested, trained_config, word_error_rate
from fuse.scores.predictions import Predictions, concatenate, read_predictions

Subset = tuple[str, ...]


@dataclass(frozen=True)
class TrainedRun:
    """A run folder: its name in the table, its leaves (folds and seeds), their checkpoints and configuration.

    `tuned`: by leaf, the encoders of a fine-tuned run, which make its rows; none: they are those in the stores.
    """

    name: str
    leaves: tuple[Path, ...]
    checkpoints: tuple[Checkpoint, ...]
    config: FusionConfig
    tuned: tuple[TunedEncoders, ...] = ()

    def table(self, corpus: Corpus, condition: JointCondition, held: FeatureTable | None = None) -> FeatureTable:
        """The clips under a condition; rows that are those of `held`, another table of this run, are not held twice."""
        cached = table_under(self.config, corpus, condition)
        if self.tuned:
            return tuned_table(self.tuned, cached, condition)
        return cached if held is None else sharing(cached, held)


def evaluate_all(config: RobustnessConfig) -> tuple[RobustnessConfig, list[Evaluated], list[str]]:
    """Every run, tested under everything that is asked.

    Returns:
        The configuration with all that it left open, what each run predicted, and what was left out, in words.

    Raises:
        ValueError: one line: a run or features that are not there, with the command that makes them.
    """
    runs = read_runs(config)
    config, left_out = settled(config, [one.config for one in runs])
    config = compared(config, [one.name for one in runs])
    for one in runs:
        for tuned in one.tuned:
            tuned.make(config.all_conditions, rank_count())
    with Progress("robustness", sum(steps(one, config) for one in runs), "evaluations") as progress:
        return config, [evaluate(one, config, progress) for one in runs], left_out


def read_evaluated(folder: Path) -> tuple[RobustnessConfig, list[Evaluated]]:
    """What `evaluate_all` found, from the predictions that the table's folder keeps; word error rates are not in them.

    Raises:
        ValueError: the folder holds no table.
    """
    config = load_config(RobustnessConfig, folder / CONFIG)
    names = run_names([Path(run) for run in config.runs])
    return config, [Evaluated(name, read_predictions(predictions_path(folder, name, names))) for name in names]


def predictions_path(out: Path, name: str, names: Sequence[str]) -> Path:
    """Where the predictions of a run stand: in the table's folder, in one of the run's name where there are several."""
    return (out if len(names) == 1 else out / name) / PREDICTIONS


def compared(config: RobustnessConfig, names: Sequence[str]) -> RobustnessConfig:
    """The configuration with the names of the runs that others are compared with: `reference` and `baseline`.

    Raises:
        ValueError: one of them is no run of the table.
    """
    known = dict(zip(config.runs, names, strict=True)) | {name: name for name in names}
    for key in ("reference", "baseline"):
        asked = getattr(config, key)
        if asked is not None and asked not in known:
            raise ValueError(f"{key}: {asked} is no run of this table; it has {', '.join(names)}")
    first = names[0] if len(names) > 1 else None
    reference = known[config.reference] if config.reference else first
    return replace(config, reference=reference, baseline=known[config.baseline] if config.baseline else reference)


def read_runs(config: RobustnessConfig) -> list[TrainedRun]:
    """The runs that are to be tested.

    Raises:
        ValueError: a folder holds none.
    """
    folders = [Path(folder) for folder in config.runs]
    found = []
    for name, folder in zip(run_names(folders), folders, strict=True):
        leaves = tuple(run_folders(folder))
        checkpoints = tuple(read_checkpoint(leaf / CHECKPOINT) for leaf in leaves)
        if checkpoints[0].fine_tuned:
            tuned = tuple(
                TunedEncoders.of(leaf, checkpoint, config.corpus, config.features_dir, config.noise.folder)
                for leaf, checkpoint in zip(leaves, checkpoints, strict=True)
            )
            refuse_shared_speakers(tuned)
            found.append(TrainedRun(name, leaves, checkpoints, tuned[0].config, tuned))
            continue
        trained = trained_config(leaves[0], checkpoints[0], config.corpus, config.features_dir, config.labels)
        found.append(TrainedRun(name, leaves, checkpoints, trained))
    return found


def run_names(folders: Sequence[Path]) -> list[str]:
    """What the runs are called: the last part of their folders, or the last two where that is not enough."""
    short = [folder.name for folder in folders]
    return short if len(set(short)) == len(short) else ["-".join(folder.parts[-2:]) for folder in folders]


def steps(run: TrainedRun, config: RobustnessConfig) -> int:
    """How many steps `evaluate` takes."""
    widest = max(_subsets(config, run.name, run.config.modalities), key=len)
    return len(run.leaves) * (len(config.all_conditions) + len(scenarios(config.missing_rates, widest)))


def evaluate(run: TrainedRun, config: RobustnessConfig, progress: Progress) -> Evaluated:
    """The run's predictions, for everything that it is asked; `progress` takes `steps` of them."""
    corpus = tested(run.config, corpus_of(run.config))
    print_notes(corpus)
    subsets = _subsets(config, run.name, run.config.modalities)
    clean = run.table(corpus, UNCHANGED)
    parts: list[Predictions] = []
    wer: dict[str, float] = {}
    changed: dict[str, frozenset[str]] = {}
    for condition in config.all_conditions:
        table = clean  # not the one before: it is gone when the next one is loaded
        if condition != UNCHANGED:
            table = run.table(corpus, condition, held=clean)
        changed[condition.name] = table.changed
        if (rate := word_error_rate(run.config, corpus.clips, condition)) is not None:
            wer[condition.name] = rate
        touched = subsets if condition == UNCHANGED else _touched(subsets, _reach(condition, table, config, changed))
        parts += _predicted(run, table, touched, progress)
    parts += _with_missing(run, clean, config, max(subsets, key=len), progress)
    caption = run_in_words(run.name, run.config.head, run.config.modalities, _trained_on(run.config))
    note, same_words = caveats(run.config, clean), _same_words(corpus)
    return Evaluated(run.name, concatenate(parts), note, caption, wer, same_words)


def _trained_on(config: FusionConfig) -> str:
    """What a run was trained on, in words: "trained on clean and 2 more conditions"."""
    drawn = {str(joint) for name in config.modalities for joint in getattr(config.augment, name, ())}
    more = len(drawn - {str(config.condition)})
    return f"trained on {config.condition}" + (f" and {more} more condition{'s' * (more > 1)}" if more else "")


def _same_words(corpus: Corpus) -> bool:
    """Whether every statement is said with every label, so that no word tells of the label."""
    labels: dict[str, set[str]] = {}
    for clip in corpus.clips:
        labels.setdefault(clip.statement, set()).add(clip.label)
    return bool(labels) and "" not in labels and all(len(found) == len(corpus.labels) for found in labels.values())


def _predicted(
    run: TrainedRun, table: FeatureTable, subsets: Sequence[Subset], progress: Progress
) -> list[Predictions]:
    """Of every leaf, for its own test speakers."""
    found = []
    for leaf, checkpoint in zip(run.leaves, run.checkpoints, strict=True):
        checkpoint.refuse_other_ground(table, leaf)
        found += _predict(checkpoint, table, subsets)
        progress.add(1)
    return found


def _predict(checkpoint: Checkpoint, table: FeatureTable, subsets: Sequence[Subset]) -> list[Predictions]:
    model = checkpoint.head()
    test = table.take(checkpoint.fold.clip_ids("test", table.clips))
    identity = (checkpoint.protocol, checkpoint.fold.number, checkpoint.seed)
    return [predictions_of(model, test, *identity, "test", subset) for subset in subsets]


def _with_missing(
    run: TrainedRun, clean: FeatureTable, config: RobustnessConfig, subset: Subset, progress: Progress
) -> list[Predictions]:
    """Clean clips that lack modalities at random, of the largest subset."""
    wanted = scenarios(config.missing_rates, subset)
    return [part for one in wanted for part in _predicted(run, one.withheld(clean), [subset], progress)]


def _reach(
    condition: JointCondition, table: FeatureTable, config: RobustnessConfig, changed: dict[str, frozenset[str]]
) -> list[frozenset[str]]:
    """Sets of modalities, of each of which a subset must have one to have a row.

    Of a pair that was asked for, one part is enough. Pairs of the grid are for what both parts strike: elsewhere
    they would repeat the rows of one part.
    """
    if condition not in config.grid:
        return [table.changed]
    return [changed[part.name] for part in condition.parts]


def _touched(subsets: Sequence[Subset], reach: Sequence[frozenset[str]]) -> list[Subset]:
    """The subsets that a condition changes: occlusion says nothing about sound alone, noise nothing of a statement."""
    return [subset for subset in subsets if all(changed & set(subset) for changed in reach)]


def _subsets(config: RobustnessConfig, name: str, own: Sequence[str]) -> list[Subset]:
    """The subsets to evaluate, in the run's own order of modalities, the full set first."""
    if not config.modalities:
        sizes = range(len(own), 0, -1)
        return [subset for size in sizes for subset in itertools.combinations(own, size)]
    wanted = [tuple(m for m in own if m in subset) for subset in config.modalities if set(subset) <= set(own)]
    if not wanted:
        raise ValueError(f"modalities: run {name} was trained on {', '.join(own)}; none of the subsets fits it")
    return list(dict.fromkeys(wanted))
