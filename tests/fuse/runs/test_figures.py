from __future__ import annotations

import itertools
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from cache.corpus.ravdess import LABELS
from fuse.robustness.figures.conditions import robustness_figure
from fuse.robustness.rows import BySpeaker, Row
from fuse.runs.confusion_figure import confusion_matrix_figure
from fuse.runs.style import COLUMN_WIDTH_INCHES, DOTS_PER_INCH, FULL_WIDTH_INCHES, numbered_labels
from fuse.runs.training_figure import RunHistory, training_curves_figure
from fuse.scores.predictions import Predictions, concatenate
from fuse.stack.job import History
from fuse.studies.enrolment.figure import enrolment_figure
from fuse.studies.enrolment.points import Point
from fuse.studies.report.features_figure import features_figure
from fuse.studies.report.layers import LayerScore
from fuse.studies.report.layers_figure import layers_figure
from fuse.sweep.figure import Row as Scored
from fuse.sweep.figure import sweep_figure
from tests.tiny.figure_texts import texts

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
        label_names=LABELS,
    )


def history(runs: int = 3, epochs: int = 6) -> list[RunHistory]:
    rng = np.random.default_rng(1)
    uar = [0.1 * epoch for epoch in range(epochs)]
    losses = [(rng.random(epochs).tolist(), rng.random(epochs).tolist()) for _ in range(runs)]
    return [RunHistory(0, run, History(*losses[run], uar.copy(), best_epoch=epochs - 1)) for run in range(runs)]


def rows(runs: int = 1, subsets: int = 7, conditions: int = 8, interval: bool = True) -> list[Row]:
    names = ["clean", *(f"noise-white-{snr_db}db" for snr_db in range(1, conditions))]
    low, high = (0.4, 0.6) if interval else (None, None)
    return [
        Row(
            *(f"outputs/run-{run}", SUBSETS[subset], condition, 0.5, 0.5, low, high, None, None, None, 1440, 24, 1),
            sd_over_seeds=None,
            speakers_uar=BySpeaker() if interval else BySpeaker({"23": 0.4, "24": 0.6}),
        )
        for run in range(runs)
        for subset in range(subsets)
        for condition in names
    ]


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
    assert "UAR 78.1 %: 160 clips, 4 speakers, 1 seed" in everything
    assert "encoders: small, untrained" in everything
    assert [label.get_text() for label in drawn[0].axes[0].get_xticklabels()] == list(LABELS)


def test_an_emotion_without_clips_says_so(tmp_path: Path, drawn: list[Figure]) -> None:
    confusion_matrix_figure(evaluation(classes=6), tmp_path / "matrix.png")
    assert texts(drawn[0]).count("no clips") == 2


def test_a_long_note_is_wrapped_and_stays_inside(tmp_path: Path, drawn: list[Figure]) -> None:
    """It was one line, right-aligned: its beginning was cut off on the left."""
    note = "outputs/fusion: mlp on audio+video+text, clean\n" + "; ".join(["random-weight encoders: plumbing"] * 4)
    confusion_matrix_figure(evaluation(), tmp_path / "matrix.png", note)
    (text,) = [one for one in drawn[0].texts if "random" in one.get_text()]
    lines = text.get_text().splitlines()
    assert lines[0] == "outputs/fusion: mlp on audio+video+text, clean"
    assert len(lines) > 2
    assert " ".join(lines) == " ".join(note.split())
    box = text.get_window_extent()
    assert box.x0 > 0
    assert box.y0 >= 0
    # Nor does it lie over the axes.
    axes_box = drawn[0].axes[0].get_tightbbox()
    assert axes_box is not None
    assert box.y1 <= axes_box.y0


def test_several_seeds_come_with_their_spread(tmp_path: Path, drawn: list[Figure]) -> None:
    both = concatenate([evaluation(0), evaluation(1)])
    confusion_matrix_figure(both, tmp_path / "matrix.png")
    scores = [np.mean(one.label == one.predicted) for one in (evaluation(0), evaluation(1))]
    spread = 100 * float(np.std(scores, ddof=1))
    said = f"UAR {100 * float(np.mean(scores)):.1f} %, SD over seeds {spread:.1f}\n160 clips, 4 speakers, 2 seeds"
    assert drawn[0].axes[0].get_title() == said


