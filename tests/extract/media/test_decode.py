"""Decoding: exact samples, exact frames, the processor's pixels; a damaged file is one failed clip."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

import extract.media.decode
from cache.corpus.stretch import Stretch
from cache.files.hashes import sha256_of
from cache.media import SAMPLE_RATE_HZ, Failure, Media, Source
from extract.media.cut import Cut
from extract.media.decode import decode, decode_all
from extract.media.frames import even_indices, resize_and_crop
from tests.tiny.corpus import pictures, tone, write_mp4
from tests.tiny.places import ROOT, SHARED, needs_audio, needs_video

REAL_FLAC = SHARED / "ravdess/audio/Actor_01/03-01-01-01-01-01-01.flac"
REAL_MP4 = SHARED / "ravdess/video/Actor_01/01-01-01-01-01-01-01.mp4"
MOVING_MP4 = SHARED / "media/01-01-08-02-01-01-19.mp4"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def sound_by_pyav(path: Path) -> npt.NDArray[np.float32]:
    """Samples (channels, samples) of a file whose decoder gives planar floats."""
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def frames_by_pyav(path: Path) -> npt.NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def waveform_of(path: Path) -> npt.NDArray[np.float32]:
    waveform_T = decode(path, 0, 32).waveform_T
    assert waveform_T is not None
    assert waveform_T.dtype == np.float32
    return waveform_T


def frames_of(path: Path, frames: int, size: int) -> npt.NDArray[np.uint8]:
    frames_THWC = decode(path, frames, size).frames_THWC
    assert frames_THWC is not None
    assert frames_THWC.dtype == np.uint8
    return frames_THWC


# Sound


@needs_audio
def test_flac_samples_are_soundfiles() -> None:
    expected, rate_hz = soundfile.read(REAL_FLAC, dtype="float32")
    assert rate_hz == SAMPLE_RATE_HZ
    np.testing.assert_array_equal(waveform_of(REAL_FLAC), expected)


@pytest.mark.parametrize("extension", ["wav", "flac"])
def test_lossless_sound_is_exact(tmp_path: Path, extension: str) -> None:
    soundfile.write(tmp_path / f"x.{extension}", tone(0.5), SAMPLE_RATE_HZ)
    expected, _ = soundfile.read(tmp_path / f"x.{extension}", dtype="float32")
    np.testing.assert_array_equal(waveform_of(tmp_path / f"x.{extension}"), expected)


@needs_video
@pytest.mark.parametrize("path", [REAL_MP4, MOVING_MP4], ids=["48 kHz", "moving face"])
def test_mp4_sound_is_pyavs_resampled(path: Path) -> None:
    import torch
    import torchaudio.functional

    samples_T = torch.from_numpy(sound_by_pyav(path)[0])
    expected = torchaudio.functional.resample(samples_T, 48_000, SAMPLE_RATE_HZ).numpy()
    np.testing.assert_array_equal(waveform_of(path), expected)


@pytest.mark.parametrize(("extension", "channels"), [("wav", 1), ("wav", 2), ("wav", 6), ("flac", 1), ("flac", 2)])
def test_channels_without_a_centre_are_averaged(tmp_path: Path, channels: int, extension: str) -> None:
    """decord returns memory that it does not own for several channels: the sound must not come from there."""
    sound_CT = np.stack([tone(0.5, seed=channel) for channel in range(channels)])
    path = tmp_path / f"x.{extension}"
    soundfile.write(path, sound_CT.T, SAMPLE_RATE_HZ)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    np.testing.assert_allclose(waveform_of(path), expected.mean(axis=1), atol=1e-7)


def test_stereo_mp4_is_averaged(tmp_path: Path) -> None:
    stereo_CT = np.stack([tone(0.5, seed=1), 0.1 * tone(0.5, seed=2)])
    path = write_mp4(tmp_path / "x.mp4", stereo_CT, None)
    np.testing.assert_allclose(waveform_of(path), sound_by_pyav(path).mean(axis=0), atol=1e-7)


def test_full_scale_stereo_stays_within_full_scale(tmp_path: Path) -> None:
    loud_T = tone(0.5) / np.abs(tone(0.5)).max() * np.float32(0.999)
    soundfile.write(tmp_path / "x.wav", np.stack([loud_T, loud_T], axis=1), SAMPLE_RATE_HZ)
    assert 0.998 < np.abs(waveform_of(tmp_path / "x.wav")).max() <= 1


@pytest.mark.parametrize("rate_hz", [8000, 22_050, 44_100, 48_000])
def test_a_tone_keeps_its_pitch_at_16_khz(tmp_path: Path, rate_hz: int) -> None:
    samples_T = (0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate_hz) / rate_hz)).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", samples_T, rate_hz)
    waveform_T = waveform_of(tmp_path / "x.wav")
    assert len(waveform_T) == SAMPLE_RATE_HZ
    assert np.abs(np.fft.rfft(waveform_T)).argmax() == 1000


# Picture


@given(st.integers(1, 400), st.integers(2, 40))
def test_frame_indices_are_even_and_hold_both_ends(available: int, wanted: int) -> None:
    indices = even_indices(available, wanted)
    assert len(indices) == wanted
    assert (indices[0], indices[-1]) == (0, available - 1)
    assert indices == sorted(indices)
    # In whole numbers: halves are exact.
    offsets = [index * (wanted - 1) - i * (available - 1) for i, index in enumerate(indices)]
    assert all(2 * abs(offset) <= wanted - 1 for offset in offsets)


def test_frame_indices_of_ravdess() -> None:
    assert even_indices(99, 16) == [0, 7, 13, 20, 26, 33, 39, 46, 52, 59, 65, 72, 78, 85, 91, 98]
    assert even_indices(3, 16) == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("count", [1, 3, 9, 16, 50])
def test_frames_are_those_of_the_indices(tmp_path: Path, count: int) -> None:
    path = write_mp4(tmp_path / "x.mp4", None, pictures(count, 32, 32))
    expected = frames_by_pyav(path)
    assert len(expected) == count
    np.testing.assert_array_equal(frames_of(path, 16, 32), expected[even_indices(count, 16)])


@needs_video
@pytest.mark.parametrize("path", [REAL_MP4, MOVING_MP4], ids=["1280x720", "720x720"])
def test_real_frames_are_those_of_the_indices(path: Path) -> None:
    every = frames_by_pyav(path)
    expected = resize_and_crop(every[even_indices(len(every), 16)], 224)
    np.testing.assert_array_equal(frames_of(path, 16, 224), expected)


def processed(frames_THWC: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.float64]:
    """What the model's own processor (PIL) makes of full frames, brought back to grey levels of 0 to 255."""
    from transformers import AutoImageProcessor

    folder = SHARED / "models/videomae-base"
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    settings = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    pixels = np.asarray(processor(list(frames_THWC), return_tensors="np", **settings).pixel_values, np.float64)
    pixels_TCHW = pixels.reshape(-1, 3, size, size)
    mean, std = (np.array(value)[:, None, None] for value in (IMAGENET_MEAN, IMAGENET_STD))
    grey: npt.NDArray[np.float64] = 255 * (pixels_TCHW * std + mean).transpose(0, 2, 3, 1)
    return grey


