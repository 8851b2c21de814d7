"""Codes of names and tables become words: the keys `labels`, `values`, `by` and `fill` of a corpus's configuration.

They act in this order: codes of labels and of other columns are replaced by their words, then columns that follow from
another are added, then those that are put together. Codes are compared as text, and numbers without leading zeros:
YAML reads 01 as the number 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cache.corpus.clips import normal_speaker
from cache.corpus.labels import normal_label
from cache.names import did_you_mean
from configs.schema.corpora import CorpusConfig

BRACES = re.compile(r"\{(\w+)\}")
SHOWN = 12


def label_order(config: CorpusConfig) -> tuple[str, ...]:
    """The labels in the order of the configuration; () where it says nothing about labels."""
    labels = config.labels
    if isinstance(labels, Mapping):
        return tuple(dict.fromkeys(normal_label(label) for label in labels.values() if label is not None))
    return tuple(map(normal_label, labels or ()))


def in_words(row: Mapping[str, str], config: CorpusConfig, where: str) -> dict[str, str] | None:
    """A row with words for codes and its further columns; None: clips of this label are left out.

    Args:
        row: columns as the file's name or the table has them.
        config: with the codes and their words.
        where: the file or the line, for messages.

    Raises:
        ValueError: one line naming the file, and the code or column that is not known.
    """
    words = dict(row)
    if config.labels is not None and "label" in row:
        label = _label(where, row["label"], config.labels)
        if label is None:
            return None
        words["label"] = label
    for column, codes in config.values.items():
        word = _word(where, _column(where, words, column, "values"), codes, f"values.{column}")
        words[column] = "" if word is None else word
    for column, others in config.by.items():
        value = _column(where, words, column, "by")
        for other, known in others.items():
            words[other] = _word(where, value, known, f"by.{column}.{other}") or ""
    for column, text in config.fill.items():
        words[column] = BRACES.sub(lambda found: _column(where, words, found[1], "fill"), text)
    return words


def _label(where: str, code: str, labels: Mapping[str, str | None] | tuple[str, ...]) -> str | None:
    if isinstance(labels, Mapping):
        return _word(where, code, labels, "labels")
    themselves: dict[str, str | None] = {label: label for label in map(normal_label, labels)}
    return _word(where, normal_label(code), themselves, "labels")


def _word(where: str, code: str, words: Mapping[str, str | None], key: str) -> str | None:
    numbers = {normal_speaker(known): word for known, word in words.items()}
    if len(numbers) < len(words):
        raise ValueError(f'{key}: two codes are the same number; put codes in quotes, e.g. "010"')
    if normal_speaker(code) in numbers:
        return numbers[normal_speaker(code)]
    left_out = f", or leave its clips out with {code}: null" if key == "labels" else ""
    raise ValueError(
        f"{where}: {key} has no {code!r}{did_you_mean(code, words)}; it has {_shown(words)}; add it{left_out} "
        '(codes like "NO" or "010" need quotes)'
    )


def _column(where: str, row: Mapping[str, str], name: str, key: str) -> str:
    if name not in row:
        raise ValueError(f"{where}: {key} needs the column {name}{did_you_mean(name, row)}; there are {_shown(row)}")
    return row[name]


def _shown(names: Iterable[str]) -> str:
    known = list(names)
    more = f", ... ({len(known)} in all)" if len(known) > SHOWN else ""
    return ", ".join(known[:SHOWN]) + more