def test_confusion_counts_of_several_seeds_are_declared_as_such(tmp_path: Path, drawn: list[Figure]) -> None:
    confusion_matrix_figure(concatenate([evaluation(0), evaluation(1)]), tmp_path / "matrix.png")
    assert "clips x seeds" in drawn[0].axes[0].get_ylabel()


def test_curves_show_every_run_and_their_mean(tmp_path: Path, drawn: list[Figure]) -> None:
    runs = history(3)
    whole = runs[1].history
    shorter = History(whole.train_loss[:4], whole.validation_loss[:4], whole.validation_uar[:4], best_epoch=2)
    runs[1] = replace(runs[1], history=shorter)
    training_curves_figure(runs, tmp_path / "curves.png", classes=8)
    loss_axes, uar_axes = drawn[0].axes
    thin = [line for line in loss_axes.lines if line.get_linewidth() < 1]
    thick = [line for line in loss_axes.lines if line.get_linewidth() > 1]
    assert (len(thin), len(thick)) == (6, 2)
    mean = np.mean([run.history.train_loss[:4] for run in runs], axis=0)
    np.testing.assert_allclose(np.asarray(thick[0].get_ydata()), mean)
    best = next(line for line in uar_axes.lines if "best epoch" in str(line.get_label()))
    assert list(np.asarray(best.get_xdata())) == [6, 3, 6]
    np.testing.assert_allclose(np.asarray(best.get_ydata()), [0.5, 0.2, 0.5])
    assert all(tick == round(tick) for tick in uar_axes.get_xticks())
    spread = 100 * float(np.std([0.5, 0.2, 0.5], ddof=1))
    assert f"best epochs: UAR mean 40.0 %, SD over seeds {spread:.1f}" in "".join(texts(drawn[0]))


@pytest.mark.parametrize("broken", [{"validation_loss": [], "validation_uar": []}, {"train_loss": [np.nan] * 6}])
def test_curves_of_runs_without_validation_or_with_nan_are_drawn(tmp_path: Path, broken: dict[str, Any]) -> None:
    (run,) = history(1)
    training_curves_figure([replace(run, history=replace(run.history, **broken))], tmp_path / "curves.png", classes=8)
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_infinite_loss_does_not_stretch_the_axis(tmp_path: Path, drawn: list[Figure]) -> None:
    runs = history(2)
    runs[0].history.train_loss[2] = float("inf")
    training_curves_figure(runs, tmp_path / "curves.png", classes=8)
    assert drawn[0].axes[0].get_ylim()[1] < 1.2


def test_an_impossible_best_epoch_and_an_empty_history_are_errors(tmp_path: Path) -> None:
    runs = history(1)
    runs[0].history.best_epoch = 6
    with pytest.raises(ValueError, match="best_epoch 6 of seed 0 is not one of its 6 epochs"):
        training_curves_figure(runs, tmp_path / "curves.png", classes=8)
    with pytest.raises(ValueError, match="list of runs is empty"):
        training_curves_figure([], tmp_path / "curves.png", classes=8)
    assert not list(tmp_path.iterdir())


def test_robustness_panels_are_subsets_and_conditions_keep_their_order(tmp_path: Path, drawn: list[Figure]) -> None:
    table = rows(runs=2, subsets=3, conditions=4)
    table[1] = replace(table[1], uar=0.3, low=0.25, high=0.35)
    robustness_figure(table, tmp_path / "table.png", classes=8)
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


def test_with_few_speakers_each_is_a_dot_and_no_interval_is_promised(tmp_path: Path, drawn: list[Figure]) -> None:
    """The demo's figure had a mean of two speakers, and nothing of how far they lie apart."""
    robustness_figure(rows(subsets=1, conditions=1, interval=False), tmp_path / "table.png", classes=8)
    assert not any("interval" in text for text in texts(drawn[0]))
    assert "a speaker" in texts(drawn[0])
    dots = [np.asarray(line.get_xdata()).tolist() for line in drawn[0].axes[0].lines if line.get_marker() == "."]
    assert dots == [[0.4, 0.6]]


