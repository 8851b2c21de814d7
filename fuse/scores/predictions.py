"""Predictions: what training and robustness write, and what every score, table and figure is computed from.

Every number in every table can be recomputed from saved `predictions.csv` files alone.
Shapes: N rows (one clip under one fold, seed, condition and modality subset), C classes.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache.corpus.labels import label_difference
from cache.files.csv import write_csv

# The probabilities stand between these, a column `p_<label>` for each label of the set, in its order.
FIRST_COLUMNS = ("clip_id", "speaker", "sex", "label", "predicted")
LAST_COLUMNS = ("protocol", "fold", "seed", "split", "condition", "modalities")
PROBABILITY = "p_"
SPLITS = ("validation", "test")
# A clip may appear once under each combination of these.
KEY = ("clip_id", "fold", "seed", "condition", "modalities")
_INTEGERS = ("label", "predicted", "fold", "seed")
# Float16 rounds each probability by up to 5e-4 of its value; logits miss by far more.
_SUM_TOLERANCE = 1e-3
ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Predictions:
    """What was predicted for which clip, column by column.

    `label` and `predicted` index `label_names`, the label set of the corpus in its order; `probabilities_NC` is float64
    of shape (N, C); `split` is "validation" or "test"; `modalities` reads like "audio+video+text".

    Raises:
        ValueError: columns of different lengths, a label or split that does not exist, or rows that are
            not probabilities.
    """

    clip_id: NDArray[np.str_]
    speaker: NDArray[np.str_]
    sex: NDArray[np.str_]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities_NC: NDArray[np.float64]
    protocol: NDArray[np.str_]
    fold: NDArray[np.int64]
    seed: NDArray[np.int64]
    split: NDArray[np.str_]
    condition: NDArray[np.str_]
    modalities: NDArray[np.str_]
    label_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Convert every column to its type, and check lengths, ranges and sums."""
        for name in _columns():
            object.__setattr__(self, name, _column(name, getattr(self, name)))
        rows = len(self.clip_id)
        for name in _columns():
            length = len(getattr(self, name))
            if length != rows:
                raise ValueError(f"predictions: {name} has {length} values for {rows} clips")
        classes = len(self.label_names)
        _check_labels(self.label, "label", classes)
        _check_labels(self.predicted, "predicted", classes)
        _check_probabilities(self.probabilities_NC, classes)
        unknown = sorted(set(self.split.tolist()) - set(SPLITS))
        if unknown:
            raise ValueError(f"predictions: unknown split {unknown[0]!r}; known: {', '.join(SPLITS)}")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.clip_id)

    @classmethod
    def of(
        cls,
        clip_ids: ArrayLike,
        speakers: ArrayLike,
        sexes: ArrayLike,
        labels: ArrayLike,
        probabilities_NC: ArrayLike,
        *,
        protocol: str,
        fold: int,
        seed: int,
        split: str,
        condition: str,
        modalities: str,
        label_names: Sequence[str],
    ) -> Predictions:
        """The predictions of one evaluation: one value per clip, scalars shared by all of them.

        The predicted class is the most probable one, the first of them where several are equal.

        Args:
            clip_ids: (N,) ids; `speakers` and `sexes` alike; `labels` as indices into `label_names`.
            probabilities_NC: (N, C), each row summing to 1.
            protocol: name of the speaker split; `fold` and `seed` number the run.
            split: "validation" or "test".
            condition: what was done to the clips, such as "clean".
            modalities: what the head saw, such as "audio+video+text".
            label_names: the label set of the corpus, in its order.
        """
        probabilities = _column("probabilities_NC", probabilities_NC)
        _check_probabilities(probabilities, len(label_names))
        shared: dict[str, Any] = {"protocol": protocol, "fold": fold, "seed": seed, "split": split}
        shared |= {"condition": condition, "modalities": modalities}
        return cls(
            clip_id=np.asarray(clip_ids, dtype=np.str_),
            speaker=np.asarray(speakers, dtype=np.str_),
            sex=np.asarray(sexes, dtype=np.str_),
            label=np.asarray(labels, dtype=np.int64),
            predicted=probabilities.argmax(axis=1),
            probabilities_NC=probabilities,
            **{name: np.full(len(probabilities), value) for name, value in shared.items()},
            label_names=tuple(label_names),
        )

    def select(self, **equals: str | int) -> Predictions:
        """The rows whose columns equal the given values: `select(split="test", seed=0)`."""
        kept = np.ones(len(self), dtype=np.bool_)
        for name, value in equals.items():
            kept &= getattr(self, name) == value
        return self.take(kept)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Predictions:
        """The rows of a boolean mask (N,) or of row numbers, in their order."""
        return Predictions(**{name: getattr(self, name)[rows] for name in _columns()}, label_names=self.label_names)


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """One table from several, rows in the order given.

    Raises:
        ValueError: there are none, or they are of different labels.
    """
    if not parts:
        raise ValueError("no predictions to put together: the list of runs is empty")
    names = parts[0].label_names
    for part in parts:
        if difference := label_difference(names, part.label_names):
            raise ValueError(f"predictions of different labels cannot be put together: {difference}")
    columns = {name: [getattr(part, name) for part in parts] for name in _columns()}
    return Predictions(**{name: np.concatenate(values) for name, values in columns.items()}, label_names=names)


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write a predictions.csv that `read_predictions` reads back to the last bit.

    Raises:
        ValueError: a clip stands twice under one fold, seed, condition and modality subset.
    """
    _refuse_duplicates(predictions, str(path))
    header = (*FIRST_COLUMNS, *probability_columns(predictions.label_names), *LAST_COLUMNS)
    write_csv(path, header, _rows(predictions))


def read_predictions(path: Path) -> Predictions:
    """Read a predictions.csv; its columns `p_<label>` give the label set, others that are not known are ignored.

    Raises:
        ValueError: one line naming the file, and the line and column where there is one.
    """
    if not path.is_file():
        raise ValueError(f"no predictions {path}: its folder holds no run that is complete; train it again")
    label_names, lines, rows = _read_rows(path)
    parsers = _parsers(label_names)
    names = (*FIRST_COLUMNS, *probability_columns(label_names), *LAST_COLUMNS)
    columns = {name: _parsed(path, name, [row[name] for row in rows], lines, parsers, label_names) for name in names}
    probabilities_NC = np.stack([columns.pop(name) for name in probability_columns(label_names)], axis=1)
    try:
        predictions = Predictions(**columns, probabilities_NC=probabilities_NC, label_names=label_names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    _refuse_duplicates(predictions, str(path))
    return predictions


def probability_columns(label_names: Sequence[str]) -> tuple[str, ...]:
    """Their names in predictions.csv."""
    return tuple(f"{PROBABILITY}{label}" for label in label_names)


def _columns() -> list[str]:
    """The fields that have a value per row."""
    return [field.name for field in fields(Predictions) if field.name != "label_names"]


def _column(name: str, values: ArrayLike) -> NDArray[Any]:
    if name == "probabilities_NC":
        return np.asarray(values, dtype=np.float64)
    return np.asarray(values, dtype=np.int64 if name in _INTEGERS else np.str_)


def _check_labels(labels_N: NDArray[np.int64], name: str, classes: int) -> None:
    if labels_N.size and (labels_N.min() < 0 or labels_N.max() >= classes):
        raise ValueError(f"predictions: {name} must be an index from 0 to {classes - 1}")


def _check_probabilities(probabilities_NC: NDArray[np.float64], classes: int) -> None:
    if probabilities_NC.ndim != 2 or probabilities_NC.shape[1] != classes:
        raise ValueError(f"predictions: probabilities have shape {probabilities_NC.shape}, not (clips, {classes})")
    # Written so that NaN fails each comparison.
    in_range = (probabilities_NC >= 0) & (probabilities_NC <= 1 + _SUM_TOLERANCE)
    sums = np.abs(probabilities_NC.sum(axis=1) - 1) <= _SUM_TOLERANCE
    bad = np.flatnonzero(~(in_range.all(axis=1) & sums))
    if bad.size:
        row = ", ".join(f"{value:.4g}" for value in probabilities_NC[bad[0]])
        raise ValueError(f"predictions: row {bad[0] + 1} does not hold probabilities that sum to 1: {row}")


def _refuse_duplicates(predictions: Predictions, where: str) -> None:
    keys = zip(*(getattr(predictions, name).tolist() for name in KEY), strict=True)
    for key, times in Counter(keys).items():
        if times > 1:
            described = ", ".join(f"{name} {value}" for name, value in zip(KEY, key, strict=True))
            raise ValueError(f"{where}: {described} appears {times} times; each clip counts once")


def _rows(predictions: Predictions) -> Iterator[tuple[Any, ...]]:
    """As they are written; some at a time, for texts and floats of Python take several times what they take here."""
    for first in range(0, len(predictions), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        columns = {name: getattr(predictions, name)[part].tolist() for name in LAST_COLUMNS + FIRST_COLUMNS}
        for name in ("label", "predicted"):
            columns[name] = [predictions.label_names[index] for index in columns[name]]
        # csv writes a Python float as repr does: the shortest text that reads back as the same float64.
        probabilities = predictions.probabilities_NC[part].T.tolist()
        texts = (*map(columns.__getitem__, FIRST_COLUMNS), *probabilities, *map(columns.__getitem__, LAST_COLUMNS))
        yield from zip(*texts, strict=True)


def _read_rows(path: Path) -> tuple[tuple[str, ...], list[int], list[dict[str, str]]]:
    """The label set, line numbers, and cells by column."""
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        numbered = [(reader.line_num, row) for row in reader]
        header = reader.fieldnames or ()
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error
    label_names = tuple(name.removeprefix(PROBABILITY) for name in header if name.startswith(PROBABILITY))
    missing = [name for name in (*FIRST_COLUMNS, *LAST_COLUMNS) if name not in header]
    if missing or not label_names:
        lacked = ", ".join(missing or [f"{PROBABILITY}<label>"])
        needed = ", ".join((*FIRST_COLUMNS, f"{PROBABILITY}<label> for each label", *LAST_COLUMNS))
        raise ValueError(f"{path} has no column {lacked}; it needs {needed}")
    if len(set(label_names)) < len(label_names):
        raise ValueError(f"{path} has two columns of one name; was its header edited?")
    for line, row in numbered:
        if None in row.values() or None in row:
            raise ValueError(f"{path} line {line} has too few or too many values; was the file cut off?")
    return label_names, [line for line, _ in numbered], [row for _, row in numbered]


def _parsers(label_names: Sequence[str]) -> dict[str, Callable[[str], Any]]:
    """By column, what makes a value of its text; text where there is none."""
    number = {label: index for index, label in enumerate(label_names)}.__getitem__
    probabilities = dict.fromkeys(probability_columns(label_names), float)
    return {"label": number, "predicted": number, "fold": _integer, "seed": _integer, **probabilities}


def _integer(text: str) -> np.int64:
    return np.int64(int(text))


def _parsed(
    path: Path,
    name: str,
    texts: list[str],
    lines: list[int],
    parsers: Mapping[str, Callable[[str], Any]],
    label_names: Sequence[str],
) -> NDArray[Any]:
    """One column's values; the first text that cannot be one is named with its line."""
    if name not in parsers:
        return np.array(texts, dtype=np.str_)
    values = []
    for text, line in zip(texts, lines, strict=True):
        try:
            values.append(parsers[name](text))
        except (KeyError, ValueError, OverflowError) as error:
            known = f"known: {', '.join(label_names)}" if name in ("label", "predicted") else "it must be a number"
            raise ValueError(f"{path} line {line}: {name} is {text!r}; {known}") from error
    return np.array(values, dtype=np.int64 if name in _INTEGERS else np.float64)
