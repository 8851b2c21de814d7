"""Memory is bounded by what is kept of a clip, not by its length."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from extract.media.decode import _sampled
from extract.media.frames import Frames
from extract.media.tracks import survey
from tests.tiny.media import PictureTrack, write_media
from tests.tiny.places import ROOT


def test_only_the_frames_that_are_asked_for_are_held(tmp_path: Path) -> None:
    path = write_media(tmp_path / "x.mkv", PictureTrack(count=200))
    reduced: list[int] = []

    def reduce(frame_HWC: Frames) -> Frames:
        reduced.append(frame_HWC.size)
        return frame_HWC[:1, :1]

    numbers, picture, _ = _sampled(path, survey(path), 16, reduce)
    assert sorted(picture.kept) == sorted(set(numbers))
    assert len(reduced) == 16
    assert picture.count == 200


def twenty_minutes(path: Path) -> Path:
    """1920x1080 at two frames a second, stereo sound at 48 kHz."""
    rng, seconds = np.random.default_rng(0), 1200
    frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (1080, 1920, 3), np.uint8), format="rgb24")
    frame = frame.reformat(format="yuv420p")
    with av.open(str(path), "w") as file:
        picture = file.add_stream("libx264", rate=2, options={"preset": "ultrafast", "crf": "40"})
        picture.width, picture.height, picture.pix_fmt = 1920, 1080, "yuv420p"
        sound = file.add_stream("aac", rate=48_000, layout="stereo")
        block_CT = (0.1 * rng.standard_normal((2, 48_000))).astype(np.float32)
        for second in range(seconds):
            for number in (2 * second, 2 * second + 1):
                frame.pts, frame.time_base = number, Fraction(1, 2)
                file.mux(picture.encode(frame))
            samples = av.AudioFrame.from_ndarray(block_CT, format="fltp", layout="stereo")
            samples.sample_rate, samples.pts, samples.time_base = 48_000, 48_000 * second, Fraction(1, 48_000)
            file.mux(sound.encode(samples))
        file.mux(picture.encode())
        file.mux(sound.encode())
    return path


@pytest.mark.slow
def test_twenty_minutes_of_1080p_take_less_than_a_gigabyte(tmp_path: Path) -> None:
    """The sound alone took 460 MB as it was, and as much again while it was joined."""
    path = twenty_minutes(tmp_path / "x.mp4")
    code = f"""
import resource
from pathlib import Path
from extract.media.decode import decode
media = decode(Path({str(path)!r}), 16, 224)
print(len(media.waveform_T), len(media.frames_THWC), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    samples, frames, kilobytes = map(int, done.stdout.split())
    assert samples / 16_000 == pytest.approx(1200, abs=0.1)
    assert frames == 16
    assert kilobytes < 1_000_000