@pytest.mark.skipif(not (SHARED / "models/videomae-base").exists(), reason="needs VideoMAE's own processor settings")
@pytest.mark.parametrize(("width", "height"), [(640, 360), (360, 640), (321, 243), (100, 100), (224, 300)])
def test_pixels_are_the_processors_within_one_grey_level(width: int, height: int) -> None:
    frames_THWC = pictures(2, width, height)
    rng = np.random.default_rng(0)
    noisy_THWC = np.clip(frames_THWC.astype(int) + rng.integers(-60, 60, frames_THWC.shape), 0, 255).astype(np.uint8)
    for full_THWC in (frames_THWC, noisy_THWC):
        deviation = np.abs(resize_and_crop(full_THWC, 224) - processed(full_THWC, 224))
        assert deviation.mean() <= 1
        assert deviation.max() < 3


@needs_video
def test_real_pixels_are_the_processors_within_one_grey_level() -> None:
    full_THWC = frames_by_pyav(REAL_MP4)[:3]
    assert np.abs(resize_and_crop(full_THWC, 224) - processed(full_THWC, 224)).mean() <= 1


# What a file may lack


def test_clip_without_sound(tmp_path: Path) -> None:
    media = decode(write_mp4(tmp_path / "x.mp4", None, pictures(9)), 16, 32)
    assert media.waveform_T is None
    assert media.frames_THWC is not None


