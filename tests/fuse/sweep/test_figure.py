from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from fuse.sweep.figure import Row, sweep_figure


def grid(factors: dict[str, tuple[str, ...]], interval: bool = True) -> list[Row]:
    """Every configuration of a grid; the n-th scores 0.3 + 0.005 n."""
    made = []
    for number, values in enumerate(itertools.product(*factors.values())):
        uar = 0.3 + 0.005 * number
        low, high = (uar - 0.1, uar + 0.1) if interval else (None, None)
        made.append(Row(f"run-{number}", dict(zip(factors, values, strict=True)), uar, low, high))
    return made


def rows_of(figure: Figure, panel: int = 0) -> list[str]:
    return [label.get_text() for label in figure.axes[panel].get_yticklabels()]


def scores_of(figure: Figure) -> list[tuple[float, float]]:
    """(place, score) of the configurations."""
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    return [(float(np.ravel(line.get_ydata())[0]), float(np.ravel(line.get_xdata())[0])) for line in dots]


def test_configurations_stand_by_score_with_their_intervals(tmp_path: Path, drawn: list[Figure]) -> None:
    sweep_figure(grid({"head": ("mlp", "linear"), "optim.lr": ("0.1", "0.01")}), tmp_path / "s.png", classes=8)
    assert [place for place, _ in scores_of(drawn[0])] == [0, 1, 2, 3]
    np.testing.assert_allclose([score for _, score in scores_of(drawn[0])], [0.315, 0.31, 0.305, 0.3])
    bars = [np.ravel(line.get_xdata()) for line in drawn[0].axes[0].lines if line.get_linewidth() == 0.9]
    np.testing.assert_allclose(bars[0], [0.215, 0.415])
    assert len(bars) == 4
    # The names of the factors, then each configuration's values, the best first.
    assert [row.split() for row in rows_of(drawn[0])] == [
        ["head", "lr"],
        ["linear", "0.01"],
        ["linear", "0.1"],
        ["mlp", "0.01"],
        ["mlp", "0.1"],
    ]


def test_main_effects_are_means_by_value_numbers_in_order(tmp_path: Path, drawn: list[Figure]) -> None:
    sweep_figure(grid({"head": ("mlp", "linear"), "optim.lr": ("0.1", "1e-3", "0.01")}), tmp_path / "s.png", classes=8)
    assert rows_of(drawn[0], 1) == ["head", "mlp", "linear", "lr", "1e-3", "0.01", "0.1"]
    means = [line for line in drawn[0].axes[1].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(
        [np.ravel(line.get_xdata())[0] for line in means], [0.305, 0.32, 0.3125, 0.3175, 0.3075], atol=1e-9
    )
    assert [np.ravel(line.get_ydata())[0] for line in means] == [0, 1, 3, 4, 5]
    # Numbers have an order that a line may follow; heads have none.
    joined = [list(np.ravel(line.get_ydata())) for line in drawn[0].axes[1].lines if line.get_linewidth() == 0.8]
    assert [places for places in joined if places[0] > 1] == [[3, 4], [4, 5]]


def test_a_factor_that_does_not_vary_is_not_shown(tmp_path: Path, drawn: list[Figure]) -> None:
    sweep_figure(
        grid({"head": ("mlp",), "hidden": ("64", "256"), "dropout": ("0", "0.1")}), tmp_path / "s.png", classes=8
    )
    assert "mlp" not in " ".join(rows_of(drawn[0]) + rows_of(drawn[0], 1))


def test_one_factor_needs_one_panel(tmp_path: Path, drawn: list[Figure]) -> None:
    sweep_figure(grid({"modalities": ("audio", "face", "audio+face")}), tmp_path / "s.png", classes=8)
    assert len(drawn[0].axes) == 1
    assert drawn[0].get_figwidth() == 3.5


@pytest.mark.parametrize("count", [30, 31, 60])
def test_long_sweeps_show_both_ends_and_say_so(tmp_path: Path, drawn: list[Figure], count: int) -> None:
    numbers = tuple(map(str, range(count)))
    sweep_figure(
        grid({"a": numbers[: count // 2], "b": ("x", "y")})[:count] + grid({"a": ("z",)}), tmp_path / "s.png", classes=8
    )
    total = 2 * (count // 2) + 1
    shown = scores_of(drawn[0])
    if total <= 30:
        assert len(shown) == total
        return
    assert len(shown) == 20
    assert [place for place, _ in shown] == [*range(15), *range(16, 21)]
    assert shown[-1][1] == pytest.approx(0.3)
    assert rows_of(drawn[0])[-1].strip() == f"({total - 20} more)"
    assert f"{total} configurations, the best 15 and worst 5" in drawn[0].axes[0].get_title(loc="left")


def test_without_intervals_none_is_promised(tmp_path: Path, drawn: list[Figure]) -> None:
    sweep_figure(grid({"head": ("mlp", "linear")}, interval=False), tmp_path / "s.png", score="test UAR", classes=8)
    assert "interval" not in drawn[0].axes[0].get_title(loc="left")
    assert len(drawn[0].axes[0].lines) == 3  # chance and two scores
    assert drawn[0].axes[0].get_xlabel() == "test UAR (%)"


def test_configurations_that_differ_in_no_factor_go_by_name(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = [Row(name, {}, 0.5, None, None) for name in ("first", "second")]
    sweep_figure(rows, tmp_path / "s.png", "a note", classes=8)
    assert [row.strip() for row in rows_of(drawn[0])] == ["configuration", "first", "second"]
    assert "a note" in [text.get_text() for text in drawn[0].findobj(mpl.text.Text)]
    with pytest.raises(ValueError, match="no finished runs"):
        sweep_figure([], tmp_path / "none.png", classes=8)


def test_factors_of_one_name_keep_their_sections(tmp_path: Path, drawn: list[Figure]) -> None:
    sweep_figure(grid({"optim.p": ("1", "2"), "augment.p": ("1", "2")}), tmp_path / "s.png", classes=8)
    assert rows_of(drawn[0])[0].split() == ["optim.p", "augment.p"]
