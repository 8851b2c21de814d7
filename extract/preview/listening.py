"""The sounds of a preview: written to be listened to, and heard by a recogniser."""

from __future__ import annotations

import math
import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cache.files.atomic import revealed
from cache.files.csv import csv_text
from cache.media import SAMPLE_RATE_HZ, Media
from configs.schema.features import OPENAI, Asr
from extract.asr.recogniser import Recogniser, load_recogniser
from extract.asr.transcript import Transcript

COLUMNS = ("condition", "transcript", "wer", "no_speech", "confidence")


@dataclass(frozen=True)
class Heard:
    """A sound and what was understood of it. `transcript` None: nobody listened, or `failure` says why it failed."""

    condition: str
    waveform_T: npt.NDArray[np.float32]
    transcript: Transcript | None = None
    failure: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """What stands under the spectrogram."""
        if self.transcript is None:
            return (f"no transcript: {self.failure}",) if self.failure else ()
        said = f"“{self.transcript.transcript}”" if self.transcript.transcript else "(nothing understood)"
        return (said,) if math.isnan(self.transcript.wer) else (said, f"WER {self.transcript.wer:.2f}")

    @property
    def row(self) -> tuple[str, ...]:
        """Its line of preview.csv."""
        heard = self.transcript or Transcript("")
        return self.condition, heard.transcript, *map(_spelt, (heard.wer, heard.no_speech, heard.confidence))


def find_recogniser(asr: Asr, statement: str) -> tuple[Recogniser | None, str]:
    """Whisper, and what the reader of the sheet must know. Without it there is still much to see and hear.

    Raises:
        ValueError: what was given is no Whisper; a download that fails is only said.
    """
    if asr.model is None:
        return None, "no recogniser: give asr.model=..."
    try:
        recogniser = load_recogniser(asr, torch.device("cuda" if torch.cuda.is_available() else "cpu"), one_by_one=True)
    except ValueError as error:
        if not OPENAI.fullmatch(asr.model):
            raise
        print(f"no transcripts: {error}")
        return None, f"no recogniser: {asr.model} could not be had"
    if not statement:
        print('no word error rates: give statement="what is said"')
    return recogniser, f"transcripts by {'/'.join(Path(asr.model).parts[-2:])}"


def listen(
    recogniser: Recogniser | None, statement: str, sounds: Iterable[tuple[str, Media]], folder: Path
) -> Iterator[Heard]:
    """Write each sound as it is made, and hear what a recogniser makes of it."""
    for name, media in sounds:
        if media.waveform_T is None:
            continue
        write_wav(media.waveform_T, folder / f"{name}.wav")
        yield _heard(recogniser, statement, name, media.waveform_T)


def _heard(recogniser: Recogniser | None, statement: str, name: str, waveform_T: npt.NDArray[np.float32]) -> Heard:
    if recogniser is None:
        return Heard(name, waveform_T)
    try:
        return Heard(name, waveform_T, recogniser.transcribe(waveform_T, statement))
    # Whatever Whisper raises on a sound is that sound's failure, as in a run.
    except Exception as error:
        return Heard(name, waveform_T, None, f"{type(error).__name__} {' '.join(str(error).split())[:80]}")


def write_wav(waveform_T: npt.NDArray[np.float32], path: Path) -> None:
    """Write mono samples at 16 kHz as 16-bit PCM; what passes full scale is cut there."""
    samples_T = np.round(np.clip(waveform_T, -1, 1) * 32767).astype("<i2")
    with revealed(path) as part, wave.open(str(part), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples_T.tobytes())


def transcript_table(heard: Iterable[Heard]) -> str:
    """preview.csv: a row for each sound; empty is what is not known."""
    return csv_text(COLUMNS, (sound.row for sound in heard))


def _spelt(value: float) -> str:
    """Three digits after the point; "" for what is not known."""
    return "" if math.isnan(value) else f"{value:.3f}"
