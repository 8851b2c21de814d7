"""A sweep's plan: made once, kept, and followed again by a sweep that is resumed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache.corpus.clips import read_corpus, write_metadata
from configs.loader import check
from configs.schema.sweep import SweepConfig
from fuse.scores.predictions import read_predictions
from fuse.stack.width import Measured
from fuse.sweep import rank
from fuse.sweep.__main__ import run
from fuse.sweep.ground import Outcome
from fuse.sweep.ledger import ROWS
from fuse.sweep.plan import PLAN, read_plan
from tests.tiny.features import tiny_clips, write_tiny_features

pytestmark = pytest.mark.usefixtures("all_undrawn")
# An odd hidden width: heads of 13 units round otherwise in stacks of 3 than of 8.
RUNS = 40  # 2 sets of modalities x 2 learning rates x 5 folds x 2 seeds; 20 of one shape


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    write_tiny_features(folder, tiny_clips())
    return folder


@pytest.fixture(autouse=True)
def one_rank_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuse.sweep.__main__._launch", lambda out, *_: rank.work(out, 0, 1))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What timing finds, one width after the other: a machine under changing load."""
    widths: list[int] = []
    monkeypatch.setattr("fuse.sweep.plan.measure", lambda *_: Measured(widths.pop(0), 0.001))
    return widths


def config(features: Path, out: Path, **shared: Any) -> SweepConfig:
    given = {
        "corpus": str(features / "metadata.csv"),
        "features_dir": str(features),
        "protocol": "luna5",
        "seeds": [0, 1],
        "hidden": 13,
        "optim": {"epochs": 2},
        **shared,
    }
    grid = {"modalities": [["audio"], ["audio", "video"]], "optim.lr": [1e-3, 1e-2]}
    return check(SweepConfig, {"run": given, "grid": grid, "compare": "modalities", "output_dir": str(out)}, "test")


def test_a_corpus_with_three_labels_of_its_own_is_swept(tmp_path: Path) -> None:
    """Heads had eight outputs, and the table said that chance was 12.5 %, whatever the corpus."""
    names = {"happy": "радость", "sad": "грусть", "angry": "гнев"}
    clips = [clip for clip in tiny_clips() if clip.label in names]
    write_tiny_features(tmp_path, clips)
    write_metadata([replace(clip, label=names[clip.label]) for clip in clips], tmp_path / "metadata.csv")
    assert run(config(tmp_path, tmp_path / "out", stack_width=10)) == 0
    predictions = read_predictions(tmp_path / "out" / "chosen" / "audio" / "predictions.csv")
    assert predictions.label_names == ("гнев", "грусть", "радость")
    assert predictions.probabilities_NC.shape == (2 * 24 * 3 * 2, 3)
    table = (tmp_path / "out" / "sweep.md").read_text()
    assert "chance is 33.3 %" in table
    assert float(table.split("| audio | 0.01 | ")[1].split(" |")[0]) > 60


def cut_off_after(monkeypatch: pytest.MonkeyPatch, rows: int) -> Callable[[], None]:
    """Ends the rank, as a kill would, once it has written so many rows; what is returned lets it live."""
    keep, written = rank._keep, 0

    def counted(out: Path, outcome: Outcome) -> None:
        nonlocal written
        if written == rows:
            raise InterruptedError
        keep(out, outcome)
        written += 1

    monkeypatch.setattr("fuse.sweep.rank._keep", counted)
    return lambda: monkeypatch.setattr("fuse.sweep.rank._keep", keep)


def written(out: Path) -> dict[str, bytes]:
    kept = [*out.rglob("predictions.csv"), out / "sweep.csv", out / "sweep.md"]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


def test_a_resumed_sweep_times_nothing_and_gives_the_bits_of_one_that_nothing_disturbed(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed: list[int]
) -> None:
    """It timed again, and dealt what was left into other stacks; the last bits then followed the machine's load."""
    timed += [8, 8]
    assert run(config(features, tmp_path / "calm")) == 0
    timed += [8, 8]
    revive = cut_off_after(monkeypatch, 11)
    with pytest.raises(InterruptedError):
        run(config(features, tmp_path / "wild"))
    revive()
    timed += [3, 5]
    assert run(config(features, tmp_path / "wild")) == 0
    assert timed == [3, 5]
    calm, wild = written(tmp_path / "calm"), written(tmp_path / "wild")
    assert len(calm) == RUNS + 4  # two chosen, sweep.csv and sweep.md
    assert [name for name in calm if calm[name] != wild[name]] == []


def test_a_sweep_records_how_wide_its_stacks_are(features: Path, tmp_path: Path, timed: list[int]) -> None:
    timed += [8, 4]
    assert run(config(features, tmp_path)) == 0
    stacks = read_plan(tmp_path / PLAN).stacks
    assert [stack.width for stack in stacks] == [8, 8, 8, 4, 4, 4, 4, 4]
    assert all(len(stack.runs) <= stack.width for stack in stacks)
    assert sorted(number for stack in stacks for number in stack.runs) == list(range(RUNS))


def test_a_width_that_is_given_is_used_whatever_the_ranks(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKS", "7")  # 20 runs of a shape for 7 ranks would make stacks of 3
    assert run(config(features, tmp_path, stack_width=10)) == 0
    assert [len(stack.runs) for stack in read_plan(tmp_path / PLAN).stacks] == [10, 10, 10, 10]


def test_a_sweep_that_is_done_keeps_its_caveat_when_it_is_written_again(features: Path, tmp_path: Path) -> None:
    """The caveat came from the stores of what was left to do, so that a second start wrote the table without it."""
    settings = config(features, tmp_path, standardise="speaker", stack_width=20)
    assert run(settings) == 0
    first = written(tmp_path)
    assert run(settings) == 0
    assert written(tmp_path) == first
    assert read_plan(tmp_path / PLAN).note in first["sweep.md"].decode()
    assert read_plan(tmp_path / PLAN).note


def test_a_sweep_is_not_resumed_on_features_that_were_made_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One half of its runs stood on the features of one encoder, the other on another's, and were compared."""
    write_tiny_features(tmp_path / "features", tiny_clips())
    settings = config(tmp_path / "features", tmp_path / "sweep", stack_width=20)
    revive = cut_off_after(monkeypatch, 5)
    with pytest.raises(InterruptedError):
        run(settings)
    revive()
    shutil.rmtree(tmp_path / "features")
    write_tiny_features(tmp_path / "features", tiny_clips(), made={"dtype": "bfloat16"})
    with pytest.raises(ValueError, match=r"its audio features .* the sweep .* \(dtype bfloat16, not unset\); put back"):
        run(settings)


def test_a_sweep_is_not_resumed_on_a_corpus_with_other_labels(features: Path, tmp_path: Path) -> None:
    """Once its rows would have counted other classes than those that were there."""
    folder, out = shutil.copytree(features, tmp_path / "features"), tmp_path / "out"
    run(config(folder, out))
    (out / ROWS).unlink()
    names = read_corpus(folder / "metadata.csv").labels
    (folder / "labels.txt").write_text("\n".join([*names[1:], names[0]]))
    with pytest.raises(ValueError, match=r"began with other labels \(the order: label 1 is neutral in one and calm"):
        run(config(folder, out))


def test_a_plan_that_cannot_be_read_names_the_way_out(features: Path, tmp_path: Path) -> None:
    settings = config(features, tmp_path, stack_width=20)
    assert run(settings) == 0
    (tmp_path / PLAN).write_text("[[0, 1], [2]]")
    with pytest.raises(ValueError, match=r"plan\.json holds no plan of a sweep; delete it"):
        run(settings)
