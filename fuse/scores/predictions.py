"""Predictions: the joint between training and everything said about it.

Every number in every table can be recomputed from saved `predictions.csv` files alone.
Shapes: N rows (one clip under one fold, seed, condition and modality subset), C classes.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache.corpus.clips import LABELS
from cache.files.atomic import write_atomic
from cache.files.csv import csv_text

PROBABILITY_COLUMNS = tuple(f"p_{label}" for label in LABELS)
COLUMNS = (
    *("clip_id", "speaker", "sex", "label", "predicted"),
    *PROBABILITY_COLUMNS,
    *("protocol", "fold", "seed", "split", "condition", "modalities"),
)
SPLITS = ("validation", "test")
# A clip may appear once under each combination of these.
KEY = ("clip_id", "fold", "seed", "condition", "modalities")
_INTEGERS = ("label", "predicted", "fold", "seed")
# Float16 rounds each of 8 probabilities by up to 5e-4 of its value; logits miss by far more.
_SUM_TOLERANCE = 1e-3


def _integer(text: str) -> np.int64:
    return np.int64(int(text))


_PARSERS: dict[str, Callable[[str], Any]] = {
    "label": LABELS.index,
    "predicted": LABELS.index,
    "fold": _integer,
    "seed": _integer,
    **dict.fromkeys(PROBABILITY_COLUMNS, float),
}


@dataclass(frozen=True, eq=False)
class Predictions:
    """What was predicted for which clip, column by column.

    `label` and `predicted` index `cache.corpus.clips.LABELS`; `probabilities_NC` is float64 of shape (N, 8);
    `split` is "validation" or "test"; `modalities` reads like "audio+video+text".

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

    def __post_init__(self) -> None:
        """Bring every column to its type and check what the types cannot say."""
        for field in fields(self):
            object.__setattr__(self, field.name, _column(field.name, getattr(self, field.name)))
        rows = len(self.clip_id)
        for field in fields(self):
            length = len(getattr(self, field.name))
            if length != rows:
                raise ValueError(f"predictions: {field.name} has {length} values for {rows} clips")
        _check_labels(self.label, "label")
        _check_labels(self.predicted, "predicted")
        _check_probabilities(self.probabilities_NC)
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
    ) -> Predictions:
        """The predictions of one evaluation: one value per clip, scalars shared by all of them.

        The predicted class is the most probable one, the first of them where several are equal.

        Args:
            clip_ids: (N,) ids; `speakers` and `sexes` alike; `labels` as indices into `LABELS`.
            probabilities_NC: (N, 8), each row summing to 1.
            protocol: name of the speaker split; `fold` and `seed` number the run.
            split: "validation" or "test".
            condition: what was done to the clips, such as "clean".
            modalities: what the head saw, such as "audio+video+text".
        """
        probabilities = _column("probabilities_NC", probabilities_NC)
        _check_probabilities(probabilities)
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
        )

    def select(self, **equals: str | int) -> Predictions:
        """The rows whose columns equal the given values: `select(split="test", seed=0)`."""
        kept = np.ones(len(self), dtype=np.bool_)
        for name, value in equals.items():
            kept &= getattr(self, name) == value
        return self.take(kept)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Predictions:
        """The rows of a boolean mask (N,) or of row numbers, in their order."""
        return Predictions(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """One table from several, rows in the order given."""
    if not parts:
        raise ValueError("no predictions to put together: the list of runs is empty")
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Predictions)}
    return Predictions(**{name: np.concatenate(values) for name, values in columns.items()})


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write a predictions.csv that `read_predictions` reads back to the last bit.

    Raises:
        ValueError: a clip stands twice under one fold, seed, condition and modality subset.
    """
    _refuse_duplicates(predictions, str(path))
    write_atomic(path, csv_text(COLUMNS, zip(*_text_columns(predictions), strict=True)))


def read_predictions(path: Path) -> Predictions:
    """Read a predictions.csv; columns that are not known are ignored.

    Raises:
        ValueError: one line naming the file, and the line and column where there is one.
    """
    if not path.is_file():
        raise ValueError(f"no predictions {path}; train a run: make train-fusion SET=output_dir={path.parent}")
    lines, rows = _read_rows(path)
    columns = {name: _parsed(path, name, [row[name] for row in rows], lines) for name in COLUMNS}
    probabilities_NC = np.stack([columns.pop(name) for name in PROBABILITY_COLUMNS], axis=1)
    try:
        predictions = Predictions(**columns, probabilities_NC=probabilities_NC)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    _refuse_duplicates(predictions, str(path))
    return predictions


def _column(name: str, values: ArrayLike) -> NDArray[Any]:
    if name == "probabilities_NC":
        return np.asarray(values, dtype=np.float64)
    return np.asarray(values, dtype=np.int64 if name in _INTEGERS else np.str_)


def _check_labels(labels_N: NDArray[np.int64], name: str) -> None:
    if labels_N.size and (labels_N.min() < 0 or labels_N.max() >= len(LABELS)):
        raise ValueError(f"predictions: {name} must be an index from 0 to {len(LABELS) - 1}")


def _check_probabilities(probabilities_NC: NDArray[np.float64]) -> None:
    if probabilities_NC.ndim != 2 or probabilities_NC.shape[1] != len(LABELS):
        shape = probabilities_NC.shape
        raise ValueError(f"predictions: probabilities have shape {shape}, not (clips, {len(LABELS)})")
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


def _text_columns(predictions: Predictions) -> list[list[Any]]:
    columns: list[list[Any]] = []
    for name in COLUMNS:
        if name in PROBABILITY_COLUMNS:
            # csv writes a Python float as repr does: the shortest text that reads back as the same float64.
            columns.append(predictions.probabilities_NC[:, PROBABILITY_COLUMNS.index(name)].tolist())
        elif name in ("label", "predicted"):
            columns.append([LABELS[index] for index in getattr(predictions, name).tolist()])
        else:
            columns.append(getattr(predictions, name).tolist())
    return columns


def _read_rows(path: Path) -> tuple[list[int], list[dict[str, str]]]:
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        numbered = [(reader.line_num, row) for row in reader]
        header = reader.fieldnames or ()
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    for line, row in numbered:
        if None in row.values() or None in row:
            raise ValueError(f"{path} line {line} has too few or too many values; was the file cut off?")
    return [line for line, _ in numbered], [row for _, row in numbered]


def _parsed(path: Path, name: str, texts: list[str], lines: list[int]) -> NDArray[Any]:
    """One column's values; the first text that cannot be one is named with its line."""
    if name not in _PARSERS:
        return np.array(texts, dtype=np.str_)
    values = []
    for text, line in zip(texts, lines, strict=True):
        try:
            values.append(_PARSERS[name](text))
        except (ValueError, OverflowError) as error:
            known = f"known: {', '.join(LABELS)}" if name in ("label", "predicted") else "it must be a number"
            raise ValueError(f"{path} line {line}: {name} is {text!r}; {known}") from error
    return np.array(values, dtype=np.float64 if name in PROBABILITY_COLUMNS else np.int64)
