"""The label set of a corpus: which classes there are, and in which order. Labels of clips index it.

- Where a list stands beside metadata.csv, it is the label set, in its order: `labels.txt`, one label per line in UTF-8
  (comments are not known), or `labels.yaml` with a list under `labels`. A label that is not in it is refused.
- Else, where every clip id is a RAVDESS name: RAVDESS's eight, in their order, whichever of them appear.
- Else the labels that appear: those of RAVDESS's eight first, in their order, then the others sorted by Unicode code
  point, so that the order of the clips does not matter. A label that is no other than one of the eight misspelt is
  refused where the corpus uses that one too.

A label is any text of one line, in any language; it is compared in Unicode's form NFC, without spaces around it.
Spellings that differ in capitals and spaces alone are one label, and that is said: as the list or RAVDESS spell it,
else as RAVDESS does if that spelling appears, else the commonest one. Where a list names several, each is a label.

A mapping gives labels other names (`anger: angry`), or leaves the clips of some out (`boredom: null`). It is applied to
the labels as found above; what results stands in the order of the list, or as where there is none.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from cache.corpus.ravdess import LABELS, is_ravdess_id
from cache.corpus.sheet import place_in
from cache.names import did_you_mean

TEXT_LIST, YAML_LIST = "labels.txt", "labels.yaml"
FEWEST, MOST = 2, 1000
# Share of letters in common: "hapy" and "surprise" are misspelt, "unhappy" is another word.
NEAR = 0.85
SHOWN = 12


@dataclass(frozen=True)
class LabelSet:
    """The labels of a corpus in their order.

    Attributes:
        meant: which of them each label of the metadata means; None: its clips are left out.
        notes: spellings that were taken for one, and what was left out, in lines to print.
    """

    labels: tuple[str, ...]
    meant: Mapping[str, str | None]
    notes: tuple[str, ...]


def label_set(
    metadata: Path, clip_ids: Collection[str], label_at: Mapping[int, str], mapping: Mapping[str, str | None]
) -> LabelSet:
    """The label set of a corpus, as the module says.

    Args:
        metadata: the table of the corpus, beside which a list may stand.
        clip_ids: of all clips.
        label_at: by line of the metadata, the label of the clip there, as `normal_label` gives it.
        mapping: other names for labels; None leaves their clips out.

    Raises:
        ValueError: one line: a list that is none, a label that is unknown or misspelt, with its line, or a mapping
            that names a label that there is not.
    """
    listed = listed_labels(metadata.parent)
    known, why = listed[1] if listed else None, f"as listed in {listed[0].name}" if listed else ""
    if known is None and all(map(is_ravdess_id, clip_ids)):
        known, why = LABELS, f"the clips are RAVDESS's; list others in {TEXT_LIST} beside it"
    counts = Counter(label_at.values())
    spelt = _spellings(counts, known)
    if known is not None:
        _refuse_unknown(metadata, {line: spelt[label] for line, label in label_at.items()}, known, why)
    renamed = _renamed(metadata, mapping, known or tuple(dict.fromkeys(spelt.values())))
    meant = {label: renamed.get(one, one) for label, one in spelt.items()}
    if known is None:
        _refuse_misspelt(metadata, {line: one for line, label in label_at.items() if (one := meant[label])})
    labels = _ordered(meant.values()) if known is None else [renamed.get(one, one) for one in known]
    kept = tuple(dict.fromkeys(label for label in labels if label is not None))
    if mapping and len(kept) < FEWEST:
        raise ValueError(f"labels: the mapping leaves {metadata} {len(kept)} labels; at least {FEWEST} are needed")
    if len(kept) > MOST:
        raise ValueError(f"{metadata} has {len(kept)} different labels; at most {MOST} can be told apart")
    return LabelSet(kept, meant, (*_respelt(spelt, counts), *_left_out(meant, counts)))


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
            raise ValueError(
                f"{place_in(metadata, line)}: unknown label {label!r}{hint}; known: {_shown(known)} ({why})"
            )


def _refuse_misspelt(metadata: Path, label_at: Mapping[int, str]) -> None:
    """A label beside one of RAVDESS's eight that it is much like: only of these words are the right spellings known."""
    used = [label for label in LABELS if label in frozenset(label_at.values())]
    for line, label in label_at.items():
        meant = next((one for one in used if label not in LABELS and _near(label, one)), None)
        if meant:
            raise ValueError(
                f"{place_in(metadata, line)}: label {label!r} beside {meant!r} (did you mean {meant}?); "
                f"if both are meant, list all labels in {TEXT_LIST} beside it, one per line"
            )


