"""Runs compared in pairs, by their predictions alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs.schema.studies import CompareConfig
from fuse.scores.metrics import summarise
from fuse.scores.paired_test import compare
from fuse.scores.predictions import Predictions, concatenate, write_predictions
from fuse.studies.compare import ROWS, TABLE, predictions_of, run

LABELS = ("happy", "sad")
SPEAKERS = tuple(map(str, range(1, 11)))


def answers(right: float, speakers: tuple[str, ...], fold: int, protocol: str, **other: str) -> Predictions:
    """Of four clips of each speaker, so many right by chance."""
    ids = [f"{speaker}-{number}" for speaker in speakers for number in range(4)]
    labels = np.arange(len(ids)) % 2
    rng = np.random.default_rng([len(protocol), fold])
    sure_N = np.where(rng.random(len(ids)) < right, 0.8, 0.2)
    probabilities_NC = np.stack([np.where(labels == label, sure_N, 1 - sure_N) for label in (0, 1)], axis=1)
    names = [one.partition("-")[0] for one in ids]
    given = {"condition": "clean", "modalities": "audio", "split": "test", **other}
    return Predictions.of(
        ids,
        names,
        ["" for _ in ids],
        labels,
        probabilities_NC,
        protocol=protocol,
        fold=fold,
        seed=0,
        label_names=LABELS,
        **given,
    )


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """A frozen run of two folds in one file; tuned ones, a fold each, under protocols of their own, fold 1 of each."""
    folds = (SPEAKERS[:5], SPEAKERS[5:])
    frozen = [answers(0.6, own, number, "luna5") for number, own in enumerate(folds, start=1)]
    write_predictions(concatenate(frozen), tmp_path / "frozen/predictions.csv")
    for number, own in enumerate(folds, start=1):
        one = answers(0.9, own, 1, f"folds/fold-{number}.yaml")
        # Validation clips stand in the file as well, and are nobody's test.
        other = answers(0.9, ("v",), 1, f"folds/fold-{number}.yaml", split="validation")
        write_predictions(concatenate([one, other]), tmp_path / f"tuned/fold-{number}/predictions.csv")
    return tmp_path / "frozen", tmp_path / "tuned"


def test_folds_of_their_own_are_one_run_and_the_numbers_are_the_library_s(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Heads on tuned features are a run for each fold, with a protocol of its own: only a script could compare them."""
    frozen, tuned = runs
    for number in (1, 2):
        nested = tmp_path / f"seeds/fold-{number}/seed-0/predictions.csv"
        nested.parent.mkdir(parents=True)
        nested.write_bytes((tuned / f"fold-{number}/predictions.csv").read_bytes())
    out = tmp_path / "out"
    pairs = ((str(tuned), str(frozen)), (str(tmp_path / "seeds"), str(frozen)))
    assert run(CompareConfig(pairs=pairs, output_dir=str(out))) == 0
    both = [predictions_of(tuned), predictions_of(frozen)]
    assert len(both[0]) == len(both[1]) == 40
    found = compare(dict.fromkeys(pairs, (both[0], both[1])))[pairs[0]]
    scores = [100 * summarise(one)["uar"] for one in both]
    assert found.interval is not None
    low, high = 100 * found.interval.low, 100 * found.interval.high
    printed = capsys.readouterr().out
    expected = (
        f"| {tuned} | {scores[0]:.1f} | {frozen} | {scores[1]:.1f} | {100 * found.estimate:+.1f} ({low:+.1f} to "
        f"{high:+.1f}) | {found.p:.3f} | {found.p_holm:.3f} |"
    )
    assert expected in printed.splitlines()
    assert found.p_holm == pytest.approx(2 * found.p)
    assert "Test: 40 clips, 10 speakers, 1 seed." in printed
    assert "corrected over 2 pairs" in printed
    assert "note:" not in printed
    assert (out / TABLE).read_text() in printed
    first, second = ((out / ROWS).read_text().splitlines())[1:]
    assert first.split(",")[2:] == second.split(",")[2:]


def test_what_else_differs_is_said(runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed = [SPEAKERS[::2], SPEAKERS[1::2]]
    parts = [answers(0.7, own, number, "x", condition="noise-white-0db") for number, own in enumerate(mixed, start=1)]
    write_predictions(concatenate(parts), tmp_path / "noisy/predictions.csv")
    pair = (str(tmp_path / "noisy"), str(runs[0]))
    assert run(CompareConfig(pairs=(pair,), output_dir=str(tmp_path / "out"))) == 0
    printed = capsys.readouterr().out
    assert f"note: {pair[0]} was tested under noise-white-0db, {pair[1]} under clean" in printed
    assert f"note: folds of {pair[0]} and {pair[1]} have other speakers" in printed


def test_few_speakers_have_no_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "bb"):
        write_predictions(answers(0.7, SPEAKERS[:2], 1, name), tmp_path / name / "predictions.csv")
    pair = (str(tmp_path / "a"), str(tmp_path / "bb"))
    assert run(CompareConfig(pairs=(pair,), output_dir=str(tmp_path / "out"))) == 0
    row, *_ = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"| {pair[0]}")]
    assert row.endswith("|  |  |")


def test_what_cannot_be_compared_ends_in_one_line(runs: tuple[Path, Path], tmp_path: Path) -> None:
    frozen, tuned = map(str, runs)
    other = answers(0.7, SPEAKERS, 1, "x")
    write_predictions(answers(0.7, SPEAKERS[:8], 1, "x"), tmp_path / "fewer/predictions.csv")
    write_predictions(answers(0.7, SPEAKERS, 1, "x", split="validation"), tmp_path / "untested/predictions.csv")
    renamed = Predictions(**{**vars(other), "label_names": ("happy", "calm")})
    write_predictions(renamed, tmp_path / "renamed/predictions.csv")
    for name, message in (
        ("nowhere", "has no predictions.csv, nor has a fold-"),
        ("fewer", "has no clip in both evaluations; compare the same speakers"),
        ("untested", r"untested was not tested \(test: false\)"),
        ("renamed", "renamed knows other labels than .*frozen"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            run(CompareConfig(pairs=((str(tmp_path / name), frozen),), output_dir=str(tmp_path / "out")))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="is compared with itself"):
        CompareConfig(pairs=((tuned, tuned),))
    with pytest.raises(ValueError, match="stands there twice"):
        CompareConfig(pairs=((tuned, frozen), (tuned, frozen)))
