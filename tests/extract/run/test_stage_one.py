"""Stage one for real: launcher, torchrun and ranks on a tiny corpus, disturbed in every way, same bytes in the end."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from cache.corpus.clips import read_corpus, write_metadata
from cache.features.rows import State
from cache.features.store import open_store
from cache.files.lock import locked
from configs.command.entry import main
from configs.schema.features import FeaturesConfig
from extract.__main__ import run
from tests.tiny.corpus import write_tiny_mp4
from tests.tiny.places import ROOT
from tests.tiny.stage_one import (
    ABSENT,
    CONDITIONS,
    COUNT,
    FAILED,
    Done,
    Site,
    after_ctrl_c,
    all_gone,
    finish,
    ranks_of,
    wait_for,
    write_site,
)

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return write_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def undisturbed(site: Site) -> Done:
    """Two ranks, and no failure allowed."""
    return site.run("undisturbed")


@pytest.fixture(scope="module")
def alone(site: Site) -> Done:
    """One rank in this process, and as many failures allowed as there are."""
    return site.run_here("alone", "max_failed=3")


# A whole run


def test_more_failures_than_allowed_is_3_and_as_many_is_0(undisturbed: Done, alone: Done) -> None:
    assert undisturbed.code == 3, undisturbed.output
    assert alone.code == 0, alone.output


def test_failures_are_listed_with_their_reason(undisturbed: Done) -> None:
    with (undisturbed.folder / "failures.csv").open() as file:
        rows = list(csv.DictReader(file))
    changed = [("clean", m) for m in ("audio", "video", "text")]
    changed += [("noise-white-0db", "audio"), ("occlude-block-50", "video")]
    expected = {(clip_id, condition, modality) for clip_id in FAILED for condition, modality in changed}
    assert {(row["clip_id"], row["condition"], row["modality"]) for row in rows} == expected
    assert len(rows) == len(expected)
    assert all(row["reason"].startswith(f"decoding: {FAILED[row['clip_id']]}") for row in rows)


def test_the_summary_counts_and_names(undisturbed: Done) -> None:
    lines = [" ".join(line.split()) for line in undisturbed.output.splitlines()]
    assert f"{undisturbed.folder}: 20 clips" in lines
    missing = "1 of 20 files are missing, first: clips/c17.mp4; 1 of 20 files are empty, first: clips/c02.mp4"
    assert any(line.startswith(f"note: {missing}; paths start from") for line in lines)
    random = "(random weights: for plumbing, not for results)"
    assert f"clean audio/wav2vec2 16 done, 3 failed, 1 absent {random}" in lines
    assert f"noise-white-0db audio/wav2vec2 16 done, 3 failed, 1 absent {random}" in lines
    assert f"occlude-block-50 video/videomae 16 done, 3 failed, 1 absent {random}" in lines
    assert any(line.startswith("3 clips failed, listed in") for line in lines)
    assert "c02 (audio): decoding: the file is empty (0 bytes)" in lines
    assert any(line.startswith("features complete: 100 rows in") for line in lines)
    assert "Traceback" not in undisturbed.output


def test_every_row_has_its_state(undisturbed: Done) -> None:
    arrays = [("clean", "audio/wav2vec2"), ("clean", "video/videomae"), ("clean", "text/roberta")]
    arrays += [("noise-white-0db", "audio/wav2vec2"), ("occlude-block-50", "video/videomae")]
    for condition, path in arrays:
        store = open_store(undisturbed.folder / f"{condition}.zarr")
        assert list(store.clip_ids) == [f"c{n:02d}" for n in range(COUNT)]
        for clip_id, state in zip(store.clip_ids, store.states(path), strict=True):
            absent = (clip_id, path.partition("/")[0]) in ABSENT
            assert state == (State.FAILED if clip_id in FAILED else State.ABSENT if absent else State.DONE)
        done = store.states(path) == State.DONE
        assert np.isfinite(store.read_layer(path, 1)[done]).all()
        assert np.isnan(store.read_layer(path, 1)[~done]).all()


def test_a_condition_has_what_it_changes_and_differs_from_clean(undisturbed: Done) -> None:
    noisy, occluded, clean = (
        open_store(undisturbed.folder / f"{name}.zarr") for name in ("noise-white-0db", "occlude-block-50", "clean")
    )
    assert [noisy.encoders(m) for m in ("audio", "video", "text")] == [["wav2vec2"], [], []]
    assert [occluded.encoders(m) for m in ("audio", "video", "text")] == [[], ["videomae"], []]
    for store, path in ((noisy, "audio/wav2vec2"), (occluded, "video/videomae")):
        done = store.states(path) == State.DONE
        difference = np.abs(store.read_layer(path, 1) - clean.read_layer(path, 1))[done].max(axis=1)
        assert (difference > 1e-4).all()


def test_rows_are_the_plain_call_on_the_decoded_clip(site: Site, undisturbed: Done) -> None:
    """From file to store without batches, units or ranks."""
    import torch

    from cache.conditions import parse_condition
    from extract.corrupt.apply import corrupt
    from extract.encoders.catalogue import encoder_class
    from extract.encoders.models import find_model
    from extract.media.decode import decode

    for modality, name in (("audio", "wav2vec2"), ("video", "videomae")):
        model = find_model(str(site.root / "encoders" / name))
        encoder = encoder_class(modality, model)(model, torch.device("cpu"))
        for condition in ("clean", "noise-white-0db" if modality == "audio" else "occlude-block-50"):
            store = open_store(undisturbed.folder / f"{condition}.zarr")
            for row in (0, 13, 19):
                media = corrupt(
                    decode(site.clips / f"c{row:02d}.mp4", 16, 32), parse_condition(condition), f"c{row:02d}"
                )
                with torch.inference_mode():
                    expected = encoder.encode([media.waveform_T if modality == "audio" else media.frames_THWC])[0]
                stored = store.read_layer(f"{modality}/{name}", 1)[row]
                np.testing.assert_allclose(stored, expected[1], rtol=1e-5, atol=1e-5)


def test_one_rank_and_two_ranks_give_the_same_bytes(undisturbed: Done, alone: Done) -> None:
    assert alone.stores == undisturbed.stores
    assert len(alone.stores) > 100


def test_nothing_else_is_left_behind(undisturbed: Done) -> None:
    folder = undisturbed.folder
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [".lock", "config.yaml", "failures.csv", "media", *(f"{condition}.zarr" for condition in CONDITIONS)]
    )
    units = [f"unit-{unit:05d}{suffix}" for unit in range(3) for suffix in (".h5", ".sources.json")]
    assert sorted(path.name for path in (folder / "media/frames16-size32").iterdir()) == sorted(units)


# Again


# Written at the start and at the end of every run.
UNTIMED = (".lock", "config.yaml", "failures.csv")


def snapshot(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name not in UNTIMED}


def test_a_second_run_does_nothing_without_the_media(site: Site, alone: Done, tmp_path: Path) -> None:
    """The clips are moved away: nothing can have been decoded."""
    before = snapshot(alone.folder)
    site.clips.rename(tmp_path / "elsewhere")
    try:
        start = time.monotonic()
        again = site.run("alone", "max_failed=3")
        seconds = time.monotonic() - start
    finally:
        (tmp_path / "elsewhere").rename(site.clips)
    assert again.code == 0, again.output
    assert "features complete: nothing to do" in again.output
    assert {path for path, time_ns in snapshot(alone.folder).items() if before.get(path) != time_ns} <= {alone.folder}
    assert seconds < 15


# Disturbed


@dataclass(frozen=True)
class Disturbed:
    """What happened to a run that was stopped, killed, and disturbed once more."""

    terminated: Done
    seconds_to_stop: float
    gone_after_kill: bool
    final: Done


@pytest.fixture(scope="module")
def disturbed(site: Site) -> Disturbed:
    folder = site.root / "disturbed"
    # SIGTERM to the launcher while the first unit is being decoded.
    first = site.start("disturbed")
    wait_for(lambda: list(folder.glob("media/*/.unit-*")), first)
    everyone = psutil.Process(first.pid).children(recursive=True)
    stopped = time.monotonic()
    first.terminate()
    terminated = finish(first, folder)
    seconds = time.monotonic() - stopped
    assert all_gone(everyone)
    # SIGKILL to the launcher once the first features are being written.
    second = site.start("disturbed", ranks=1)
    wait_for(lambda: list(folder.glob("*.zarr/*/*/hidden/c/*")), second)
    everyone = psutil.Process(second.pid).children(recursive=True)
    second.kill()
    second.communicate()
    # Started again at once; SIGKILL to one rank as soon as both are at work. torchrun starts them again.
    third = site.start("disturbed", "max_failed=3")
    gone = all_gone(everyone)
    wait_for(lambda: len(ranks_of(third)) == 2, third)
    time.sleep(1)
    victim = ranks_of(third)[-1]
    victim.kill()
    return Disturbed(terminated, seconds, gone, finish(third, folder))


def test_sigterm_ends_within_ten_seconds_and_says_how_to_continue(disturbed: Disturbed) -> None:
    assert disturbed.terminated.code == 143, disturbed.terminated.output
    assert disturbed.seconds_to_stop < 10
    assert "interrupted with 100 of 100 rows to go; the same command continues" in disturbed.terminated.output


def test_ranks_do_not_outlive_a_killed_launcher(disturbed: Disturbed) -> None:
    assert disturbed.gone_after_kill


def test_a_killed_rank_is_started_again_and_the_run_ends_well(disturbed: Disturbed) -> None:
    assert disturbed.final.code == 0, disturbed.final.output
    assert "features complete" in disturbed.final.output


def test_a_disturbed_run_ends_with_the_same_bytes(undisturbed: Done, disturbed: Disturbed) -> None:
    assert disturbed.final.stores == undisturbed.stores
    assert not list(disturbed.final.folder.rglob("*.partial"))
    assert not list(disturbed.final.folder.rglob(".unit-*"))


def test_ctrl_c_says_one_line_and_nothing_of_torchrun(site: Site) -> None:
    """Once torchrun said two pages of where it was when the signal came."""
    folder = site.root / "ctrl-c"
    command = [sys.executable, "-m", "extract", "--config", str(site.config("ctrl-c"))]
    environment = {"PYTHONPATH": str(ROOT), "RANKS": "1"}
    done = after_ctrl_c(command, lambda _: list(folder.glob("media/*/.unit-*")), environment)
    assert done.code == 130, done.output
    said = [line for line in done.output.splitlines() if not line.startswith("note: ")]
    assert len(said) == 1, done.output
    assert said[0].startswith("interrupted with ")


# Changed sources


@dataclass(frozen=True)
class Changed:
    """A finished run whose corpus was touched, replaced and repaired before it ran again."""

    old: Path
    done: Done
    touched_unit: bool


@pytest.fixture(scope="module")
def changed(site: Site, alone: Done, tmp_path_factory: pytest.TempPathFactory) -> Changed:
    copy = Site(tmp_path_factory.mktemp("changed") / "site")
    shutil.copytree(site.root / "corpus", copy.root / "corpus")
    shutil.copytree(site.root / "encoders", copy.root / "encoders")
    shutil.copytree(alone.folder, copy.root / "features")
    part = copy.root / "features/media/frames16-size32/unit-00001.h5"
    decoded = part.stat().st_mtime_ns
    # Unit 0: other content under the same name. Unit 1: only touched. Unit 2: the missing clip arrives.
    write_tiny_mp4(copy.clips / "c01.mp4", 0.5, seed=99)
    os.utime(copy.clips / "c10.mp4", (1, 1))
    write_tiny_mp4(copy.clips / "c17.mp4", 0.5, seed=17)
    done = copy.run_here("features", "max_failed=3")
    return Changed(alone.folder, done, part.stat().st_mtime_ns != decoded)


def test_replaced_and_arrived_files_are_computed_and_touched_ones_are_not(changed: Changed) -> None:
    assert changed.done.code == 0, changed.done.output
    assert "2 units are computed again: their media files changed" in changed.done.output
    assert not changed.touched_unit


def test_only_the_replaced_clips_have_other_features(changed: Changed) -> None:
    old, new = open_store(changed.old / "clean.zarr"), open_store(changed.done.folder / "clean.zarr")
    for path in ("audio/wav2vec2", "video/videomae"):
        same = np.isclose(old.read_layer(path, 1), new.read_layer(path, 1), equal_nan=True, atol=1e-5)
        assert [new.clip_ids[row] for row in np.flatnonzero(~same.all(axis=1))] == ["c01", "c17"]
    assert new.states("audio/wav2vec2")[17] == State.DONE
    sources = [store.column("audio/wav2vec2", "source") for store in (old, new)]
    assert [new.clip_ids[n] for n in range(COUNT) if sources[0][n] != sources[1][n]] == ["c01", "c17"]


# In this process: plans, and runs that end before a rank is started


@pytest.fixture
def _signals() -> Iterator[None]:
    """`run` catches signals; put back what was there."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def in_process(site: Site, features: str, *overrides: str) -> int:
    return main(FeaturesConfig, run, "stage one", ["--config", str(site.config(features)), *overrides])