def _spellings(counts: Mapping[str, int], known: Sequence[str] | None) -> dict[str, str]:
    """Of each label its one spelling; itself where none is known or several are."""
    alike: dict[str, list[str]] = {}
    for label in counts if known is None else known:
        alike.setdefault(_folded(label), []).append(label)
    if known is None:
        chosen = {key: min(same, key=lambda one: (one not in LABELS, -counts[one], one)) for key, same in alike.items()}
        return {label: chosen[_folded(label)] for label in counts}
    members = frozenset(known)
    meant = {label: alike.get(_folded(label), []) for label in counts if label not in members}
    return {label: meant[label][0] if len(meant.get(label, ())) == 1 else label for label in counts}


def _folded(label: str) -> str:
    """What is left of a label without capitals and needless spaces."""
    return unicodedata.normalize("NFC", " ".join(label.casefold().split()))


def _renamed(metadata: Path, mapping: Mapping[str, str | None], labels: Sequence[str]) -> dict[str, str | None]:
    """The mapping, by the spelling of the corpus."""
    by_fold = {_folded(label): label for label in labels}
    renamed: dict[str, str | None] = {}
    for name, new in mapping.items():
        label = name if name in labels else by_fold.get(_folded(normal_label(name)))
        if label is None:
            hint = did_you_mean(name, labels)
            raise ValueError(f"labels: {metadata} has no label {name!r}{hint}; it has: {_shown(labels)}")
        if label in renamed:
            raise ValueError(f"labels names {label} twice")
        renamed[label] = None if new is None else _new_name(name, new)
    return renamed


def _new_name(name: str, new: str) -> str:
    label = normal_label(new)
    if not label or (strange := unprintable(label)):
        why = f"holds the character {strange}" if label else "is empty"
        raise ValueError(f"labels.{name}: the new name {new!r} {why}; give text, or null to leave these clips out")
    return label


def _ordered(labels: Collection[str | None]) -> list[str]:
    """RAVDESS's words in their order, then the others by code point."""
    used = {label for label in labels if label is not None}
    return [*(label for label in LABELS if label in used), *sorted(used - set(LABELS))]


def _respelt(spelt: Mapping[str, str], counts: Mapping[str, int]) -> list[str]:
    others = [label for label, one in spelt.items() if label != one]
    if not others:
        return []
    said = ", ".join(f"{label!r} as {spelt[label]!r} ({counts[label]} clips)" for label in sorted(others)[:SHOWN])
    return [f"labels that differ in capitals or spaces alone are one: {said}"]


def _left_out(meant: Mapping[str, str | None], counts: Mapping[str, int]) -> list[str]:
    gone = sorted(label for label, one in meant.items() if one is None)
    if not gone:
        return []
    total = sum(counts[label] for label in gone)
    return [f"{total} clips left out, whose label is null in labels: {_shown(gone)}"]


def _near(label: str, word: str) -> bool:
    return difflib.SequenceMatcher(None, label.casefold(), word).ratio() >= NEAR


def _shown(labels: Sequence[str]) -> str:
    more = f", ... ({len(labels)} in all)" if len(labels) > SHOWN else ""
    return ", ".join(labels[:SHOWN]) + more
