"""Media files whose frames and tracks say which they are: frame i of n is a grey, a track is a tone."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
WIDTH, HEIGHT = 96, 64
FPS = 25


def grey(index: int, count: int) -> int:
    """The level that says which of `count` frames this is."""
    return round(16 + 220 * index / max(1, count - 1))


def greys(count: int, wanted: int = 16) -> list[int]:
    """Levels of `wanted` evenly spaced frames of `count`."""
    return [grey(round(i * (count - 1) / (wanted - 1)), count) for i in range(wanted)]


def sine(pitch_hz: float, seconds: float, rate_hz: int, channels: int = 1) -> Samples:
    """A tone at half of full scale, (channels, samples)."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.tile((0.5 * np.sin(2 * np.pi * pitch_hz * time)).astype(np.float32), (channels, 1))


def pitch_of(waveform_T: Samples, rate_hz: int = 16_000) -> float:
    """The loudest frequency."""
    return float(np.abs(np.fft.rfft(waveform_T)).argmax() * rate_hz / len(waveform_T))


@dataclass(frozen=True)
class PictureTrack:
    """Frames to write: `count` greys, or `frames_THWC`. `times`: of each, in ticks of 1/1000 s; None: constant."""

    codec: str = "libx264"
    count: int = 50
    pixels: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)
    times: Sequence[int] | None = None
    fps: int | Fraction = FPS
    frames_THWC: npt.NDArray[np.uint8] | None = None
    tag: str = ""
    bframes: int | None = None


@dataclass(frozen=True)
class SoundTrack:
    """A tone to write, or a track that stays empty where `seconds` is 0."""

    pitch_hz: float = 220.0
    codec: str = "aac"
    rate_hz: int = 16_000
    seconds: float = 2.0
    layout: str = "mono"
    default: bool | None = None
    bit_rate: int = 0
    options: Mapping[str, str] = field(default_factory=dict)