REFUSED = {
    "no metadata": (["corpus=nowhere.csv"], "no metadata file nowhere.csv; write one with: make corpus"),
    "no root": (["corpus_root=nowhere"], "corpus_root nowhere is not a folder"),
    "unknown key": (["featuers_dir=x"], "unknown key featuers_dir; did you mean features_dir?"),
    "unknown condition": (["conditions=[noise-white-10bd]"], "it is spelt noise-white-10db"),
    "wrong type": (["batch_size=many"], "batch_size: Input should be a valid integer, got 'many'"),
    "no model folder": (["encoders.audio=./nowhere"], "no folder ./nowhere; name a local model directory or a hub"),
    "folder without a model": (["encoders.audio=."], "is no transformers model folder"),
    "size": (["media.size=64"], "encoders.video takes 32 pixels, the media store would keep 64; set media.size=32"),
    "frames": (["media.frames=8"], "encoders.video takes 16 frames, the media store would keep 8; set media.frames=16"),
    "no checkpoint": (["asr.model=nowhere.pt"], "asr.model: no checkpoint file nowhere.pt"),
}


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_2_and_one_line_and_nothing_is_written(
    site: Site, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides, expected = REFUSED[name]
    assert in_process(site, "refused", *overrides) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert expected in error
    assert error.count("\n") == 1
    assert not (site.root / "refused").exists()


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize("ranks", ["0", "-1", "two", "", "²"])
def test_ranks_must_be_a_number(
    site: Site, ranks: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKS", ranks)
    assert in_process(site, "refused") == 2
    assert f"RANKS={ranks!r} must be a positive whole number" in capsys.readouterr().err


@pytest.mark.usefixtures("_signals")
def test_another_encoder_under_the_same_name_is_refused(
    site: Site, alone: Done, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(site.root / "encoders/wav2vec2", tmp_path / "wav2vec2")
    weights = tmp_path / "wav2vec2/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    before = alone.stores
    assert in_process(site, "alone", f"encoders.audio={tmp_path}/wav2vec2") == 2
    error = capsys.readouterr().err
    assert "clean.zarr audio/wav2vec2 was made differently: weights_sha256 was " in error
    assert "set another features_dir, or delete" in error
    assert alone.stores == before


@pytest.mark.usefixtures("_signals", "alone")
def test_another_corpus_is_refused(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = read_corpus(site.root / "corpus/metadata.csv")
    write_metadata(corpus.clips[1:], site.root / "corpus/fewer.csv")
    assert in_process(site, "alone", f"corpus={site.root}/corpus/fewer.csv") == 2
    assert "holds features of other clips than this corpus lists" in capsys.readouterr().err


@pytest.mark.usefixtures("_signals")
def test_a_wrong_root_is_one_line_before_anything_starts(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Once each clip of the corpus failed by itself, hours long."""
    assert in_process(site, "nowhere", f"corpus_root={site.root}/encoders") == 2
    said = capsys.readouterr()
    assert "20 of 20 files are missing, first: clips/c00.mp4; paths start from" in said.err
    assert "set corpus_root to the folder that they start from" in said.err
    assert not list((site.root / "nowhere").glob("media/*"))


@pytest.mark.usefixtures("_signals", "alone")
def test_moving_the_corpus_and_other_batches_change_nothing(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither path nor batch size, workers, threads or restarts are part of what a row is."""
    shutil.copytree(site.root / "corpus", tmp_path / "corpus")
    shutil.copytree(site.root / "alone", tmp_path / "features")
    overrides = [f"corpus={tmp_path}/corpus/metadata.csv", f"features_dir={tmp_path}/features", "max_failed=9"]
    overrides += ["batch_size=5", "media.decode_workers=2", "max_restarts=0", "media.timeout_seconds=9.0"]
    assert in_process(site, "alone", *overrides) == 0
    assert "features complete: nothing to do" in capsys.readouterr().out


@pytest.mark.usefixtures("_signals", "alone")
def test_without_the_decoded_media_the_stores_say_what_they_hold(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The media folder may be deleted to save room; a replaced clip must still be noticed."""
    shutil.copytree(site.root / "corpus", tmp_path / "corpus")
    shutil.copytree(site.root / "alone", tmp_path / "features")
    shutil.rmtree(tmp_path / "features/media")
    overrides = [f"corpus={tmp_path}/corpus/metadata.csv", f"features_dir={tmp_path}/features", "max_failed=9"]
    assert in_process(site, "alone", *overrides) == 0
    assert "features complete: nothing to do" in capsys.readouterr().out
    write_tiny_mp4(tmp_path / "corpus/clips/c11.mp4", 0.5, seed=99)
    store = tmp_path / "features/clean.zarr/audio/wav2vec2/state/c"
    assert (store / "1").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extract.__main__._launch", lambda *_: None)
        assert in_process(site, "alone", *overrides) == 1
    printed = capsys.readouterr()
    assert "1 units are computed again" in printed.out
    assert "error: the ranks died with 40 rows to go (see above); the same command continues" in printed.err
    assert [(store / str(unit)).exists() for unit in range(3)] == [True, False, True]


@pytest.mark.usefixtures("_signals", "alone")
def test_retrying_resets_units_with_failures(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(site.root / "alone", tmp_path / "features")
    monkeypatch.setattr("extract.__main__._launch", lambda *_: None)
    assert in_process(site, "alone", f"features_dir={tmp_path}/features", "retry_failed=true") == 1
    assert "3 units are computed again" in capsys.readouterr().out


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_any_rank_is_started_ends_the_run_at_once(
    site: Site, number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While planning, downloading a model or waiting for another run."""
    monkeypatch.setattr("cache.files.lock.time.sleep", lambda _: os.kill(os.getpid(), number))
    with locked(site.root / "waiting", 0), pytest.raises(SystemExit) as exit_:
        in_process(site, "waiting")
    assert exit_.value.code == 128 + number
    assert capsys.readouterr().err == "interrupted before any rank was started; the same command continues\n"


@pytest.mark.usefixtures("_signals", "alone")
def test_a_second_job_on_the_folder_is_refused(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("cache.files.lock.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("cache.files.lock.time.sleep", lambda _: None)
    with locked(site.root / "alone", 0):
        assert in_process(site, "alone", "max_failed=3") == 2
    assert f"another run (process {os.getpid()}) is writing to {site.root}/alone" in capsys.readouterr().err


# In the ranks


def test_a_model_that_only_a_rank_can_refuse_is_2_and_one_line(site: Site, tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    done = site.run("refused-by-rank", f"asr.model={tmp_path}/broken.pt", ranks=1)
    assert done.code == 2, done.output
    assert f"error: asr.model {tmp_path}/broken.pt could not be loaded" in done.output
    assert "Traceback" not in done.output
