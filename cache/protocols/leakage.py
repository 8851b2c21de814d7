"""What a fold would be tested on that it was trained on: looked for in the clips themselves, before training.

A protocol promises that its parts are apart; this asks the corpus whether they are: by speaker, by the bytes of
the media files, and by utterance where names tell it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from cache.conditions import CLEAN
from cache.corpus.clips import Clip, normal_speaker
from cache.corpus.ravdess import RavdessName, parse_ravdess_name
from cache.corpus.stretch import part_hash
from cache.features.store import open_store
from cache.protocols.folds import LEAKS_SPEAKERS, PARTS, Fold, in_several_parts


@dataclass(frozen=True)
class _Finding:
    """One line about a fold or its corpus; a fatal one makes its scores worthless."""

    text: str
    fatal: bool


@dataclass(frozen=True)
class _Repeated:
    """Clips of a corpus that should count once, and how many could not be asked."""

    clips: Sequence[Clip]
    copies: Sequence[Sequence[Clip]]
    utterances: Sequence[Sequence[Clip]]
    unhashed: int

    @classmethod
    def of(cls, clips: Sequence[Clip], hashes: Mapping[str, str]) -> _Repeated:
        """Look once for all folds."""
        known = {
            clip.clip_id: (part_hash(clip.sha256, clip.stretch) or hashes.get(clip.clip_id, "")).lower()
            for clip in clips
        }
        said = {clip.clip_id: name.utterance for clip in clips if (name := _ravdess_name(clip))}
        unhashed = sum(not value for value in known.values())
        return cls(clips, _alike(clips, known), _alike(clips, said), unhashed)


def refuse_leaks(folds: Iterable[Fold], clips: Sequence[Clip], hashes: Mapping[str, str] | None = None) -> list[str]:
    """Look at every fold; returns what is worth printing, each line once.

    Args:
        folds: one that leaks speakers on purpose has no fatal finding, but says what it leaks.
        clips: the clips that are trained, validated and tested on; also those that have no part.
        hashes: SHA-256 of media files by clip id, where the clips do not say it themselves; see `recorded_hashes`.

    Raises:
        ValueError: one line: the first fatal finding, and how many others there are.
    """
    repeated = _Repeated.of(clips, hashes or {})
    found = dict.fromkeys(finding for fold in folds for finding in _findings(fold, repeated))
    fatal = [finding.text for finding in found if finding.fatal]
    if fatal:
        raise ValueError(fatal[0] + (f" (and {len(fatal) - 1} findings like it)" if len(fatal) > 1 else ""))
    return [finding.text for finding in found]


def refuse_tuned_on(folds: Iterable[Fold], tuned_on: Mapping[str, Sequence[str]]) -> None:
    """Refuse to test on speakers that an encoder was fine-tuned on: it has heard them, with their labels.

    Args:
        folds: every fold that is tested.
        tuned_on: by modality, the speakers that its encoder knows.

    Raises:
        ValueError: one line with the fold, the speakers and the way out.
    """
    for fold in folds:
        for modality, speakers in tuned_on.items():
            if heard := [speaker for speaker in fold.test if speaker in speakers]:
                raise ValueError(
                    f"fold {fold.number} would test on speakers that the {modality} encoder was fine-tuned on "
                    f"({', '.join(heard)}); name a protocol that tests on others, or features of another encoder"
                )


def recorded_hashes(features_dir: Path, clips: Iterable[Clip]) -> dict[str, str]:
    """SHA-256 of media files by clip id, as stage one found them when it decoded the clips.

    Imported features know of no media file; clips of which nothing is recorded are not among the keys.

    Raises:
        ValueError: there is no store, or it is damaged.
    """
    store = open_store(features_dir / f"{CLEAN}.zarr")
    wanted = {clip.clip_id for clip in clips}
    known: dict[str, str] = {}
    for array in store.arrays():
        if wanted <= known.keys():
            break
        rows = zip(store.clip_ids, store.column(array, "source"), strict=True)
        known.update({clip_id: value for clip_id, value in rows if value and clip_id in wanted})
    return known


def _findings(fold: Fold, repeated: _Repeated) -> Iterator[_Finding]:
    clips = repeated.clips
    place = {clip_id: part for part in PARTS for clip_id in fold.clip_ids(part, clips)}
    yield from _speakers(fold, clips, place)
    yield from _repeats(fold, repeated.copies, place, "are the same file", "leave all but one out")
    kinds = "are one utterance in several kinds"
    yield from _repeats(fold, repeated.utterances, place, kinds, "list one kind only")
    if repeated.unhashed:
        yield _Finding(
            f"not checked: {repeated.unhashed} of {len(clips)} clips have no recorded SHA-256 (column sha256 of "
            "metadata.csv), so that copies of a file were not looked for among them",
            fatal=False,
        )


def _speakers(fold: Fold, clips: Sequence[Clip], place: Mapping[str, str]) -> Iterator[_Finding]:
    parts = defaultdict(set)
    for clip in clips:
        if clip.clip_id in place:
            parts[normal_speaker(clip.speaker)].add(place[clip.clip_id])
    shared = {speaker: [part for part in PARTS if part in found] for speaker, found in parts.items() if len(found) > 1}
    if shared and fold.leaks_speakers:
        text = f"fold {fold.number} {LEAKS_SPEAKERS}: {len(shared)} of {len(parts)} speakers stand in several parts"
        yield _Finding(text, fatal=False)
    elif shared:
        yield _Finding(in_several_parts(fold.number, shared), fatal=True)


def _repeats(
    fold: Fold, groups: Sequence[Sequence[Clip]], place: Mapping[str, str], are: str, way_out: str
) -> Iterator[_Finding]:
    """Clips that should count once: fatal where they stand in different parts, worth a warning where they do not."""
    across = [pair for group in groups if (pair := _pair_across(group, place))]
    within = [group for group in groups if not _pair_across(group, place)]
    if across:
        (one, other), others = across[0], _others(len(across), "such groups")
        text = f"{one.clip_id} ({place[one.clip_id]}) and {other.clip_id} ({place[other.clip_id]}) {are}{others}"
        marked = f"fold {fold.number} {LEAKS_SPEAKERS}" if fold.leaks_speakers else f"fold {fold.number}"
        yield _Finding(f"{marked}: {text}; {way_out}", fatal=not fold.leaks_speakers)
    if within:
        names, others = " and ".join(clip.clip_id for clip in within[0][:2]), _others(len(within), "such groups")
        yield _Finding(f"{names} {are}{_contradiction(within[0])}{others}: they count more than once", fatal=False)


def _pair_across(group: Sequence[Clip], place: Mapping[str, str]) -> tuple[Clip, Clip] | None:
    placed = [clip for clip in group if clip.clip_id in place]
    pairs = combinations(placed, 2)
    return next(((one, other) for one, other in pairs if place[one.clip_id] != place[other.clip_id]), None)


def _contradiction(group: Sequence[Clip]) -> str:
    """Copies of one file cannot be of two speakers, or of two emotions."""
    return "".join(
        f", with {name}s {', '.join(values)}"
        for name in ("speaker", "label")
        if len(values := list(dict.fromkeys(getattr(clip, name) for clip in group))) > 1
    )


def _others(count: int, what: str) -> str:
    return f" ({count} {what} in all)" if count > 1 else ""


def _alike(clips: Iterable[Clip], key: Mapping[str, str]) -> list[list[Clip]]:
    """Groups of two clips or more with the same key, in the order of the clips."""
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if key.get(clip.clip_id):
            groups[key[clip.clip_id]].append(clip)
    return [group for group in groups.values() if len(group) > 1]


def _ravdess_name(clip: Clip) -> RavdessName | None:
    try:
        return parse_ravdess_name(clip.clip_id)
    except ValueError:
        return None