def test_clip_without_picture(tmp_path: Path) -> None:
    media = decode(write_mp4(tmp_path / "x.mp4", tone(0.5), None), 16, 32)
    assert media.frames_THWC is None
    assert media.waveform_T is not None


def test_cover_art_is_no_picture(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", tone(0.5), SAMPLE_RATE_HZ)
    with av.open(str(tmp_path / "x.wav")) as sound, av.open(str(tmp_path / "x.flac"), "w") as file:
        stream = file.add_stream("flac", rate=SAMPLE_RATE_HZ, layout="mono")
        cover = file.add_stream("png")
        cover.width = cover.height = 32
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = cover.encode(av.VideoFrame.from_ndarray(pictures(1, 32, 32)[0], format="rgb24"))
        file.mux(picture + cover.encode())
        for frame in sound.decode(audio=0):
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with av.open(str(tmp_path / "x.flac")) as file:
        assert len(file.streams.video) == 1
    assert decode(tmp_path / "x.flac", 16, 32).frames_THWC is None


def test_skipped_picture(tmp_path: Path) -> None:
    assert decode(write_mp4(tmp_path / "x.mp4", tone(0.5), pictures(9)), 0, 32).frames_THWC is None


# Damage


def write_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    return write_bytes(path, content[: round(share * len(content))])


def whole_mp4(path: Path, faststart: bool = False) -> Path:
    return write_mp4(path, tone(3.0), pictures(45), faststart=faststart)


def wav(path: Path, samples_T: npt.NDArray[np.float32]) -> Path:
    soundfile.write(path, samples_T, SAMPLE_RATE_HZ, subtype="FLOAT")
    return path


def with_nan(samples_T: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    samples_T[100] = np.nan
    return samples_T


DAMAGED: dict[str, Callable[[Path], Path]] = {
    "zero bytes": lambda d: write_bytes(d / "x.mp4", b""),
    "web page named mp4": lambda d: write_bytes(d / "x.mp4", b"<html><body>404</body></html>\n" * 100),
    "random bytes": lambda d: write_bytes(d / "x.mp4", np.random.default_rng(0).bytes(5000)),
    "index in front, cut at 50 %": lambda d: cut(whole_mp4(d / "x.mp4", faststart=True), 0.5),
    "index in front, cut at 90 %": lambda d: cut(whole_mp4(d / "x.mp4", faststart=True), 0.9),
    "index in front, cut at 98 %": lambda d: cut(whole_mp4(d / "x.mp4", faststart=True), 0.98),
    "index at the end, cut at 50 %": lambda d: cut(whole_mp4(d / "x.mp4"), 0.5),
    "index at the end, cut at 90 %": lambda d: cut(whole_mp4(d / "x.mp4"), 0.9),
    "wav cut at 50 %": lambda d: cut(wav(d / "x.wav", tone(3.0)), 0.5),
    "wav cut at 90 %": lambda d: cut(wav(d / "x.wav", tone(3.0)), 0.9),
    "wav without samples": lambda d: wav(d / "x.wav", tone(0)),
    "wav with NaN": lambda d: wav(d / "x.wav", with_nan(tone(1.0))),
}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = [make(tmp_path_factory.mktemp("damaged")) for make in DAMAGED.values()]
    return [*paths, paths[0].with_name("not-there.mp4"), paths[0].parent]


@pytest.fixture(scope="module")
def outcomes(damaged: list[Path]) -> list[Media | Failure]:
    return [outcome for outcome, _ in everything(damaged)]


def everything(paths: list[Path], **kwargs: Any) -> list[tuple[Media | Failure, Source]]:
    settings = {"frames": 16, "size": 32, "workers": 1, "timeout_seconds": 60.0, "check": lambda: None}
    return list(decode_all(paths, **{**settings, **kwargs}))


def test_a_script_without_a_main_guard_decodes(tmp_path: Path) -> None:
    """Its workers ran the script again, which started workers: fuse.load(...).predict(...) needed a notebook."""
    soundfile.write(tmp_path / "a.wav", tone(0.2), SAMPLE_RATE_HZ)
    script = tmp_path / "predict.py"
    script.write_text(
        "from pathlib import Path\n"
        "from extract.media.decode import decode_all\n"
        f"paths = [Path({str(tmp_path / 'a.wav')!r})]\n"
        "((media, _),) = decode_all(paths, frames=0, size=32, workers=1, timeout_seconds=60, check=lambda: None)\n"
        "print(len(media.waveform_T))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("3200\n", 0), done.stderr


@pytest.mark.parametrize("row", range(len(DAMAGED) + 2), ids=[*DAMAGED, "no such file", "a folder"])
def test_damage_is_a_failure_in_one_reproducible_line(
    outcomes: list[Media | Failure], damaged: list[Path], row: int
) -> None:
    outcome = outcomes[row]
    assert isinstance(outcome, Failure), damaged[row]
    assert outcome.reason == outcome.reason.strip() != ""
    assert "\n" not in outcome.reason
    # The reason goes into the store: the same damage must give the same bytes anywhere, at any time.
    for changing in (str(damaged[row].parent), "0x", "[20", ":1", "workspace"):
        assert changing not in outcome.reason


def test_damage_reads_the_same_twice(outcomes: list[Media | Failure], damaged: list[Path], tmp_path: Path) -> None:
    copies = []
    for number, path in enumerate(damaged[: len(DAMAGED)]):
        (tmp_path / str(number)).mkdir()
        copies.append(write_bytes(tmp_path / str(number) / path.name, path.read_bytes()))
    assert [outcome for outcome, _ in everything(copies)] == outcomes[: len(DAMAGED)]


def test_lost_packets_at_the_end_of_a_flac_are_noticed(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.flac", tone(3.0), SAMPLE_RATE_HZ)
    with pytest.raises(ValueError, match=r"damaged inside|only 2\.82 of 3\.00 s of sound"):
        decode(cut(tmp_path / "x.flac", 0.99), 16, 32)


def test_unknown_length_of_a_streamed_wav_is_no_damage(tmp_path: Path) -> None:
    path = wav(tmp_path / "x.wav", tone(0.5))
    content = bytearray(path.read_bytes())
    content[4:8] = b"\xff\xff\xff\xff"
    assert len(waveform_of(write_bytes(path, bytes(content)))) == 8000


# Workers


def hang(
    path: Path, _stretches: Sequence[Stretch | None], frames: int, size: int, _cut: Cut, _reader: str
) -> list[tuple[Media, Source]]:
    """Stands in for a decoder that never returns on files named hang*, that dies on crash*, is told to stop."""
    if path.name.startswith("hang"):
        time.sleep(600)
    if path.name.startswith("crash"):
        os._exit(11)
    if path.name.startswith("stopped"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)
    if path.name.startswith("gone"):
        raise OSError(errno.ETIMEDOUT, "the server is gone")
    return [(Media(np.full(frames, size, np.float32), None), Source(path.name, 0, 0, 0, 0))]


@pytest.mark.parametrize("workers", [1, 2])
def test_hanging_and_crashing_decoders_cost_one_clip_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    names = ["a", "hang1", "b", "crash1", "c", "crash2"]
    paths = [write_bytes(tmp_path / name, name.encode()) for name in names]
    monkeypatch.setattr(extract.media.decode, "_decode_source", hang)
    start = time.monotonic()
    outcomes = everything(paths, timeout_seconds=1.0, workers=workers)
    assert time.monotonic() - start < 25
    reasons = [outcome.reason if isinstance(outcome, Failure) else "" for outcome, _ in outcomes]
    crashed = "the decoder crashed (exit code 11)"
    assert reasons == ["", "decoding took longer than 1 s", "", crashed, "", crashed]
    hashes = [source.sha256 for _, source in outcomes]
    assert hashes == ["a", sha256_of(paths[1]), "b", sha256_of(paths[3]), "c", sha256_of(paths[5])]


def test_a_decoder_that_is_told_to_stop_fails_no_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm signals every process of a step: the clip at hand was remembered as one that crashed the decoder."""
    paths = [write_bytes(tmp_path / name, name.encode()) for name in ("a", "stopped")]
    monkeypatch.setattr(extract.media.decode, "_decode_source", hang)
    with pytest.raises(OSError, match="a decoder was stopped by SIGTERM; the same command continues"):
        everything(paths, timeout_seconds=30.0)


def test_a_server_that_does_not_answer_is_no_clip_that_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python makes a `TimeoutError` of it, which was taken for the decoder's own."""
    monkeypatch.setattr(extract.media.decode, "_decode_source", hang)
    with pytest.raises(OSError, match="the server is gone"):
        everything([write_bytes(tmp_path / "gone", b"")])


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_disk_that_fails_fails_no_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A hiccup of a file server became a failed clip, and the next start found it decided."""
    path = write_bytes(tmp_path / "x.mp4", b"not media")

    def unreadable(_: Path) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("cache.media.sha256_of", unreadable)
    monkeypatch.setattr(extract.media.decode, "sha256_of", unreadable)
    if number == errno.EACCES:
        ((outcome, _),) = extract.media.decode._decode_source(path, [None], 16, 32, Cut(), "auto")
        assert isinstance(outcome, Failure)
    else:
        with pytest.raises(OSError, match=r"the same command tries again"):
            extract.media.decode._decode_source(path, [None], 16, 32, Cut(), "auto")


class TimeToGoError(Exception):
    pass


def test_a_hanging_decoder_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract.media.decode, "_decode_source", hang)
    start = time.monotonic()

    def check() -> None:
        if time.monotonic() - start > 3:
            raise TimeToGoError

    with pytest.raises(TimeToGoError):
        everything([write_bytes(tmp_path / "hang", b"")], check=check)
    assert time.monotonic() - start < 10


@pytest.mark.timeout(60)
def test_a_pipe_in_the_corpus_is_a_failed_clip(tmp_path: Path) -> None:
    """Opening a pipe to hash it would wait for ever, in the worker and in the rank."""
    os.mkfifo(tmp_path / "x.mp4")
    assert everything([tmp_path / "x.mp4"]) == [(Failure("no such file"), Source("", 0, 0, 0, 0))]


def test_clips_come_in_order_with_their_source(tmp_path: Path) -> None:
    paths = [wav(tmp_path / f"{n}.wav", tone(0.1 * n)) for n in (3, 1, 2)]
    outcomes = everything(paths, workers=2)
    lengths = [
        len(media.waveform_T) for media, _ in outcomes if isinstance(media, Media) and media.waveform_T is not None
    ]
    assert lengths == [4800, 1600, 3200]
    assert [source for _, source in outcomes] == [Source.of(path) for path in paths]


@pytest.fixture(autouse=True)
def _quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """FFmpeg and decord write their complaints to the process's own stderr."""
    yield
    capfd.readouterr()
