"""The picture through H.264 and back, in memory, as in a call at a low bit rate.

Shape letters: T frames, H height, W width, C colour channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from extract.media.frames import Frames

# How long the sampled frames last together. RAVDESS clips last 3 to 5 seconds, so sixteen frames are encoded at four a
# second, and N kbit/s allow as many bits as for the whole clip. At the file's 30 a second they would get an eighth.
CLIP_SECONDS = 4


def through_h264(frames_THWC: Frames, kbps: int) -> Frames:
    """Encode and decode by libx264, preset medium, and FFmpeg's own decoder; one thread each, so that it repeats.

    Args:
        frames_THWC: (T, H, W, 3) uint8 RGB, taken to last `CLIP_SECONDS` together.
        kbps: ceiling of the bit rate over the clip, in 1000 bits a second; small pictures need less.

    Returns:
        as many frames of the same size, in their order; colour at half resolution, as everywhere in video.
    """
    height, width = frames_THWC.shape[1:3]
    # Colour planes have half the size, so sides must be even.
    even_THWC = np.pad(frames_THWC, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    decoder = av.codec.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoded = [picture for packet in [*encoded(even_THWC, kbps), None] for picture in decoder.decode(packet)]
    coded_THWC = np.stack([picture.to_ndarray(format="rgb24") for picture in decoded])
    assert coded_THWC.shape == even_THWC.shape, coded_THWC.shape
    return np.ascontiguousarray(coded_THWC[:, :height, :width])


def encoded(frames_THWC: Frames, kbps: int) -> list[av.Packet]:
    """The packets of frames with even sides; `through_h264` says the rest."""
    encoder = _encoder(frames_THWC, kbps)
    return [packet for picture in _pictures(frames_THWC) for packet in encoder.encode(picture)]


def _encoder(frames_THWC: Frames, kbps: int) -> av.VideoCodecContext:
    rate = Fraction(len(frames_THWC), CLIP_SECONDS)
    encoder = av.codec.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = frames_THWC.shape[1:3]
    encoder.pix_fmt, encoder.thread_count = "yuv420p", 1
    encoder.framerate, encoder.time_base = rate, 1 / rate
    encoder.bit_rate = 1000 * kbps
    # A buffer as long as the clip: the encoder may spend the bits unevenly and keeps to their total.
    ceiling = {"maxrate": f"{kbps}k", "bufsize": f"{kbps * CLIP_SECONDS}k"}
    # Else x264's macroblock tree uses approximate reciprocals, and one run in a few hundred gives other frames.
    encoder.options = {"preset": "medium", **ceiling, "x264-params": "cpu-independent=1"}
    return encoder


def _pictures(frames_THWC: Frames) -> Iterator[av.VideoFrame | None]:
    for index, frame_HWC in enumerate(frames_THWC):
        picture = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
        picture.pts = index
        yield picture
    yield None
