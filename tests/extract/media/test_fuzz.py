"""Whatever stands in a media file: data, or a failed clip with its reason. No traceback, no hang, no dead workers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.media import Failure
from extract.media.decode import decode_all
from tests.tiny.matrix import Film, Recording

WHOLE: list[Film | Recording] = [
    Film("mp4", "h264 open"),
    Film("mov", "prores"),
    Film("mkv", "hevc"),
    Film("webm", "vp9"),
    Film("avi", "mpeg4"),
    Film("avi", "mjpeg"),
    Film("ts", "h264 refresh"),
    Film("mpg", "mpeg2"),
    Film("wmv", "wmv"),
    Film("flv", "sorenson"),
    Film("gif", "gif"),
    *(Recording(kind, 16_000, 1) for kind in ("wav 16 bit", "rf64", "flac", "mp3", "adts", "m4a", "opus", "aiff")),
]
TIMEOUT_SECONDS = 30.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [item.write(tmp_path_factory.mktemp("whole")) for item in WHOLE]


def spoilt(content: bytes, seed: int) -> bytes:
    """A copy with a few bytes changed, a stretch overwritten, taken out or doubled, or its end cut off."""
    rng = np.random.default_rng(seed)
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 1 + len(content) // 4))
    stretch = content[start : start + length]
    changed = bytearray(content)
    for place in rng.integers(len(content), size=rng.integers(1, 20)):
        changed[place] ^= int(rng.integers(1, 256))
    return (
        bytes(changed),
        content[:start] + rng.bytes(len(stretch)) + content[start + length :],
        content[:start] + content[start + length :],
        content[:start] + stretch + content[start:],
        content[:start],
        content[:start] + bytes(len(stretch)) + content[start + length :],
    )[int(rng.integers(6))]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.timeout(600)
def test_spoilt_files_are_data_or_failed_clips(
    whole: list[Path], tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("spoilt")
    copies = []
    for number, path in enumerate([*whole, *whole]):
        copies.append(folder / f"{number}{path.suffix}")
        copies[-1].write_bytes(spoilt(path.read_bytes(), seed + number))
    start = time.monotonic()
    outcomes = decode_all(copies, frames=16, size=32, workers=2, timeout_seconds=TIMEOUT_SECONDS, check=lambda: None)
    for (media, _), path in zip(outcomes, copies, strict=True):
        if isinstance(media, Failure):
            assert media.reason.strip() == media.reason != ""
            assert "\n" not in media.reason
            assert "Traceback" not in media.reason
            assert str(path.parent) not in media.reason
        else:
            assert media.waveform_T is None or np.isfinite(media.waveform_T).all()
            assert media.frames_THWC is None or media.frames_THWC.shape == (16, 32, 32, 3)
    assert time.monotonic() - start < len(copies) * TIMEOUT_SECONDS
