"""Two corpora as one: trained and validated on the source's speakers, tested on all of the target's.

Ids of clips and names of speakers get their corpus's name before them (`emodb:3`), so that speaker 3 of one is not
speaker 3 of the other, and the column `split` says who does what. Validation are the speakers of one of five groups
(fewer where the source has fewer speakers), dealt as those of `speaker-folds`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache.corpus.clips import Clip, Corpus
from cache.corpus.labels import label_difference
from cache.corpus.sheet import USUAL_NAMES
from cache.protocols.folds import speakers_of
from cache.protocols.speaker_folds import even_groups

CROSS_CORPUS = "cross-corpus"
GROUPS = 5
TEST = "test"


@dataclass(frozen=True)
class CorpusPart:
    """Those of joined clips that are of one corpus, and its name; "" where no corpus was joined to it."""

    name: str
    clips: tuple[Clip, ...]

    @property
    def own(self) -> tuple[Clip, ...]:
        """The clips under the ids that they have in their corpus."""
        if not self.name:
            return self.clips
        return tuple(replace(clip, clip_id=clip.clip_id.removeprefix(f"{self.name}:")) for clip in self.clips)


def corpus_names(source: Path, target: Path) -> tuple[str, str]:
    """What two corpora are called: by their folder, or by their file where that has a name of its own."""
    names = [path.resolve().parent.name if path.name in USUAL_NAMES else path.stem for path in (source, target)]
    return (names[0], names[1]) if names[0] != names[1] else (f"source-{names[0]}", f"target-{names[1]}")


def joined(source: Corpus, target: Corpus, names: tuple[str, str]) -> Corpus:
    """Both corpora as one, with the source's order of labels; media are looked for in neither.

    Raises:
        ValueError: their labels are not the same, or the source has too few speakers to train and to validate.
    """
    if differs := label_difference(sorted(source.labels), sorted(target.labels)):
        raise ValueError(
            f"{CROSS_CORPUS}: {names[1]} has other labels than {names[0]} ({differs}); give both the same with labels "
            "and target.labels, where null leaves clips out"
        )
    count = min(GROUPS, len(speakers_of(source.clips)))
    if count < 2:
        raise ValueError(f"{CROSS_CORPUS}: {names[0]} has 1 speaker; at least 2 are needed, to train and to validate")
    validation = frozenset(even_groups(source.clips, count)[0])
    clips = [
        *(_named(clip, names[0], "validation" if clip.speaker in validation else "train") for clip in source.clips),
        *(_named(clip, names[1], TEST) for clip in target.clips),
    ]
    return Corpus(source.root, tuple(clips), source.labels, (*source.notes, *target.notes))


def parts_of(clips: Sequence[Clip], names: tuple[str, str]) -> Iterator[CorpusPart]:
    """The source's clips of joined ones, then the target's; a part may be empty."""
    yield CorpusPart(names[0], tuple(clip for clip in clips if clip.split != TEST))
    yield CorpusPart(names[1], tuple(clip for clip in clips if clip.split == TEST))


def _named(clip: Clip, name: str, split: str) -> Clip:
    return replace(clip, clip_id=f"{name}:{clip.clip_id}", speaker=f"{name}:{clip.speaker}", split=split)
