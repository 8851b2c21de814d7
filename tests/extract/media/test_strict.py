"""Flipped bytes inside a clip that a decoder passes over without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.media import Failure
from extract.media.decode import decode, decode_all
from tests.tiny.corpus import pictures, tone, write_mp4
from tests.tiny.places import SHARED, needs_audio, needs_video

PERFORMANCE = SHARED / "media/01-01-08-02-01-01-19.mp4"


def damaged(source: Path, target: Path, seed: int, count: int = 400) -> Path:
    """A copy with `count` consecutive bytes changed, somewhere in the middle four fifths."""
    rng, content = np.random.default_rng(seed), np.frombuffer(source.read_bytes(), np.uint8).copy()
    start = int(rng.integers(len(content) // 10, len(content) * 9 // 10 - count))
    content[start : start + count] ^= rng.integers(1, 256, count, np.uint8)
    target.write_bytes(content.tobytes())
    return target


def test_whole_files_pass(tmp_path: Path) -> None:
    decode(write_mp4(tmp_path / "x.mp4", tone(1.0), pictures(15)), 16, 32)
    for subtype in ("PCM_16", "PCM_24"):
        soundfile.write(tmp_path / "x.flac", tone(1.0), 16_000, subtype=subtype)
        decode(tmp_path / "x.flac", 16, 32)
    soundfile.write(tmp_path / "x.wav", tone(1.0), 16_000)
    decode(tmp_path / "x.wav", 16, 32)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_flipped_bytes_in_a_flac_are_noticed(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("flac")
    soundfile.write(folder / "x.flac", tone(1.0), 16_000)
    with pytest.raises(ValueError, match=r"damaged inside"):
        decode(damaged(folder / "x.flac", folder / "y.flac", seed, count=40), 0, 32)


@pytest.mark.skipif(not PERFORMANCE.is_file(), reason="no RAVDESS performance in $SHARED")
def test_400_flipped_bytes_in_a_real_performance_are_a_failed_clip(tmp_path: Path) -> None:
    copies = [damaged(PERFORMANCE, tmp_path / f"{seed}.mp4", seed) for seed in range(6)]
    decoded = decode_all([PERFORMANCE, *copies], frames=16, size=32, workers=1, timeout_seconds=60, check=lambda: None)
    outcomes = [media for media, _ in decoded]
    assert not isinstance(outcomes[0], Failure)
    assert all(isinstance(outcome, Failure) for outcome in outcomes[1:])


@needs_video
@needs_audio
def test_real_files_are_whole() -> None:
    videos, sounds = (sorted((SHARED / f"ravdess/{kind}").rglob("*.*")) for kind in ("video", "audio"))
    for path in [*videos[::40], *sounds[::100]]:
        decode(path, 16, 32)