def write_media(
    path: Path,
    picture: PictureTrack | None = None,
    sounds: Sequence[SoundTrack] = (),
    container: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write a file; tracks lie one behind the other, which every player sorts out."""
    with av.open(str(path), "w", format=container, options=dict(options or {})) as file:
        stream = None if picture is None else _picture_stream(file, picture)
        streams = [_sound_stream(file, sound) for sound in sounds]
        if picture is not None and stream is not None:
            for frame in _frames(picture):
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
        for sound, track in zip(sounds, streams, strict=True):
            _write_sound(file, track, sound)
        if picture is None and not any(sound.seconds for sound in sounds):
            file.start_encoding()
    return path


def _picture_stream(file: Any, picture: PictureTrack) -> Any:
    stream = file.add_stream(picture.codec, rate=picture.fps, options=dict(picture.options))
    shape = (HEIGHT, WIDTH) if picture.frames_THWC is None else picture.frames_THWC.shape[1:3]
    stream.height, stream.width = shape
    stream.pix_fmt = picture.pixels
    stream.codec_context.thread_count = 1
    if picture.bframes is not None:
        stream.codec_context.max_b_frames = picture.bframes
    if picture.times is not None:
        stream.codec_context.time_base = Fraction(1, 1000)
    if picture.tag:
        stream.codec_context.codec_tag = picture.tag
    return stream


def _frames(picture: PictureTrack) -> Any:
    for index in range(picture.count if picture.frames_THWC is None else len(picture.frames_THWC)):
        level = grey(index, picture.count)
        pixels = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
        if picture.frames_THWC is not None:
            pixels = picture.frames_THWC[index]
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=picture.pixels)
        frame.pts = index if picture.times is None else picture.times[index]
        frame.time_base = 1 / Fraction(picture.fps) if picture.times is None else Fraction(1, 1000)
        yield frame


def _sound_stream(file: Any, sound: SoundTrack) -> Any:
    stream = file.add_stream(sound.codec, rate=sound.rate_hz, layout=sound.layout, options=dict(sound.options))
    if sound.bit_rate:
        stream.bit_rate = sound.bit_rate
    if sound.default is not None:
        stream.disposition = av.stream.Disposition.default if sound.default else av.stream.Disposition(0)
    return stream


def _write_sound(file: Any, stream: Any, sound: SoundTrack) -> None:
    if not sound.seconds:
        return
    channels = av.AudioLayout(sound.layout).nb_channels
    samples_CT = sine(sound.pitch_hz, sound.seconds, sound.rate_hz, channels)
    to_format = av.AudioResampler(format=stream.format.name, layout=sound.layout, rate=sound.rate_hz)
    size = stream.codec_context.frame_size or 1024
    for start in range(0, samples_CT.shape[1], size):
        # Interleaved: PyAV 18 writes behind the last of eight planes.
        block = np.ascontiguousarray(samples_CT[:, start : start + size].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(block, format="flt", layout=sound.layout)
        frame.sample_rate, frame.pts, frame.time_base = sound.rate_hz, start, Fraction(1, sound.rate_hz)
        for converted in to_format.resample(frame):
            file.mux(stream.encode(converted))
    file.mux(stream.encode())


def cut_out(source: Path, target: Path, start_seconds: float, container: str | None = None) -> Path:
    """Copy the packets from a keyframe on, without decoding: what lies before is gone."""
    with av.open(str(source)) as whole, av.open(str(target), "w", format=container) as file:
        (stream,) = whole.streams.video
        copy = file.add_stream_from_template(stream)
        whole.seek(int(start_seconds / stream.time_base), stream=stream)
        before: int | None = None
        for packet in whole.demux(stream):
            if packet.dts is not None:
                before = packet.dts if before is None else before
                packet.pts, packet.dts, packet.stream = packet.pts - before, packet.dts - before, copy
                file.mux(packet)
    return target


# Changes to files that no encoder of the build writes by itself


def boxes(content: bytes, start: int = 0, end: int | None = None) -> list[tuple[str, int, int]]:
    """Name, start and end of the boxes of an MP4 between two places."""
    found, end = [], len(content) if end is None else end
    while start + 8 <= end:
        size = int.from_bytes(content[start : start + 4], "big")
        found.append((content[start + 4 : start + 8].decode("latin1"), start, start + size))
        start += size
    return found


def box(content: bytes, *path: str) -> tuple[int, int]:
    """Start and end of the first box of that path, `moov`, `trak`, `tkhd`: its header included."""
    start, end = 0, len(content)
    for depth, name in enumerate(path):
        inside = start + 8 if depth else 0
        start, end = next((s, e) for found, s, e in boxes(content, inside, end) if found == name)
    return start, end


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix into the first track of an MP4: (x, y) is shown at (a x + c y, b x + d y)."""
    content = bytearray(path.read_bytes())
    start, _ = box(bytes(content), "moov", "trak", "tkhd")
    place = start + 8 + (40 if content[start + 8] == 0 else 52)
    one = 1 << 16
    content[place : place + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(content))
    return path


def set_edit(path: Path, start_ticks: int, seconds: float) -> Path:
    """Hide the start of the first track of an MP4 by its edit list, which FFmpeg always writes."""
    content = bytearray(path.read_bytes())
    start, _ = box(bytes(content), "moov", "trak", "edts", "elst")
    movie, _ = box(bytes(content), "moov", "mvhd")
    ticks_a_second = int.from_bytes(content[movie + 20 : movie + 24], "big")
    content[start + 16 : start + 24] = struct.pack(">Ii", round(seconds * ticks_a_second), start_ticks)
    path.write_bytes(bytes(content))
    return path


def with_empty_packets(path: Path, after: Mapping[int, int]) -> Path:
    """Put empty packets into an AVI behind the video packets of these numbers, as capture programs do for a stall."""
    content = path.read_bytes()
    movi = content.index(b"movi")
    size = int.from_bytes(content[movi - 4 : movi], "little")
    offset, end, out, index, number = movi + 4, movi + size, bytearray(), bytearray(), 0
    while offset + 8 <= end:
        name, length = content[offset : offset + 4], int.from_bytes(content[offset + 4 : offset + 8], "little")
        padded = 8 + length + length % 2
        index += name + struct.pack("<III", 0x10, len(out) + 4, length)
        out += content[offset : offset + padded]
        if name[2:] in (b"dc", b"db"):
            for _ in range(after.get(number, 0)):
                index += name + struct.pack("<III", 0, len(out) + 4, 0)
                out += name + b"\0\0\0\0"
            number += 1
        offset += padded
    head = content[: movi - 4] + struct.pack("<I", 4 + len(out)) + b"movi"
    whole = bytearray(head + bytes(out) + b"idx1" + struct.pack("<I", len(index)) + bytes(index))
    whole[4:8] = struct.pack("<I", len(whole) - 8)
    path.write_bytes(bytes(whole))
    return path
