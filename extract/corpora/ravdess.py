"""RAVDESS by the names of its files: which clips a folder holds, and what is left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cache.corpus.clips import Clip
from cache.corpus.ravdess import RavdessName, parse_ravdess_name
from extract.corpora.files import KINDS, media_files, refuse_no_folder
from extract.corpora.listing import Listing, skips

# As RAVDESS is published, and compressed without loss.
SUFFIXES = {suffix: KINDS[suffix] for suffix in (".mp4", ".wav", ".flac")}


@dataclass(frozen=True)
class Found:
    """A media file and what its name says; `path` is relative to the corpus root."""

    path: PurePosixPath
    name: RavdessName
    kind: str


def list_clips(
    folder: Path,
    root: Path,
    channels: Collection[str] = ("speech",),
    kind: str | None = None,
    follow_links: bool = False,
) -> Listing:
    """Find the RAVDESS clips below a folder.

    Args:
        folder: searched with all its subfolders; hidden files and folders do not count.
        root: the corpus root, which holds `folder`; paths are relative to it.
        channels: `speech`, `song`.
        kind: `video` or `audio`: see only those files; None: see all.
        follow_links: see what links lead to, also out of the root.

    Raises:
        ValueError: one line: no such folder, nothing in it, a name that is not RAVDESS's, the same
            utterance twice, a link that leaves the root.
    """
    refuse_no_folder(folder)
    suffixes = [suffix for suffix, value in SUFFIXES.items() if kind in (None, value)]
    media = list(media_files(folder, root, suffixes, follow_links))
    if not media:
        raise ValueError(f"{folder} holds no clips: no {' or '.join(suffixes)} file in it or below")
    found = _parse(media, root)
    kept, skipped = _choose(found, channels)
    if not kept:
        raise ValueError(f"{folder} holds none of the chosen clips{skips(skipped)}{_song_hint(found, channels)}")
    _refuse_repeats(folder, kept)
    clips = (Clip(path=str(item.path), **item.name.metadata) for item in kept)
    return Listing(tuple(sorted(clips, key=lambda clip: clip.clip_id)), skipped)


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