def test_the_spread_over_seeds_is_drawn_where_there_are_several(tmp_path: Path, drawn: list[Figure]) -> None:
    table = [replace(row, seeds=3, sd_over_seeds=0.02) for row in rows(subsets=1, conditions=1)]
    robustness_figure(table, tmp_path / "table.png", classes=8)
    spans = [np.asarray(line.get_xdata()).tolist() for line in drawn[0].axes[0].lines if line.get_linewidth() > 2]
    np.testing.assert_allclose(spans, [[0.48, 0.52]])
    assert "\u00b1 SD\nover seeds" in texts(drawn[0])
    robustness_figure(rows(subsets=1, conditions=1), tmp_path / "table.png", classes=8)
    assert "\u00b1 SD\nover seeds" not in texts(drawn[1])


def test_scores_stand_on_axes_of_per_cents_as_in_the_tables(tmp_path: Path, drawn: list[Figure]) -> None:
    robustness_figure(rows(subsets=1), tmp_path / "table.png", classes=8)
    axes = drawn[0].axes[0]
    assert axes.get_xlabel() == "UAR (%)"
    assert axes.xaxis.get_major_formatter()(0.2, 0) == "20"


def test_a_place_that_stays_empty_says_why(tmp_path: Path, drawn: list[Figure]) -> None:
    table = [row for row in rows(subsets=2) if (row.modalities, row.condition) != (SUBSETS[0], "clean")]
    robustness_figure(table, tmp_path / "table.png", classes=8)
    heights = [np.asarray(line.get_ydata())[0] for line in drawn[0].axes[0].lines if line.get_marker() == "o"]
    assert sorted(heights) == list(range(7))
    blank = [text.get_position()[1] for text in drawn[0].axes[0].texts if text.get_text() == "unchanged"]
    assert blank == [7]  # clean, which appears last
    assert not drawn[0].axes[1].texts


def test_an_empty_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the robustness table is empty"):
        robustness_figure([], tmp_path / "table.png", classes=8)


def test_a_solved_head_has_no_curve_but_the_scores_of_its_runs(tmp_path: Path, drawn: list[Figure]) -> None:
    runs = [RunHistory(fold, seed, History([0.02], [1.5], [0.1 * fold])) for fold in (1, 2, 4) for seed in range(2)]
    training_curves_figure(runs, tmp_path / "curves.png", classes=8)
    (axes,) = drawn[0].axes
    dots = {tuple(np.asarray(line.get_xdata())): line for line in axes.lines if line.get_marker() == "o"}
    np.testing.assert_allclose(sorted(dots), [[0.1, 0.1], [0.2, 0.2], [0.4, 0.4]])
    heights = [np.asarray(line.get_ydata()) for line in dots.values()]
    assert all(first != second for first, second in heights)  # runs that agree do not hide each other
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fold 1", "fold 2", "fold 4"]
    shown = " ".join(texts(drawn[0]))
    assert "solved in closed form" in shown
    assert "mean 23.3 %, SD over seeds 0.0" in shown
    assert "training 0.02, validation 1.50 nats" in shown


def test_one_epoch_that_continues_a_run_is_a_curve(tmp_path: Path, drawn: list[Figure]) -> None:
    training_curves_figure([replace(history(1, 1)[0], start_uar=0.3)], tmp_path / "curves.png", classes=8)
    assert len(drawn[0].axes) == 2


def clips(speakers: int, sexes: tuple[str, ...] = ("male", "female")) -> tuple[Any, Any, Any, Any]:
    """Labels, their names, speakers and sexes of 8 clips per speaker."""
    names = np.repeat([str(number + 1) for number in range(speakers)], 8)
    of = np.repeat([sexes[number % len(sexes)] for number in range(speakers)], 8)
    return np.tile(np.arange(8), speakers), LABELS, names, of


def placed(count: int, spaces: tuple[str, ...] = ("audio", "fused")) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(2)
    return {method: {name: rng.normal(size=(count, 2)) for name in spaces} for method in ("PCA", "t-SNE")}


def points(axes: Any) -> np.ndarray:
    return np.concatenate([np.asarray(part.get_offsets()) for part in axes.collections])


