"""One pass through a file that lets no error pass: what comes out of it is the clip, in the order it is shown.

Decoders conceal damage unless they are told not to. Of 16 copies of a 1280x720 clip with 400 changed bytes each,
FFmpeg's usual decoding noticed 2, by the length of their sound; the others lost a few frames' blocks without a word.
With these checks all 16 were refused. FLAC files, whose damaged frames FFmpeg lets pass, carry an MD5 of their samples.
WAV files carry nothing: for them there is only the corpus's own `sha256`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from extract.media.picture import Picture
from extract.media.sound import Sound, keep_layout, stored_values
from extract.media.tracks import INDEXED, Tracks, is_before, open_media

NO_CONCEALMENT = {"err_detect": "crccheck+bitstream+buffer+explode"}
# Packets are counted, some of which a decoder keeps to itself: this much may be missing.
TOLERATED_SECONDS = 0.1
# A frame may be held back at the end of a stream that was cut by an editor.
TOLERATED_FRAMES = 1
# Containers whose sound has a length that was written when it was known, or that is counted from pages that are there.
LENGTH_IS_KNOWN = (INDEXED, "flac", "ogg", "aiff", "caf", "w64", "wv", "tta", "ape")


def strict_pass(path: Path, tracks: Tracks, picture: Picture | None) -> Sound | None:
    """Decode the sound track and, into `picture`, the picture track; what is None is passed over.

    Raises:
        ValueError: some packet is damaged, or something is missing that the container lists.
    """
    sound = None if tracks.sound is None else Sound()
    digest = _SampleDigest(path) if tracks.format == "flac" else None
    takers: dict[int, list[Callable[[Any], None]]] = {}
    if tracks.sound is not None and sound is not None:
        takers[tracks.sound] = [sound.add, *([digest.add] if digest else [])]
    if tracks.picture is not None and picture is not None:
        takers[tracks.picture] = [picture.add]
    try:
        _decode_into(path, tracks, takers)
    except av.error.FFmpegError as error:
        raise ValueError(f"damaged inside: {error.strerror}") from error
    if sound is not None:
        _refuse_short_sound(sound, tracks)
    if digest is not None:
        digest.compare()
    if picture is not None:
        _refuse_missing_frames(picture, tracks)
    return sound


def _decode_into(path: Path, tracks: Tracks, takers: dict[int, list[Callable[[Any], None]]]) -> None:
    with open_media(path) as container:
        streams = [container.streams[index] for index in takers]
        for stream in streams:
            if stream.codec_context is None:
                raise ValueError(f"no decoder for its {stream.type}")
            stream.codec_context.options = NO_CONCEALMENT
            stream.codec_context.thread_count = 1
        # An empty packet would be taken for the end.
        for packet in container.demux(streams) if streams else ():
            if packet.size:
                _hand_over(_decoded(packet, tracks), takers[packet.stream_index])
        for stream in streams:
            _hand_over(stream.decode(None), takers[stream.index])


def _decoded(packet: Any, tracks: Tracks) -> list[Any]:
    try:
        frames: list[Any] = packet.decode()
    except av.error.FFmpegError:
        if packet.stream_index == tracks.picture and is_before(packet.pts, tracks.begins):
            return []
        raise
    return frames


def _hand_over(frames: list[Any], takers: list[Callable[[Any], None]]) -> None:
    for frame in frames:
        if isinstance(frame, av.AudioFrame):
            keep_layout(frame)
    for frame in frames:
        for take in takers:
            take(frame)


def _refuse_short_sound(sound: Sound, tracks: Tracks) -> None:
    promised = tracks.sound_seconds if tracks.format in LENGTH_IS_KNOWN else 0.0
    if sound.seconds + TOLERATED_SECONDS < promised:
        raise ValueError(f"only {sound.seconds:.2f} of {promised:.2f} s of sound could be decoded")


def _refuse_missing_frames(picture: Picture, tracks: Tracks) -> None:
    # Elsewhere a packet may be half a frame, or none that is shown.
    promised = tracks.frames - tracks.orphans if tracks.format == INDEXED else 1
    if not picture.count or picture.count + TOLERATED_FRAMES < promised:
        raise ValueError(f"only {picture.count} of {promised} frames could be decoded")


class _SampleDigest:
    """Compares the samples of a FLAC file of 16 or 24 bits with the MD5 in its header (RFC 9639, section 8.2)."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            head = file.read(42)
        self.promised = head[26:] if head[:4] == b"fLaC" else b""
        self.bits = ((head[20] & 1) << 4 | head[21] >> 4) + 1 if len(head) == 42 else 0
        self._digest = hashlib.md5(usedforsecurity=False)

    def add(self, frame: av.AudioFrame) -> None:
        interleaved = np.ascontiguousarray(stored_values(frame).T).reshape(-1)
        if self.bits == 24:
            # Decoded into the upper three bytes of four.
            interleaved = np.ascontiguousarray(interleaved.astype("<i4").view(np.uint8).reshape(-1, 4)[:, 1:])
        self._digest.update(interleaved.astype(interleaved.dtype.newbyteorder("<"), copy=False).data)

    def compare(self) -> None:
        if self.bits in (16, 24) and any(self.promised) and self._digest.digest() != self.promised:
            raise ValueError("damaged inside: its samples are not those that its header vouches for")
