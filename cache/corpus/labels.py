"""The label set of a corpus: which classes there are, and in which order. Labels of clips index it.

- Where a list stands beside metadata.csv, it is the label set, in its order: `labels.txt`, one label per line in UTF-8
  (comments are not known), or `labels.yaml` with a list under `labels`. A label that is not in it is refused.
- Else, where every clip id is a RAVDESS name: RAVDESS's eight, in their order, whichever of them appear.
- Else the labels that appear: those of RAVDESS's eight first, in their order, then the others sorted by Unicode code
  point, so that the order of the clips does not matter. A label that is no other than one of the eight misspelt is
  refused where the corpus uses that one too.

A label is any text of one line, in any language; it is compared in Unicode's form NFC, without spaces around it.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import yaml

from cache.corpus.ravdess import LABELS, is_ravdess_id
from cache.names import did_you_mean

TEXT_LIST, YAML_LIST = "labels.txt", "labels.yaml"
FEWEST, MOST = 2, 1000
# Share of letters in common: "hapy" and "surprise" are misspelt, "unhappy" is another word.
NEAR = 0.85
SHOWN = 12


def label_set(metadata: Path, clip_ids: Collection[str], label_at: Mapping[int, str]) -> tuple[str, ...]:
    """The label set of a corpus, as the module says.

    Args:
        metadata: the CSV file of the corpus, beside which a list may stand.
        clip_ids: of all clips.
        label_at: by line of the metadata, the label of the clip there, as `normal_label` gives it.

    Raises:
        ValueError: one line: a list that is none, or a label that is unknown or misspelt, with its line.
    """
    listed = listed_labels(metadata.parent)
    if listed is not None:
        file, labels = listed
        _refuse_unknown(metadata, label_at, labels, f"as listed in {file.name}")
        return labels
    if all(map(is_ravdess_id, clip_ids)):
        _refuse_unknown(metadata, label_at, LABELS, f"the clips are RAVDESS's; list others in {TEXT_LIST} beside it")
        return LABELS
    used = frozenset(label_at.values())
    _refuse_misspelt(metadata, label_at, [label for label in LABELS if label in used])
    if len(used) > MOST:
        raise ValueError(f"{metadata} has {len(used)} different labels; at most {MOST} can be told apart")
    return (*(label for label in LABELS if label in used), *sorted(used - frozenset(LABELS)))


def normal_label(text: str) -> str:
    """A label as it is compared and kept: one word may be written in several ways in Unicode."""
    return unicodedata.normalize("NFC", text).strip()


def label_difference(known: Sequence[str], found: Sequence[str]) -> str:
    """What a label set has otherwise than the known one: missing, new, or the order; "" if they are the same."""
    missing = [label for label in known if label not in found]
    new = [label for label in found if label not in known]
    if missing or new:
        words = {"missing": missing, "new": new}
        return "; ".join(f"{word}: {_shown(labels)}" for word, labels in words.items() if labels)
    places = [place for place, pair in enumerate(zip(known, found, strict=True), start=1) if pair[0] != pair[1]]
    if places:
        first = places[0]
        return f"the order: label {first} is {known[first - 1]} in one and {found[first - 1]} in the other"
    return ""


def unprintable(label: str) -> str | None:
    """The first character of a label that would break a line or a column, named; None: there is none."""
    for letter in label:
        if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp"):
            return f"U+{ord(letter):04X}"
    return None


def listed_labels(folder: Path) -> tuple[Path, tuple[str, ...]] | None:
    """The list of labels in a folder, and the file it is from; None: there is none.

    Raises:
        ValueError: one line: two lists, or one that is no list of 2 to 1000 different labels.
    """
    files = [file for file in (folder / TEXT_LIST, folder / YAML_LIST) if file.is_file()]
    if not files:
        return None
    if len(files) > 1:
        raise ValueError(f"{folder} has both {TEXT_LIST} and {YAML_LIST}; keep one of them")
    file = files[0]
    labels = tuple(map(normal_label, _lines(file) if file.name == TEXT_LIST else _yaml_list(file)))
    _check(file, labels)
    return file, labels


def _lines(file: Path) -> list[str]:
    # Not splitlines: it also splits where a label holds a character that has no place in one.
    return [line.removesuffix("\r") for line in _text(file).removesuffix("\n").split("\n")]


def _yaml_list(file: Path) -> list[str]:
    try:
        tree = yaml.safe_load(_text(file))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    labels = tree.get("labels") if isinstance(tree, dict) and tree.keys() == {"labels"} else None
    if not isinstance(labels, list):
        raise ValueError(f"{file} must hold one key, labels, and under it the list of labels")
    for label in labels:
        if not isinstance(label, str):
            raise ValueError(f"{file}: {label!r} is not text; put it in quotes")
    return labels


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8: {error}") from error


def _check(file: Path, labels: Sequence[str]) -> None:
    for number, label in enumerate(labels, start=1):
        if not label:
            raise ValueError(f"{file}: label {number} is empty; give each label a line, and no line to anything else")
        if strange := unprintable(label):
            raise ValueError(f"{file}: label {number}, {label!r}, holds the character {strange}; take it out")
        if label in labels[: number - 1]:
            raise ValueError(f"{file}: label {label!r} stands twice; name each once")
    if not FEWEST <= len(labels) <= MOST:
        raise ValueError(f"{file} lists {len(labels)} labels; give it {FEWEST} to {MOST}")


def _refuse_unknown(metadata: Path, label_at: Mapping[int, str], known: Sequence[str], why: str) -> None:
    members = frozenset(known)
    for line, label in label_at.items():
        if label not in members:
            hint = did_you_mean(label, known)
            raise ValueError(f"{metadata} line {line}: unknown label {label!r}{hint}; known: {_shown(known)} ({why})")


def _refuse_misspelt(metadata: Path, label_at: Mapping[int, str], used: Sequence[str]) -> None:
    """`used`: those of RAVDESS's eight that appear. Only of these words are the right spellings known."""
    for line, label in label_at.items():
        meant = next((one for one in used if label not in LABELS and _near(label, one)), None)
        if meant:
            raise ValueError(
                f"{metadata} line {line}: label {label!r} beside {meant!r} (did you mean {meant}?); "
                f"if both are meant, list all labels in {TEXT_LIST} beside it, one per line"
            )


def _near(label: str, word: str) -> bool:
    return difflib.SequenceMatcher(None, label.casefold(), word).ratio() >= NEAR


def _shown(labels: Sequence[str]) -> str:
    more = f", ... ({len(labels)} in all)" if len(labels) > SHOWN else ""
    return ", ".join(labels[:SHOWN]) + more
