"""Damage inside a media file: decoders hide it, so the file is read once more by one that may not.

Of 16 copies of a 1280x720 clip with 400 changed bytes each, FFmpeg's usual decoding noticed 2, by the length of
their sound; the others lost a few frames' blocks without a word. With those checks all 16 were refused. FLAC
files, whose damaged frames FFmpeg lets pass, carry an MD5 of their samples. WAV files carry nothing: for them
there is only the corpus's own `sha256`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import av
import numpy as np

# A frame may be held back at the end of a stream that was cut by an editor.
TOLERATED_FRAMES = 1


def refuse_damaged(path: Path, picture: bool) -> None:
    """Decode every packet of the sound, and of the picture if it is wanted, without error concealment.

    Raises:
        ValueError: some packet is damaged, or frames are missing that the container announces.
    """
    try:
        _refuse_hidden_errors(path, picture)
        _refuse_other_samples(path)
    except av.error.FFmpegError as error:
        raise ValueError(f"damaged inside: {error.strerror}") from error


def _refuse_hidden_errors(path: Path, picture: bool) -> None:
    with av.open(str(path)) as container:
        kinds = ["audio", "video"] if picture else ["audio"]
        streams = [stream for kind in kinds if (stream := container.streams.best(kind)) is not None]
        if not streams:  # demuxing none of them means all of them
            return
        for stream in streams:
            stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
            stream.codec_context.thread_count = 1
        frames = dict.fromkeys((stream.index for stream in streams), 0)
        for packet in container.demux(streams):
            frames[packet.stream.index] += len(packet.decode())
        for stream in streams:
            announced = stream.frames if stream.type == "video" else 0
            if frames[stream.index] + TOLERATED_FRAMES < announced:
                raise ValueError(f"only {frames[stream.index]} of {announced} frames could be decoded")


def _refuse_other_samples(path: Path) -> None:
    """Compare the samples of a 16-bit FLAC file with the MD5 in its header (RFC 9639, section 8.2)."""
    with path.open("rb") as file:
        head = file.read(42)
    bits = ((head[20] & 1) << 4 | head[21] >> 4) + 1 if len(head) == 42 else 0
    if head[:4] != b"fLaC" or bits != 16 or not any(head[26:]):
        return
    digest = hashlib.md5(usedforsecurity=False)
    with av.open(str(path)) as container:
        interleaved = av.AudioResampler(format="s16")
        for frame in container.decode(audio=0):
            for block in interleaved.resample(frame):
                digest.update(np.ascontiguousarray(block.to_ndarray(), "<i2").data)
    if digest.digest() != head[26:]:
        raise ValueError("damaged inside: its samples are not those that its header vouches for")
