"""Pictures and sound in a page: what stage one decoded and corrupted, within a size."""

from __future__ import annotations

import base64
import io
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from cache.conditions import parse_condition
from cache.corpus.clips import Clip, Corpus
from cache.features.store import FeatureStore
from cache.features.units import unit_count, unit_rows
from cache.media import Media, MediaStore, Source
from extract.corrupt.apply import corrupt
from fuse.studies.report.page.media import frames_uri, shown_clips, sound_uri

SOURCE = Source("", 0, 0, 0, 0)
CLIPS = [Clip(f"c{number}", f"c{number}.mp4", "happy", "1") for number in range(10)]
CORPUS = Corpus(Path(), tuple(CLIPS), ("happy",))
CONDITIONS = ["clean", "noise-white-0db", "occlude-block-50", "noise-white-0db+occlude-block-50"]


def media_of(number: int) -> Media:
    rng = np.random.default_rng(number)
    tone = 0.3 * np.sin(np.arange(8000) * (0.05 + 0.01 * number))
    return Media(tone.astype(np.float32), rng.integers(0, 255, (4, 32, 32, 3), np.uint8))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    FeatureStore.create(folder / "clean.zarr", [clip.clip_id for clip in CLIPS])
    store = MediaStore(folder, {"frames": 4, "size": 32})
    for unit in range(unit_count(len(CLIPS))):
        store.write_unit(unit, clips_of(unit))
    return folder


def clips_of(unit: int) -> Iterator[tuple[Media, Source]]:
    for row in unit_rows(len(CLIPS), unit):
        yield media_of(row), SOURCE


def content(uri: str, kind: str) -> io.BytesIO:
    head, _, data = uri.partition(",")
    assert head == f"data:{kind};base64"
    return io.BytesIO(base64.b64decode(data))


def heard(uri: str) -> np.ndarray:
    with av.open(content(uri, "audio/mpeg")) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """The highest correlation at any delay: codecs have one."""
    length = min(len(one), len(other))
    spectrum = np.fft.rfft(one[:length], 2 * length) * np.conj(np.fft.rfft(other[:length], 2 * length))
    return float(np.fft.irfft(spectrum).max() / np.linalg.norm(one[:length]) / np.linalg.norm(other[:length]))


def test_sound_and_pictures_are_those_of_stage_one(features: Path) -> None:
    shown, notes = shown_clips(features, CORPUS, ["c9", "c2"], CONDITIONS, 5.0)
    assert notes == []
    assert list(shown["c2"].sounds) == ["clean", "noise-white-0db"]
    assert list(shown["c2"].frames) == ["clean", "occlude-block-50"]
    noisy = corrupt(media_of(2), parse_condition("noise-white-0db"), "c2").waveform_T
    assert noisy is not None
    assert similarity(heard(shown["c2"].sounds["noise-white-0db"]), noisy) > 0.9
    assert similarity(heard(shown["c2"].sounds["clean"]), noisy) < 0.85
    strip = np.asarray(Image.open(content(shown["c9"].frames["occlude-block-50"], "image/jpeg")))
    covered = corrupt(media_of(9), parse_condition("occlude-block-50"), "c9").frames_THWC
    assert covered is not None
    black = (covered[0] == 0).all(axis=2).mean()
    assert (strip[:, :112] < 40).all(axis=2).mean() == pytest.approx(black, abs=0.08)


def test_what_does_not_fit_is_left_out_and_said(features: Path) -> None:
    shown, notes = shown_clips(features, CORPUS, ["c0", "c1"], CONDITIONS, 0.012)
    sizes = [len(uri) for one in shown.values() for part in (one.sounds, one.frames) for uri in part.values()]
    assert 0 < sum(sizes) <= 12_000
    assert any("would pass 0.012 MB (media_megabytes)" in note for note in notes)


def test_clips_that_are_not_there_are_said(features: Path, tmp_path: Path) -> None:
    shown, notes = shown_clips(features, CORPUS, ["c0", "elsewhere"], ["clean"], 5.0)
    assert list(shown) == ["c0"]
    assert notes == ["1 clips are not among those decoded"]
    assert shown_clips(tmp_path, CORPUS, ["c0"], ["clean"], 5.0) == (
        {},
        [f"there are no decoded clips in {tmp_path}/media"],
    )


def test_babble_is_of_the_clips_where_stage_one_found_them(features: Path, tmp_path: Path) -> None:
    """With corpus_root the page looked beside metadata.csv, found no voices, and left babble out."""
    folder, root = tmp_path / "features", tmp_path / "elsewhere"
    shutil.copytree(features, folder)
    root.mkdir()
    clips = [Clip(f"c{number}", f"c{number}.wav", "happy", str(number), split="train") for number in range(3)]
    for number, clip in enumerate(clips):
        waveform_T = media_of(number).waveform_T
        assert waveform_T is not None
        with wave.open(str(root / clip.path), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes((waveform_T * 32767).astype("<i2").tobytes())
    (folder / "config.yaml").write_text(f"corpus: metadata.csv\ncorpus_root: {root}\n")
    shown, notes = shown_clips(folder, Corpus(tmp_path, tuple(clips), ("happy",)), ["c0"], ["noise-babble-0db"], 5.0)
    assert notes == []
    assert list(shown["c0"].sounds) == ["clean", "noise-babble-0db"]


def test_silence_has_no_ratio_to_noise_and_spoils_no_page(tmp_path: Path) -> None:
    FeatureStore.create(tmp_path / "clean.zarr", ["c0"])
    silent = Media(np.zeros(4000, np.float32), None)
    MediaStore(tmp_path, {"frames": 4, "size": 32}).write_unit(0, iter([(silent, SOURCE)]))
    shown, notes = shown_clips(tmp_path, CORPUS, ["c0"], CONDITIONS, 5.0)
    assert list(shown["c0"].sounds) == ["clean"]
    assert notes[0].startswith("c0 under noise-white-0db: ")


def test_they_are_small() -> None:
    assert len(sound_uri(np.zeros(3 * 16_000, np.float32))) < 30_000
    assert len(frames_uri(np.full((16, 224, 224, 3), 127, np.uint8))) < 10_000