def test_every_clip_stands_in_every_panel_of_its_space(tmp_path: Path, drawn: list[Figure]) -> None:
    where = placed(40)
    features_figure(where, *clips(5), tmp_path / "f.png", "40 clips", shares={"audio": (0.25, 0.125)})
    panels = drawn[0].axes
    assert len(panels) == 8
    order = [("PCA", "audio"), ("t-SNE", "audio"), ("PCA", "audio"), ("t-SNE", "audio"), ("PCA", "fused")]
    for axes, (method, space) in zip(panels, order, strict=False):
        np.testing.assert_allclose(
            np.sort(points(axes), axis=0), np.sort(where[method][space], axis=0), err_msg=f"{method} {space}"
        )
    assert panels[0].get_xlabel() == "PC 1 (25 % of variance)"
    assert panels[0].get_ylabel() == "PC 2 (12 % of variance)"
    assert panels[4].get_xlabel() == "PC 1"
    assert not len(panels[1].get_xticks())
    assert {*LABELS, "1 (male)", "2 (female)", "40 clips", "PCA, by speaker"} <= set(texts(drawn[0]))


def test_speakers_that_have_no_colour_share_one_and_lie_below(tmp_path: Path, drawn: list[Figure]) -> None:
    features_figure(placed(192, ("audio",)), *clips(24), tmp_path / "f.png", "192 clips")
    labels = [text.get_text() for text in drawn[0].legends[1].get_texts()]
    assert labels == [*(f"{n} (female)" for n in (2, 4, 6, 8)), *(f"{n} (male)" for n in (1, 3, 5, 7)), "16 others"]
    grey, *coloured = drawn[0].axes[2].collections
    assert len(np.asarray(grey.get_offsets())) == 128
    assert [len(np.asarray(part.get_offsets())) for part in coloured] == [8] * 8
    styles = {tuple(np.asarray(part.get_facecolor())[0]) for part in coloured}
    assert len(styles) == 8


def test_speakers_of_unknown_sex_have_colours_too(tmp_path: Path, drawn: list[Figure]) -> None:
    features_figure(placed(24, ("audio",)), *clips(3, ("",)), tmp_path / "f.png", "24 clips")
    assert [text.get_text() for text in drawn[0].legends[1].get_texts()] == ["1", "2", "3"]


def test_clips_without_a_modality_have_no_place_in_it(tmp_path: Path, drawn: list[Figure]) -> None:
    where = placed(16)
    for method in where.values():
        method["audio"][:6] = np.nan
        method["fused"][:] = np.nan
    features_figure(where, *clips(2), tmp_path / "f.png", "16 clips")
    assert [len(points(axes)) for axes in drawn[0].axes] == [10] * 4 + [0] * 4
    assert texts(drawn[0]).count("no clip has it") == 4
    with pytest.raises(ValueError, match="no clips to draw"):
        features_figure(placed(0), *clips(0), tmp_path / "none.png", "")


def layers(interval: bool = True) -> list[LayerScore]:
    several = [("audio", layer) for layer in range(5)] + [("text", layer) for layer in range(3)] + [("face", 0)]
    low, high = (0.4, 0.6) if interval else (None, None)
    return [LayerScore(name, "tiny", layer, 0.5 + 0.01 * layer, low, high, 24, 1440) for name, layer in several]


def test_layers_are_lines_and_a_single_one_stands_beside_them(tmp_path: Path, drawn: list[Figure]) -> None:
    layers_figure(layers(), tmp_path / "l.png", "a probe\nluna5", classes=8)
    (axes,) = drawn[0].axes
    curves = {str(line.get_label()): np.asarray(line.get_xdata()) for line in axes.lines if line.get_marker() != "None"}
    np.testing.assert_allclose(curves["audio"], np.arange(5) - 0.05)
    np.testing.assert_allclose(curves["text"], np.arange(3) + 0.05)
    np.testing.assert_allclose(curves["face"], [5])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2", "3", "4", "face"]
    assert len([line for line in axes.lines if list(np.asarray(line.get_ydata())) == [0.4, 0.6]]) == 9
    assert axes.get_ylabel() == "UAR on validation speakers (%)"


