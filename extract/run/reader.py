"""What an encoder gets to see of a clip: its sound or picture under a condition, or what is heard in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cache.conditions import Condition
from cache.corpus.clips import Clip
from cache.features.rows import TRANSCRIPT_COLUMNS, UnitRows
from cache.media import Media, MediaUnit
from extract.asr.recogniser import Recogniser
from extract.asr.transcript import Transcript
from extract.corrupt.apply import corrupt
from extract.corrupt.noise.sources import NoiseSources
from extract.corrupt.sound.level import Waveform
from extract.run.batches import Absent
from extract.run.blame import is_the_machines

NO_STREAM = "the clip has no such stream"


class UnitReader:
    """Reads the clips of one unit under one condition."""

    def __init__(self, media: MediaUnit, clips: Sequence[Clip], condition: Condition, noises: NoiseSources) -> None:
        """`media`: the unit's decoded clips, in the order of `clips`; `noises`: recordings to mix in."""
        self.media, self.clips, self.condition, self.noises = media, clips, condition, noises

    def signal(self, modality: str) -> Callable[[int], Any]:
        """A function from the row to its waveform (T,) or frames (T, H, W, C); it raises `Absent`."""
        return self._waveform if modality == "audio" else self._frames

    def text(self, recogniser: Recogniser | None, rows: UnitRows) -> Callable[[int], str]:
        """A function from the row to its text, which fills the transcript columns of `rows`.

        Without a recogniser the text is the corpus's statement. Empty text is an absent modality.
        """
        heard_in = None if recogniser is None else Hearing(recogniser, self._waveform, len(rows.state))

        def read(row: int) -> str:
            statement = self.clips[row].statement
            if heard_in is None:
                self._decoded(row)
                heard = Transcript(statement)
            else:
                heard = heard_in(row).against(statement)
            for name in TRANSCRIPT_COLUMNS:
                rows.columns[name][row] = getattr(heard, name)
            if not heard.transcript:
                raise Absent("empty transcript")
            return heard.transcript

        return read

    def _waveform(self, row: int) -> Waveform:
        waveform_T = self._corrupted(row, "audio").waveform_T
        if waveform_T is None:
            raise Absent(NO_STREAM)
        if not len(waveform_T):
            raise Absent("no samples")
        return waveform_T

    def _frames(self, row: int) -> Any:
        frames_THWC = self._corrupted(row, "video").frames_THWC
        if frames_THWC is None:
            raise Absent(NO_STREAM)
        return frames_THWC

    def _corrupted(self, row: int, modality: str) -> Media:
        self._decoded(row)
        return corrupt(self.media.read(row, modality), self.condition, self.clips[row].clip_id, self.noises)

    def _decoded(self, row: int) -> None:
        failure = self.media.failure(row)
        if failure:
            raise ValueError(f"decoding: {failure}")


class Hearing:
    """What is heard in the rows of a unit, those of one batch at a time: which they are follows from the row alone."""

    def __init__(self, recogniser: Recogniser, waveform: Callable[[int], Waveform], rows: int) -> None:
        """`waveform`: of a row; what it raises is that row's. `rows`: of the unit."""
        self._recogniser, self._waveform, self._rows = recogniser, waveform, rows
        self._found: dict[int, Transcript | Exception] = {}

    def __call__(self, row: int) -> Transcript:
        """What is heard in a row, without a word error rate. Raises what was raised for it."""
        if row not in self._found:
            size = self._recogniser.batch_size
            first = row - row % size
            self._hear(range(first, min(first + size, self._rows)))
        found = self._found.pop(row)
        if isinstance(found, Exception):
            raise found
        return found

    def _hear(self, rows: Iterable[int]) -> None:
        sounds: dict[int, Waveform] = {}
        for row in rows:
            try:
                sounds[row] = self._waveform(row)
            except Exception as error:
                if is_the_machines(error):
                    raise
                self._found[row] = error
        self._found |= zip(sounds, self._transcripts(list(sounds.values())), strict=True)

    def _transcripts(self, sounds: Sequence[Waveform]) -> Sequence[Transcript | Exception]:
        try:
            return self._recogniser.transcribe_all(sounds)
        # Which of them it was shows when each is heard by itself.
        except Exception as error:
            if is_the_machines(error):
                raise
            if len(sounds) == 1:
                return [error]
            return [found for sound in sounds for found in self._transcripts([sound])]
