"""What clips come in: containers, codecs, rates and layouts, to be written and read again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.tiny.media import PictureTrack, SoundTrack, grey, set_display_matrix, write_media

COUNT = 30
SIDE = 64
CORNER = 16
QUIET = "log-level=none"


def _steps(seed: int) -> tuple[int, ...]:
    """Rising times in milliseconds, 10 to 110 apart: a phone in the dark."""
    return tuple(np.concatenate([[0], np.random.default_rng(seed).integers(10, 111, COUNT - 1).cumsum()]).tolist())


def _frames() -> npt.NDArray[np.uint8]:
    """Greys that say which frame it is; the upper left corner is black, the upper right one white."""
    frames_THWC = np.zeros((COUNT, SIDE, SIDE, 3), np.uint8)
    frames_THWC += np.array([grey(index, COUNT) for index in range(COUNT)], np.uint8)[:, None, None, None]
    frames_THWC[:, :CORNER, :CORNER], frames_THWC[:, :CORNER, -CORNER:] = 0, 255
    return frames_THWC


CODECS: dict[str, PictureTrack] = {
    "h264 closed": PictureTrack("libx264", options={"x264-params": "keyint=10:bframes=2:open-gop=0"}),
    "h264 open": PictureTrack("libx264", options={"x264-params": "keyint=10:bframes=3:open-gop=1"}),
    "h264 refresh": PictureTrack("libx264", options={"x264-params": "keyint=10:intra-refresh=1:bframes=0"}),
    "hevc": PictureTrack("libx265", options={"preset": "ultrafast", "x265-params": f"keyint=10:{QUIET}"}),
    "mpeg4": PictureTrack("mpeg4", options={"g": "10", "b": "900k"}, bframes=2),
    "mpeg2": PictureTrack("mpeg2video", options={"g": "10", "b": "2000k"}, bframes=2),
    "vp8": PictureTrack("libvpx", options={"g": "10", "b": "900k", "deadline": "realtime", "auto-alt-ref": "1"}),
    "vp9": PictureTrack("libvpx-vp9", options={"g": "10", "b": "900k", "deadline": "realtime", "cpu-used": "8"}),
    "vp9 hidden": PictureTrack(
        "libvpx-vp9", options={"b": "900k", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "4"}
    ),
    "av1": PictureTrack("libsvtav1", options={"preset": "12", "svtav1-params": "keyint=10"}),
    "mjpeg": PictureTrack("mjpeg", pixels="yuvj420p"),
    "prores": PictureTrack("prores_ks", pixels="yuv422p10le"),
    "wmv": PictureTrack("wmv2", options={"g": "10", "b": "900k"}),
    "h263": PictureTrack("h263p", options={"g": "10", "b": "900k"}),
    "sorenson": PictureTrack("flv", options={"g": "10", "b": "900k"}),
    "gif": PictureTrack("gif", pixels="gray"),
}
# FFmpeg's muxer, and the sound that goes with it.
CONTAINERS: dict[str, tuple[str, SoundTrack | None]] = {
    "mp4": ("mp4", SoundTrack()),
    "mov": ("mov", SoundTrack(codec="pcm_s16le")),
    "mkv": ("matroska", SoundTrack(codec="flac")),
    "webm": ("webm", SoundTrack(codec="libopus", rate_hz=48_000)),
    "avi": ("avi", SoundTrack(codec="pcm_s16le", rate_hz=44_100)),
    "mpg": ("mpeg", SoundTrack(codec="mp2", rate_hz=44_100, bit_rate=128_000)),
    "ts": ("mpegts", SoundTrack(rate_hz=48_000)),
    "wmv": ("asf", SoundTrack(codec="wmav2", rate_hz=44_100, bit_rate=64_000)),
    "flv": ("flv", SoundTrack(rate_hz=44_100)),
    "3gp": ("3gp", SoundTrack(rate_hz=48_000)),
    "gif": ("gif", None),
    "fragmented.mp4": ("mp4", SoundTrack()),
}
FRAME_RATES: dict[str, PictureTrack] = {
    "25": PictureTrack(fps=25),
    "29.97": PictureTrack(fps=Fraction(30_000, 1001)),
    "60": PictureTrack(fps=60),
    "10": PictureTrack(fps=10),
    "variable": PictureTrack(times=_steps(0)),
}
TURNS = {"upright": None, "quarter": (0, 1, -1, 0), "half": (-1, 0, 0, -1), "mirror": (-1, 0, 0, 1)}


@dataclass(frozen=True)
class Film:
    """A film of the matrix, by the names of its parts."""

    container: str
    codec: str
    frame_rate: str = "25"
    turn: str = "upright"

    def write(self, folder: Path) -> Path:
        """Write it; raises what PyAV raises where the build or the container cannot."""
        muxer, sound = CONTAINERS[self.container]
        rate = FRAME_RATES[self.frame_rate]
        picture = replace(CODECS[self.codec], count=COUNT, fps=rate.fps, times=rate.times, frames_THWC=_frames())
        options = {"movflags": "frag_keyframe+empty_moov"} if self.container.startswith("fragmented") else {}
        sounds = [] if sound is None else [replace(sound, seconds=1.0)]
        path = write_media(folder / f"x.{self.container}", picture, sounds, muxer, options)
        numbers = TURNS[self.turn]
        return path if numbers is None else set_display_matrix(path, *numbers)


def films() -> Iterator[Film]:
    """Every film that makes sense: only MP4 and its like carry a display matrix."""
    for parts in itertools.product(CONTAINERS, CODECS, FRAME_RATES, TURNS):
        film = Film(*parts)
        turns = film.turn == "upright" or film.container in ("mp4", "mov", "3gp")
        # An AVI has one rate: the muxer fills the gaps with empty packets.
        if turns and (film.container, film.frame_rate) != ("avi", "variable"):
            yield film


LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 6: "5.1", 8: "7.1"}
RATES_HZ = (8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000)


@dataclass(frozen=True)
class SoundKind:
    """A file format for sound: its extension, muxer and codec; `lossless` ones keep every sample."""

    extension: str
    muxer: str
    codec: str
    lossless: bool = True
    options: Mapping[str, str] = field(default_factory=dict)
    encoder: Mapping[str, str] = field(default_factory=dict)


SOUND_KINDS: dict[str, SoundKind] = {
    "wav 8 bit": SoundKind("wav", "wav", "pcm_u8"),
    "wav 16 bit": SoundKind("wav", "wav", "pcm_s16le"),
    "wav 24 bit": SoundKind("wav", "wav", "pcm_s24le"),
    "wav 32 bit": SoundKind("wav", "wav", "pcm_s32le"),
    "wav float": SoundKind("wav", "wav", "pcm_f32le"),
    "wav double": SoundKind("wav", "wav", "pcm_f64le"),
    "wav a-law": SoundKind("wav", "wav", "pcm_alaw"),
    "wav mu-law": SoundKind("wav", "wav", "pcm_mulaw"),
    "wav adpcm": SoundKind("wav", "wav", "adpcm_ms", lossless=False),
    "rf64": SoundKind("wav", "wav", "pcm_s16le", options={"rf64": "always"}),
    # FFmpeg counts the bytes that fill a chunk up to eight.
    "w64": SoundKind("w64", "w64", "pcm_s16le", lossless=False),
    "aiff": SoundKind("aiff", "aiff", "pcm_s16be"),
    "au": SoundKind("au", "au", "pcm_s16be"),
    "caf": SoundKind("caf", "caf", "pcm_s16be"),
    "flac": SoundKind("flac", "flac", "flac"),
    "flac in ogg": SoundKind("oga", "ogg", "flac"),
    "alac": SoundKind("m4a", "ipod", "alac"),
    "wavpack": SoundKind("wv", "wv", "wavpack"),
    "mp3": SoundKind("mp3", "mp3", "libmp3lame", lossless=False),
    "mp3 without xing": SoundKind("mp3", "mp3", "libmp3lame", lossless=False, options={"write_xing": "0"}),
    "mp2": SoundKind("mp2", "mp2", "mp2", lossless=False),
    "adts": SoundKind("aac", "adts", "aac", lossless=False),
    "m4a": SoundKind("m4a", "ipod", "aac", lossless=False),
    "opus": SoundKind("opus", "opus", "libopus", lossless=False),
    "opus in webm": SoundKind("webm", "webm", "libopus", lossless=False),
    "vorbis": SoundKind("ogg", "ogg", "vorbis", lossless=False, encoder={"strict": "experimental"}),
    "wma": SoundKind("wma", "asf", "wmav2", lossless=False),
    "ac3": SoundKind("ac3", "ac3", "ac3", lossless=False),
    "amr": SoundKind("amr", "amr", "libopencore_amrnb", lossless=False),
}


@dataclass(frozen=True)
class Recording:
    """A sound file of the matrix."""

    kind: str
    rate_hz: int
    channels: int
    seconds: float = 0.5

    def write(self, folder: Path) -> Path:
        """Write it; raises what PyAV raises where the build or the format cannot."""
        kind = SOUND_KINDS[self.kind]
        bit_rate = 0 if kind.lossless or kind.codec == "libopencore_amrnb" else 64_000 * self.channels
        layout = LAYOUTS[self.channels]
        sound = SoundTrack(220.0, kind.codec, self.rate_hz, self.seconds, layout, None, bit_rate, kind.encoder)
        return write_media(folder / f"x.{kind.extension}", None, [sound], kind.muxer, kind.options)


def recordings() -> Iterator[Recording]:
    """Every sound file."""
    return (Recording(*parts) for parts in itertools.product(SOUND_KINDS, RATES_HZ, LAYOUTS))
