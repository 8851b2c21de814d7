"""`make corpus`: metadata.csv for a folder of RAVDESS clips that is already there."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cache.corpus.clips import Clip, write_metadata
from cache.corpus.ravdess import LABELS, RavdessName, parse_ravdess_name
from configs.schema.corpora import CorpusConfig

# A clip with a picture or only a sound, told by the container: people extract 01-...wav from 01-...mp4.
KINDS = {".mp4": "video", ".wav": "audio", ".flac": "audio"}


@dataclass(frozen=True)
class Found:
    """A media file and what its name says; `path` is relative to the corpus root."""

    path: PurePosixPath
    name: RavdessName
    kind: str


@dataclass(frozen=True)
class Listing:
    """The clips of a folder, ordered by clip id, and how many files were left out for which reason."""

    clips: tuple[Clip, ...]
    skipped: dict[str, int]

    def summary(self) -> str:
        """One line: clips, speakers, clips per label, what was skipped."""
        labels = Counter(clip.label for clip in self.clips)
        counts = ", ".join(f"{label} {labels[label]}" for label in LABELS if labels[label])
        speakers = len({clip.speaker for clip in self.clips})
        return f"{len(self.clips)} clips of {speakers} speakers: {counts}{_skips(self.skipped)}"


def list_clips(folder: Path, root: Path, channels: Collection[str] = ("speech",), kind: str | None = None) -> Listing:
    """Find the RAVDESS clips below a folder.

    Args:
        folder: searched with all its subfolders; hidden files and folders do not count.
        root: the corpus root, which holds `folder`; paths are relative to it.
        channels: `speech`, `song`.
        kind: `video` or `audio`: see only those files; None: see all.

    Raises:
        ValueError: one line: no such folder, nothing in it, a name that is not RAVDESS's, the same
            utterance twice, a link that leaves the root.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder" if folder.exists() else f"no folder {folder}")
    media = [path for path in _media(folder, root) if kind in (None, KINDS[path.suffix.lower()])]
    if not media:
        suffixes = [suffix for suffix, value in KINDS.items() if kind in (None, value)]
        raise ValueError(f"{folder} holds no clips: no {' or '.join(suffixes)} file in it or below")
    found = _parse(media, root)
    kept, skipped = _choose(found, channels)
    if not kept:
        raise ValueError(f"{folder} holds none of the chosen clips{_skips(skipped)}{_song_hint(found, channels)}")
    _refuse_repeats(folder, kept)
    clips = (Clip(path=str(item.path), **item.name.metadata) for item in kept)
    return Listing(tuple(sorted(clips, key=lambda clip: clip.clip_id)), skipped)


def run(config: CorpusConfig) -> int:
    """Write the metadata and say what is in it."""
    root = Path(config.root)
    out = root / "metadata.csv" if config.out is None else Path(config.out)
    if out.is_dir():
        raise ValueError(f"out={out} is a folder; name the CSV file, e.g. out={out / 'metadata.csv'}")
    listing = list_clips(root, root, config.channels, config.kind)
    write_metadata(listing.clips, out)
    print(listing.summary())
    print(f"wrote {out}")
    if out.parent.resolve() != root.resolve():
        print(f"the clips are not beside it: give the later stages corpus={out} corpus_root={root}")
    return 0


def _media(folder: Path, root: Path) -> Iterator[Path]:
    """Media files below the folder. macOS leaves `._name` files and `__MACOSX` folders in zips."""
    real_root = root.resolve()
    for parent, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if _counts(name))
        for name in folders:
            _refuse_escape(Path(parent, name), real_root)
        for name in sorted(filter(_counts, files)):
            path = Path(parent, name)
            if path.suffix.lower() in KINDS:
                _refuse_escape(path, real_root)
                yield path


def _unreadable(error: OSError) -> None:
    raise error  # os.walk would pass over a folder that cannot be read, and the corpus would be short


def _counts(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _refuse_escape(path: Path, real_root: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(real_root):
        raise ValueError(
            f"{path} is a link out of the corpus root; copy what it points to, or give that folder as root"
        )


def _parse(media: Iterable[Path], root: Path) -> list[Found]:
    found, errors = [], []
    for path in media:
        try:
            name = parse_ravdess_name(path)
        except ValueError as error:
            errors.append(str(error))
            continue
        found.append(Found(PurePosixPath(path.relative_to(root)), name, KINDS[path.suffix.lower()]))
    if errors:
        more = f" (the first of {len(errors)} such files)" if len(errors) > 1 else ""
        raise ValueError(f"{errors[0]}{more}; rename or move it out of the folder")
    return found


def _choose(found: Iterable[Found], channels: Collection[str]) -> tuple[list[Found], dict[str, int]]:
    """What the corpus lists, and counts of the rest: video-only files repeat the audio-video ones."""
    kept: list[Found] = []
    skipped: Counter[str] = Counter()
    for item in found:
        if item.name.modality == "video-only":
            skipped["video-only"] += 1
        elif item.name.channel not in channels:
            skipped[item.name.channel] += 1
        else:
            kept.append(item)
    return kept, dict(skipped)


def _skips(skipped: dict[str, int]) -> str:
    return "; skipped " + ", ".join(f"{n} {reason}" for reason, n in skipped.items()) if skipped else ""


def _song_hint(found: Iterable[Found], channels: Collection[str]) -> str:
    others = sorted({item.name.channel for item in found} - set(channels))
    return f"; to list them: channels=[{','.join(others)}]" if others else ""


def _refuse_repeats(folder: Path, kept: Iterable[Found]) -> None:
    utterances: defaultdict[str, list[Found]] = defaultdict(list)
    for item in kept:
        utterances[item.name.utterance].append(item)
    repeats = [items for items in utterances.values() if len(items) > 1]
    if repeats:
        both = [items for items in repeats if len({item.kind for item in items}) > 1]
        raise ValueError(_both_kinds(folder, both) if both else _same_twice(folder, repeats))


def _both_kinds(folder: Path, repeats: Sequence[Sequence[Found]]) -> str:
    of_kind = {item.kind: item.path for item in repeats[0]}
    count = f"{len(repeats)} utterance{'s' if len(repeats) > 1 else ''}"
    example = f"{of_kind['video']} and {of_kind['audio']}"
    return (
        f"{folder} holds both kinds of {count} (the same sound), e.g. {example};"
        " keep one: kind=video (sound and picture) or kind=audio (sound only)"
    )


def _same_twice(folder: Path, repeats: Sequence[Sequence[Found]]) -> str:
    first, second = repeats[0][:2]
    what = f"clip {first.name.stem}" if first.name == second.name else "one utterance"
    return (
        f"{folder} holds {what} twice: {first.path} and {second.path}"
        f" ({len(repeats)} such cases); keep one of them in the folder"
    )
