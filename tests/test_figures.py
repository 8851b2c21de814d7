from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from cache.clips import LABELS
from fuse import figures
from fuse.figures import confusion_matrix_figure, robustness_figure, training_curves_figure
from fuse.predictions import Predictions, concatenate

SUBSETS = ("audio+video+text", "audio+video", "audio+text", "video+text", "audio", "video", "text")


def evaluation(seed: int = 0, classes: int = 8) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(classes), 20)
    return Predictions.of(
        [f"clip-{index}" for index in range(len(labels))],
        [str(index // 40) for index in range(len(labels))],
        [""] * len(labels),
        labels,
        rng.dirichlet(np.ones(8), size=len(labels)),
        protocol="luna5",
        fold=0,
        seed=seed,
        split="test",
        condition="clean",
        modalities="audio",
    )


def history(runs: int = 3, epochs: int = 6) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    return [
        {
            "seed": run,
            "fold": 0,
            "train_loss": rng.random(epochs).tolist(),
            "validation_loss": rng.random(epochs).tolist(),
            "validation_uar": [0.1 * epoch for epoch in range(epochs)],
            "best_epoch": epochs - 1,
        }
        for run in range(runs)
    ]


def rows(runs: int = 1, subsets: int = 7, conditions: int = 8, interval: bool = True) -> list[dict[str, Any]]:
    names = ["clean", *(f"noise-white-{snr_db}db" for snr_db in range(1, conditions))]
    return [
        {
            "run": f"outputs/run-{run}",
            "modalities": SUBSETS[subset],
            "condition": condition,
            "uar": 0.5,
            "low": 0.4 if interval else None,
            "high": 0.6 if interval else None,
            "clips": 1440,
        }
        for run in range(runs)
        for subset in range(subsets)
        for condition in names
    ]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved, to look into."""
    kept: list[Figure] = []
    save = figures._save

    def remember(figure: Figure, path: Path) -> None:
        kept.append(figure)
        save(figure, path)

    monkeypatch.setattr(figures, "_save", remember)
    return kept


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def test_confusion_cells_hold_percentages_and_counts(tmp_path: Path, drawn: list[Figure]) -> None:
    made = Predictions(**{**vars(evaluation()), "predicted": np.where(np.arange(160) < 40, 1, evaluation().label)})
    confusion_matrix_figure(made, tmp_path / "matrix.png", note="encoders: small, untrained")
    cells = {text.get_position(): text.get_text() for text in drawn[0].axes[0].texts}
    # The first 40 clips hold 5 of the 20 clips of each emotion.
    assert cells[(0, -0.12)] == "75"
    assert cells[(0, 0.27)] == "15"
    assert cells[(1, -0.12)] == "25"
    assert cells[(1, 0.88)] == "100"
    everything = texts(drawn[0])
    assert "UAR 0.781: 160 clips, 4 speakers, 1 seed" in everything
    assert "encoders: small, untrained" in everything
    assert [label.get_text() for label in drawn[0].axes[0].get_xticklabels()] == list(LABELS)


def test_an_emotion_without_clips_says_so(tmp_path: Path, drawn: list[Figure]) -> None:
    confusion_matrix_figure(evaluation(classes=6), tmp_path / "matrix.png")
    assert texts(drawn[0]).count("no clips") == 2


def test_confusion_counts_of_several_seeds_are_declared_as_such(tmp_path: Path, drawn: list[Figure]) -> None:
    confusion_matrix_figure(concatenate([evaluation(0), evaluation(1)]), tmp_path / "matrix.png")
    assert "clips x seeds" in drawn[0].axes[0].get_ylabel()


def test_curves_show_every_run_and_their_mean(tmp_path: Path, drawn: list[Figure]) -> None:
    runs = history(3)
    runs[1] = {**runs[1], **{name: runs[1][name][:4] for name in ("train_loss", "validation_loss")}}
    runs[1] |= {"validation_uar": runs[1]["validation_uar"][:4], "best_epoch": 2}
    training_curves_figure(runs, tmp_path / "curves.png")
    loss_axes, uar_axes = drawn[0].axes
    thin = [line for line in loss_axes.lines if line.get_linewidth() < 1]
    thick = [line for line in loss_axes.lines if line.get_linewidth() > 1]
    assert (len(thin), len(thick)) == (6, 2)
    mean = np.mean([run["train_loss"][:4] for run in runs], axis=0)
    np.testing.assert_allclose(np.asarray(thick[0].get_ydata()), mean)
    best = next(line for line in uar_axes.lines if "best epoch" in str(line.get_label()))
    assert list(np.asarray(best.get_xdata())) == [6, 3, 6]
    np.testing.assert_allclose(np.asarray(best.get_ydata()), [0.5, 0.2, 0.5])
    assert all(tick == round(tick) for tick in uar_axes.get_xticks())


@pytest.mark.parametrize("broken", [{"validation_loss": [], "validation_uar": []}, {"train_loss": [np.nan] * 6}])
def test_curves_of_runs_without_validation_or_with_nan_are_drawn(tmp_path: Path, broken: dict[str, Any]) -> None:
    training_curves_figure([{**history(1)[0], **broken}], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_infinite_loss_does_not_stretch_the_axis(tmp_path: Path, drawn: list[Figure]) -> None:
    runs = history(2)
    runs[0]["train_loss"][2] = float("inf")
    training_curves_figure(runs, tmp_path / "curves.png")
    assert drawn[0].axes[0].get_ylim()[1] < 1.2


def test_an_impossible_best_epoch_and_an_empty_history_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="best_epoch 6 of seed 0 is not one of its 6 epochs"):
        training_curves_figure([{**history(1)[0], "best_epoch": 6}], tmp_path / "curves.png")
    with pytest.raises(ValueError, match="list of runs is empty"):
        training_curves_figure([], tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_robustness_panels_are_subsets_and_conditions_keep_their_order(tmp_path: Path, drawn: list[Figure]) -> None:
    table = rows(runs=2, subsets=3, conditions=4)
    table[1]["uar"], table[1]["low"], table[1]["high"] = 0.3, 0.25, 0.35
    robustness_figure(table, tmp_path / "table.png")
    panels = [axes for axes in drawn[0].axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == ["audio + video + text", "audio + video", "audio + text"]
    shown = [label.get_text() for label in panels[0].get_yticklabels()]
    assert shown == ["clean", "noise-white-1db", "noise-white-2db", "noise-white-3db"]
    assert panels[0].get_ylim()[0] > panels[0].get_ylim()[1]
    intervals = [tuple(np.asarray(line.get_xdata())) for line in panels[0].lines]
    assert (0.25, 0.35) in intervals
    chance = panels[0].lines[0]
    assert list(np.asarray(chance.get_xdata())) == [1 / 8, 1 / 8]
    assert {"chance", "outputs/run-0", "outputs/run-1", "1440 clips per point"} <= set(texts(drawn[0]))


def test_without_intervals_none_is_promised(tmp_path: Path, drawn: list[Figure]) -> None:
    robustness_figure(rows(subsets=1, interval=False), tmp_path / "table.png")
    assert not any("interval" in text for text in texts(drawn[0]))


def test_a_missing_combination_leaves_its_place_empty(tmp_path: Path, drawn: list[Figure]) -> None:
    table = [row for row in rows(subsets=2) if (row["modalities"], row["condition"]) != (SUBSETS[0], "clean")]
    robustness_figure(table, tmp_path / "table.png")
    heights = [np.asarray(line.get_ydata())[0] for line in drawn[0].axes[0].lines if line.get_marker() == "o"]
    assert sorted(heights) == list(range(7))


def test_an_empty_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the robustness table is empty"):
        robustness_figure([], tmp_path / "table.png")


@pytest.mark.parametrize("note", ["", "encoders: small, untrained"])
def test_figures_are_column_wide_and_nothing_overlaps(tmp_path: Path, drawn: list[Figure], note: str) -> None:
    confusion_matrix_figure(evaluation(), tmp_path / "a.png", note)
    training_curves_figure(history(), tmp_path / "b.png", note)
    robustness_figure(rows(), tmp_path / "c.png", note)
    robustness_figure(rows(subsets=2), tmp_path / "d.png", note)
    for figure, name in zip(drawn, "abcd", strict=True):
        height, width = matplotlib.image.imread(tmp_path / f"{name}.png").shape[:2]
        assert width == round(figures.COLUMN_WIDTH_INCHES * figures.DOTS_PER_INCH)
        assert height < 9 * figures.DOTS_PER_INCH
        for axes in figure.axes:
            box = axes.get_tightbbox()
            assert box is not None
            assert box.x0 >= -1
            assert box.x1 <= width + 1
            for other in [*figure.legends, *figure.texts]:
                assert not box.overlaps(other.get_window_extent()), (name, other)


def test_drawing_leaves_no_global_state(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    confusion_matrix_figure(evaluation(), tmp_path / "a.png")
    assert dict(mpl.rcParams) == before
    assert "pyplot" not in vars(sys.modules["fuse.figures"])


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        robustness_figure(rows(subsets=2), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
