"""What a page is about: runs, and everything that is known of how they do. Nothing is trained or predicted here."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cache.conditions import CLEAN, Condition, parse_joint
from cache.corpus.labels import label_difference
from fuse.runs.folder import CONFIG, METRICS, PREDICTIONS, run_folders
from fuse.scores.predictions import Predictions, concatenate, read_predictions

TABLE, GROUPS, RULES = "robustness_table.csv", "robustness_groups.csv", "robustness_rules.csv"
# Float32 sums differ in their last bits from machine to machine; another training differs far more.
SAME = 1e-3


@dataclass(frozen=True)
class Subject:
    """One run.

    Attributes:
        name: short, and no other run's on the page.
        folder: of the run; `leaves`: those of its folds and seeds.
        config: its configuration, as YAML; `metrics`: what metrics.json holds.
        test: what it said of the clips of its test speakers, under every condition and with every subset of its
            modalities that was tried.
        modalities: all that it was given, as the predictions name them ("audio+video").
        table: its rows of the robustness table, by column, as text; empty where none was made. `groups`: the means over
            conditions that stand beside it; `rules`: what the run owes its modalities, and whether it keeps it.
        notes: what the reader must know of where this comes from.
    """

    name: str
    folder: Path
    leaves: tuple[Path, ...]
    config: str
    metrics: Mapping[str, Any]
    test: Predictions
    modalities: str
    table: tuple[Mapping[str, str], ...]
    groups: tuple[Mapping[str, str], ...]
    rules: tuple[Mapping[str, str], ...]
    notes: tuple[str, ...]

    @property
    def conditions(self) -> list[str]:
        """All that was done to clips when it was given all of its modalities, clean first where it is among them."""
        found = dict.fromkeys(self.test.select(modalities=self.modalities).condition.tolist())
        return sorted(filter(parts_of, found), key=lambda name: name != CLEAN)

    def under(self, condition: str) -> Predictions:
        """What it said with all of its modalities; a condition that changes none of them leaves what it said clean."""
        found = self.test.select(modalities=self.modalities, condition=condition)
        return found if len(found) else self.test.select(modalities=self.modalities, condition=self.conditions[0])


def parts_of(condition: str) -> tuple[Condition, ...]:
    """What a name in predictions.csv says; nothing for a name of no condition: tables have other rows as well."""
    try:
        return parse_joint(condition).parts
    except ValueError:
        return ()


def read_subjects(folders: Sequence[Path], robustness: Sequence[str] | None) -> list[Subject]:
    """The runs in these folders.

    Args:
        folders: of runs.
        robustness: folders with robustness tables; None: those beside a run.

    Raises:
        ValueError: a folder holds no run, or runs know different labels.
    """
    names = short_names(folders)
    subjects = [_read(*pair, robustness) for pair in zip(names, folders, strict=True)]
    first = subjects[0]
    for one in subjects[1:]:
        if difference := label_difference(first.test.label_names, one.test.label_names):
            raise ValueError(f"run: {one.name} knows other labels than {first.name} ({difference}); give each a page")
    return subjects


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or as many as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    length = next(n for n in range(1, 1 + max(map(len, parts))) if len({one[-n:] for one in parts}) == len(parts))
    return ["-".join(one[-length:]) for one in parts]


def _read(name: str, folder: Path, robustness: Sequence[str] | None) -> Subject:
    leaves = run_folders(folder)
    own = read_predictions(folder / PREDICTIONS).select(split="test")
    modalities = str(own.modalities[0])
    tried = _robustness(folder, own, robustness)
    parts = tried.predictions
    known = {pair for part in parts for pair in zip(part.condition, part.modalities, strict=True)}
    if (own.condition[0], modalities) not in known:
        parts = [own, *parts]
    return Subject(
        name=name,
        folder=folder,
        leaves=tuple(leaves),
        config=(folder / CONFIG).read_text(encoding="utf-8"),
        metrics=json.loads((folder / METRICS).read_text(encoding="utf-8")),
        test=concatenate(parts),
        modalities=modalities,
        table=tuple(tried.table),
        groups=tuple(tried.groups),
        rules=tuple(tried.rules),
        notes=tuple(tried.notes),
    )


@dataclass
class _Tried:
    """What robustness tables say of a run."""

    predictions: list[Predictions] = field(default_factory=list)
    table: list[dict[str, str]] = field(default_factory=list)
    groups: list[dict[str, str]] = field(default_factory=list)
    rules: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _robustness(run: Path, own: Predictions, given: Sequence[str] | None) -> _Tried:
    """Everything that is said of a run; of each condition and subset, what the first table says."""
    tried, seen = _Tried(), set[tuple[str, str]]()
    for folder, name in _tables_of(run, given):
        found = _predictions(folder, name)
        if found is None:
            continue
        if not _is_of(own, found):
            remedy = "make robustness-table again to have it here"
            tried.notes.append(f"{folder} was made of an earlier state of {run}; {remedy}")
            continue
        pairs = list(zip(found.condition.tolist(), found.modalities.tolist(), strict=True))
        tried.predictions.append(found.take(np.array([pair not in seen for pair in pairs], np.bool_)))
        rows = [row for row in _rows(folder / TABLE) if row.get("run") == name]
        tried.table += [row for row in rows if (row.get("condition"), row.get("modalities")) not in seen]
        tried.groups += [row for row in _rows(folder / GROUPS) if row.get("run") == name]
        tried.rules += [row for row in _rows(folder / RULES) if row.get("run") == name]
        tried.notes.append(f"under conditions, from {folder}")
        seen |= set(pairs)
    tried.predictions = [part for part in tried.predictions if len(part)]
    return tried


def _tables_of(run: Path, given: Sequence[str] | None) -> Iterator[tuple[Path, str]]:
    """Folders with a robustness table that names a run, and what the table calls it."""
    beside = sorted(path.parent for path in run.parent.glob(f"*/{TABLE}"))
    for folder in beside if given is None else map(Path, given):
        config = folder / CONFIG
        if not config.is_file():
            raise ValueError(f"robustness: no table in {folder} (no {CONFIG}); make one: make robustness-table")
        runs = [Path(name) for name in (yaml.safe_load(config.read_text(encoding="utf-8")) or {}).get("runs", ())]
        short = [one.name for one in runs]
        names = short if len(set(short)) == len(short) else ["-".join(one.parts[-2:]) for one in runs]
        for one, name in zip(runs, names, strict=True):
            if one.resolve() == run.resolve():
                yield folder, name


def _predictions(folder: Path, name: str) -> Predictions | None:
    """Of one run among those of a table: in a folder of its name where there are several."""
    path = next((one for one in (folder / name / PREDICTIONS, folder / PREDICTIONS) if one.is_file()), None)
    return read_predictions(path) if path else None


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _is_of(own: Predictions, found: Predictions) -> bool:
    """Whether a table was made of the run as it is: on clean clips both say the same. A run may be of other clips."""
    clean = found.select(condition=str(own.condition[0]), modalities=str(own.modalities[0]))
    if not len(clean):
        return set(own.clip_id.tolist()) == set(found.clip_id.tolist())
    ours, theirs = _by_key(own), _by_key(clean)
    return ours.keys() == theirs.keys() and all(np.allclose(ours[key], theirs[key], atol=SAME) for key in ours)


def _by_key(one: Predictions) -> dict[tuple[str, int, int], Any]:
    keys = zip(one.clip_id.tolist(), one.fold.tolist(), one.seed.tolist(), strict=True)
    return dict(zip(keys, one.probabilities_NC, strict=True))
