"""The clips of a folder as `make corpus` writes them, and what was left out."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import PurePosixPath

from cache.corpus.clips import REQUIRED, UNKNOWN_SPEAKER, Clip, normal_speaker
from cache.corpus.labels import normal_label, unprintable
from cache.corpus.ravdess import LABELS
from cache.names import by_number

COLUMNS = tuple(column.name for column in fields(Clip))


@dataclass(frozen=True)
class Listing:
    """The clips of a corpus, in the order in which they are written.

    Attributes:
        skipped: how many files were left out, by reason.
        labels: in their order, for `labels.txt`; (): the layout says none.
        further: of each clip, columns that are no field of `Clip`; the same ones for all clips.
        notes: lines to print.
    """

    clips: tuple[Clip, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    further: tuple[Mapping[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def label_order(self) -> tuple[str, ...]:
        """The labels that appear: in their own order, else RAVDESS's first and the others by code point."""
        used = {clip.label for clip in self.clips}
        known = self.labels or LABELS
        return (*(label for label in known if label in used), *sorted(used - set(known)))

    @property
    def speakers(self) -> tuple[str, ...]:
        """The speakers, numbers first."""
        return by_number({clip.speaker for clip in self.clips})

    def summary(self) -> str:
        """One line: clips, speakers, clips per label, what was skipped."""
        labels = Counter(clip.label for clip in self.clips)
        counts = ", ".join(f"{label} {labels[label]}" for label in self.label_order)
        return f"{len(self.clips)} clips of {len(self.speakers)} speakers: {counts}{skips(self.skipped)}"


def skips(skipped: Mapping[str, int]) -> str:
    """What was left out, to add to a line; "" where nothing was."""
    return "; skipped " + ", ".join(f"{n} {reason}" for reason, n in skipped.items()) if skipped else ""


def listed(rows: Sequence[dict[str, str]], labels: Sequence[str] = (), notes: Sequence[str] = ()) -> Listing:
    """Rows of columns (clip_id, path, label, speaker and others) as a listing, ordered by clip id.

    Raises:
        ValueError: one line: an empty column that is needed, two clips of one id, a single label.
    """
    told = list(notes)
    if any(not row.get("speaker") for row in rows):
        rows = [{**row, "speaker": row.get("speaker") or UNKNOWN_SPEAKER} for row in rows]
        told.append(
            f"no speaker is known of some clips or of all: they are written as speaker {UNKNOWN_SPEAKER!r}, and no "
            "score says what holds for new speakers; give them if you can (docs/corpora.md)"
        )
    plain = sorted(map(_plain, rows), key=lambda row: row["clip_id"])
    _refuse_same_ids(plain)
    used = {row["label"] for row in plain}
    if len(used) < 2:
        raise ValueError(f"all {len(plain)} clips have the label {next(iter(used))!r}; there is nothing to tell apart")
    clips = tuple(Clip(**{name: row.get(name, "") for name in COLUMNS}) for row in plain)
    names = dict.fromkeys(name for row in plain for name in row if name not in COLUMNS)
    further = tuple({name: row.get(name, "") for name in names} for row in plain)
    return Listing(clips, {}, tuple(labels), further, tuple(told))


def path_id(path: PurePosixPath) -> str:
    """A clip id from a whole path: its folders and its name without the suffix."""
    return "-".join((*path.parent.parts, path.stem))


def _plain(row: dict[str, str]) -> dict[str, str]:
    """A row as `read_corpus` will read it; the path keeps its characters, for they name a file."""
    empty = [name for name in REQUIRED if not row.get(name, "").strip()]
    if empty:
        raise ValueError(f"{row.get('path', 'a clip')}: {', '.join(empty)} is empty")
    label = normal_label(row["label"])
    if strange := unprintable(label):
        raise ValueError(f"{row['path']}: label {label!r} holds the character {strange}; take it out")
    clip_id = unicodedata.normalize("NFC", row["clip_id"])
    return {**row, "clip_id": clip_id, "label": label, "speaker": normal_speaker(row["speaker"].strip())}


def _refuse_same_ids(rows: Sequence[Mapping[str, str]]) -> None:
    by_id: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        by_id[row["clip_id"]].append(row["path"])
    same = {clip_id: paths for clip_id, paths in by_id.items() if len(paths) > 1}
    if same:
        clip_id, (one, other, *_) = next(iter(same.items()))
        way_out = _way_out(PurePosixPath(one), PurePosixPath(other))
        raise ValueError(f"{one} and {other} would both be clip {clip_id!r} ({len(same)} such ids); {way_out}")


def _way_out(one: PurePosixPath, other: PurePosixPath) -> str:
    if one == other:
        return "each clip may be listed once"
    if one.with_suffix("") == other.with_suffix(""):
        return "keep one of them, or choose with kind=video or kind=audio"
    if path_id(one) == path_id(other):
        return "rename one of them"
    return "SET=ids=path calls clips by their whole path"
