"""What an encoder gets to see of a clip: its sound or picture under a condition, or what is heard in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cache.conditions import Condition
from cache.corpus.clips import Clip
from cache.features.rows import TRANSCRIPT_COLUMNS, UnitRows
from cache.media import Media, MediaUnit
from extract.asr.timestamped import Recogniser
from extract.asr.transcript import Transcript
from extract.corrupt.apply import corrupt
from extract.corrupt.noise.sources import NoiseSources
from extract.corrupt.sound.level import Waveform
from extract.run.batches import Absent

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

        def read(row: int) -> str:
            statement = self.clips[row].statement
            if recogniser is None:
                self._decoded(row)
                heard = Transcript(statement)
            else:
                heard = recogniser.transcribe(self._waveform(row), statement)
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