def test_layers_without_intervals_have_none(tmp_path: Path, drawn: list[Figure]) -> None:
    layers_figure(layers(interval=False), tmp_path / "l.png", "a probe", classes=8)
    assert len(drawn[0].axes[0].lines) == 4  # chance and three modalities
    with pytest.raises(ValueError, match="nothing was probed"):
        layers_figure([], tmp_path / "none.png", "", classes=8)


def sweep(conditions: int) -> list[Scored]:
    names = ("mlp", "linear")
    return [
        Scored(f"run-{n}", {"head": names[n % 2], "optim.lr": str(n // 2)}, 0.4 + 0.005 * n, 0.3, 0.7)
        for n in range(conditions)
    ]


@pytest.mark.parametrize("note", ["", "encoders: small, untrained"])
def test_figures_have_a_width_of_print_and_nothing_overlaps(tmp_path: Path, drawn: list[Figure], note: str) -> None:
    confusion_matrix_figure(evaluation(), tmp_path / "a.png", note)
    training_curves_figure(history(), tmp_path / "b.png", note, classes=8)
    training_curves_figure(history(6, 1), tmp_path / "c.png", note, classes=8)
    robustness_figure(rows(), tmp_path / "d.png", note, classes=8)
    robustness_figure(rows(subsets=2), tmp_path / "e.png", note, classes=8)
    layers_figure(layers(), tmp_path / "f.png", "logistic regression\n24 speakers", note, classes=8)
    features_figure(placed(192), *clips(24), tmp_path / "g.png", "192 clips", note)
    sweep_figure(sweep(60), tmp_path / "h.png", note, classes=8)
    for figure, name in zip(drawn, "abcdefgh", strict=True):
        height, width = matplotlib.image.imread(tmp_path / f"{name}.png").shape[:2]
        assert width == round((FULL_WIDTH_INCHES if name in "gh" else COLUMN_WIDTH_INCHES) * DOTS_PER_INCH)
        assert height < 9 * DOTS_PER_INCH
        others = [*figure.legends, *figure.texts]
        for axes in figure.axes:
            box = axes.get_tightbbox()
            assert box is not None
            assert (box.x0 >= -1, box.x1 <= width + 1, box.y0 >= -1) == (True, True, True), name
            for other in others:
                assert not box.overlaps(other.get_window_extent()), (name, other)
        for number, one in enumerate(others):
            for other in others[:number]:
                assert not one.get_window_extent().overlaps(other.get_window_extent()), (name, one, other)
        boxes = [box for axes in figure.axes if (box := axes.get_tightbbox())]
        assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n]), name
        sizes = [float(text.get_fontsize()) for text in figure.findobj(mpl.text.Text) if text.get_text()]
        assert min(sizes) >= 6, name


def test_drawing_leaves_no_global_state(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    confusion_matrix_figure(evaluation(), tmp_path / "a.png")
    assert dict(mpl.rcParams) == before
    drawing = [
        name for name in sys.modules if name.startswith("fuse.") and name.endswith(("figure", "figures", "style"))
    ]
    assert len(drawing) >= 7
    assert not [name for name in drawing if "pyplot" in vars(sys.modules[name])]


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        robustness_figure(rows(subsets=2), tmp_path / name, classes=8)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def named(label_names: tuple[str, ...]) -> Predictions:
    """Four clips of each label, half of them right."""
    classes = len(label_names)
    labels = np.tile(np.arange(classes), 4)
    shown = np.eye(classes)[np.where(np.arange(4 * classes) % 2, labels, (labels + 1) % classes)]
    ids = [f"clip-{index}" for index in range(len(labels))]
    shared: dict[str, Any] = {"protocol": "p", "fold": 0, "seed": 0, "split": "test", "condition": "clean"}
    people = [str(index // classes) for index in range(len(labels))]
    return Predictions.of(ids, people, people, labels, shown, modalities="audio", label_names=label_names, **shared)


@pytest.mark.parametrize("classes", [2, 3, 9, 10, 20, 21, 30, 31, 90])
def test_a_matrix_of_any_size_is_readable(tmp_path: Path, drawn: list[Figure], classes: int) -> None:
    """Once it had eight rows, whatever the labels."""
    names = tuple(f"an emotion called {number}"[-18:] for number in range(classes))
    confusion_matrix_figure(named(names), tmp_path / "matrix.png")
    axes = drawn[0].axes[0]
    written = [text for text in axes.texts if text.get_text()]
    ticks = axes.get_yticklabels()
    assert [len(axes.get_xticklabels()), len(ticks)] == [min(classes, 60 if classes < 60 else 45)] * 2
    assert (len(written) > 0) == (classes <= 30)
    boxes = [text.get_window_extent() for text in ticks]
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))
    cell_points = axes.get_window_extent().width / classes / DOTS_PER_INCH * 72
    for text in written:
        assert text.get_window_extent().width / DOTS_PER_INCH * 72 < cell_points
    assert min(float(text.get_fontsize()) for text in drawn[0].findobj(mpl.text.Text) if text.get_text()) >= 6


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("χαρά", "страх", "სიხარული", "غضب"), ["χαρά", "страх", "სიხარული", "غضب"]),
        (("喜び", "angst", "悲しみ"), ["#1", "angst", "#3"]),
        (("between $ and $", "calm"), [r"between \$ and \$", "calm"]),
        (("a very long emotion indeed", "calm"), ["a very long emo\u2026", "calm"]),
        (("a very long emotion indeed", "a very long emotion"), ["#1", "#2"]),
    ],
)
def test_labels_are_drawn_as_far_as_the_font_goes(
    names: tuple[str, ...], shown: list[str], tmp_path: Path, drawn: list[Figure]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "Glyph 21916 missing from font"
        confusion_matrix_figure(named(names), tmp_path / "matrix.png")
        features_figure(placed(8, ("audio",)), np.arange(8) % len(names), names, *clips(1)[2:], tmp_path / "f.png", "")
    assert [text.get_text() for text in drawn[0].axes[0].get_yticklabels()] == shown
    assert set(shown) <= set(texts(drawn[1]))


def test_numbers_for_labels_are_explained_in_words() -> None:
    said = "In figures, numbers stand for labels: #1 喜び, #3 悲しみ."
    assert numbered_labels(("喜び", "angst", "悲しみ")) == said
    assert numbered_labels(("χαρά", "angst")) == ""


def test_chance_follows_from_the_number_of_labels(tmp_path: Path, drawn: list[Figure]) -> None:
    """Once it was 12.5 % whatever the labels."""
    training_curves_figure(history(2), tmp_path / "a.png", classes=3)
    training_curves_figure(history(2, 1), tmp_path / "b.png", classes=3)
    robustness_figure(rows(subsets=2), tmp_path / "c.png", classes=3)
    sweep_figure(sweep(6), tmp_path / "d.png", classes=3)
    layers_figure(layers(), tmp_path / "e.png", "a probe", classes=3)
    curve = [Point("clean", count, 0.5, 0.4, 0.6, 0.0, 1, 24) for count in ("0", "5", "all")]
    enrolment_figure(curve, tmp_path / "f.png", classes=3)
    assert len(drawn) == 6
    for figure in drawn:
        lines = [line for axes in figure.axes for line in axes.lines]
        ends = [(*np.asarray(line.get_xdata()), *np.asarray(line.get_ydata())) for line in lines]
        assert any(values.count(1 / 3) == 2 for values in ends)


def test_thirty_labels_each_have_a_look_of_their_own(tmp_path: Path, drawn: list[Figure]) -> None:
    names = tuple(f"label {number}" for number in range(40))
    labels_N = np.arange(80) % 40
    _, _, people, sexes = clips(10)
    features_figure(placed(80, ("audio",)), labels_N, names, people, sexes, tmp_path / "f.png", "80 clips")
    points_of = drawn[0].axes[0].collections
    looks = {
        (*np.asarray(one.get_facecolor())[0], np.asarray(one.get_paths()[0].vertices).tobytes())
        for one in points_of[1:]
    }
    assert len(looks) == len(points_of) - 1 == 32
    assert len(np.asarray(points_of[0].get_offsets())) == 16  # the last eight share one look
