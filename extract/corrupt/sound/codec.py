"""Sound through a lossy codec and back, in memory, as in a voice message or a call at a low bit rate."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

from cache.media import SAMPLE_RATE_HZ

# Encoder and decoder by the name in conditions. mp3float is FFmpeg's own decoder of MP3.
CODECS = {"mp3": ("libmp3lame", "mp3float"), "aac": ("aac", "aac")}
# Silence encoded after the sound, in frames: codecs output their last frames only when more follow.
TAIL_FRAMES = 3


def through_codec(waveform_T: npt.NDArray[np.float32], codec: str, kbps: int) -> npt.NDArray[np.float32]:
    """Encode and decode a waveform at 16 kHz, mono, by PyAV's libmp3lame or aac (constant or average bit rate).

    Args:
        waveform_T: samples, full scale 1.
        codec: key of `CODECS`.
        kbps: bit rate that the encoder is asked for, in 1000 bits a second.

    Returns:
        as many samples, without the delay of the codec; they may pass full scale.
    """
    encoder = _encoder(CODECS[codec][0], kbps)
    decoder = av.codec.CodecContext.create(CODECS[codec][1], "r")
    decoder.thread_count = 1
    if encoder.extradata:
        decoder.extradata = encoder.extradata
    packets = [packet for frame in _frames(waveform_T, encoder.frame_size) for packet in encoder.encode(frame)]
    # Packets without side data: with it, some decoders drop the codec's delay themselves and others do not.
    bare = [*(av.Packet(bytes(packet)) for packet in packets), None]
    decoded_T = np.concatenate([frame.to_ndarray()[0] for packet in bare for frame in decoder.decode(packet)])
    delay = -packets[0].pts
    coded_T: npt.NDArray[np.float32] = decoded_T[delay : delay + len(waveform_T)]
    assert len(coded_T) == len(waveform_T), (codec, len(decoded_T), delay)
    return coded_T


def _encoder(name: str, kbps: int) -> av.AudioCodecContext:
    encoder = av.codec.CodecContext.create(name, "w")
    encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE_HZ, "mono", "fltp"
    encoder.bit_rate, encoder.thread_count = 1000 * kbps, 1
    encoder.open()
    return encoder


def _frames(waveform_T: npt.NDArray[np.float32], size: int) -> Iterator[av.AudioFrame | None]:
    """Whole frames of the sound, silence behind it, and None for the end."""
    count = -(-len(waveform_T) // size) + TAIL_FRAMES
    padded_T = np.zeros(count * size, np.float32)
    padded_T[: len(waveform_T)] = waveform_T
    for start in range(0, len(padded_T), size):
        frame = av.AudioFrame.from_ndarray(padded_T[None, start : start + size], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE_HZ, start, Fraction(1, SAMPLE_RATE_HZ)
        yield frame
    yield None
