"""The charts of a page, as Altair makes them: specifications in JSON, which its JavaScript draws in the browser.

They hold no colour of letters or lines: the page gives those that suit light or dark. What can be switched is a
parameter bound to a field of the page by its id, so that one field switches several charts. Colours are those of Okabe
and Ito that can be told from white and from black; every colour comes with a shape or a place of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from fuse.runs.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION

Row = Mapping[str, Any]
Spec = dict[str, Any]
COLOURS = [BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, GREY]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-left"]
HEIGHT = 220
# Of a row of bars or cells, so that names beside it can be read.
ROW_HEIGHT = 22
# Wider ones would leave charts no room on a phone.
LABEL_PIXELS = 130
LABELS_WRITTEN = 20
PERCENT = ".0%"
NAMED = {"labelLimit": LABEL_PIXELS, "title": None}


def level_curve(rows: Sequence[Row], chance: float, runs: Sequence[str], *, joined: bool = True) -> Spec:
    """UAR by level of one kind of condition; a line per run where they are levels, a band where there are intervals."""
    order = [row["level"] for row in sorted(rows, key=lambda row: row["order"])]
    base = _chart(rows, "modalities").encode(
        x=alt.X("level:N", sort=list(dict.fromkeys(order)), title=None, axis=alt.Axis(labelAngle=-30)),
        color=_by_run(runs, rows),
        tooltip=_tips(rows),
    )
    uar = alt.Y("uar:Q", title="UAR", axis=alt.Axis(format=PERCENT), scale=alt.Scale(domain=[0, 1]))
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q"), y2="high:Q")
    line = base.mark_line(strokeWidth=2).encode(y=uar)
    points = base.mark_point(filled=True, size=60, opacity=1).encode(y=uar, shape=_shape_of(runs, rows))
    parts = (
        [band, line, points] if joined else [base.mark_rule(strokeWidth=2).encode(alt.Y("low:Q"), y2="high:Q"), points]
    )
    return _spec(alt.layer(*parts, _rule(chance, "y")), HEIGHT)


def joint_grid(rows: Sequence[Row]) -> Spec:
    """UAR under noise and occlusion at once, as a map."""
    base = _chart(rows, "modalities", "run").encode(
        x=alt.X("sound:N", sort=_as_given(rows, "sound"), axis=alt.Axis(labelAngle=-30, **NAMED)),
        y=alt.Y("picture:N", sort=_as_given(rows, "picture"), axis=alt.Axis(**NAMED)),
        tooltip=_tips(rows),
    )
    return _map(base, "uar", "UAR", len(_as_given(rows, "picture")), 2 * ROW_HEIGHT, write=True)


def confusion_matrix(rows: Sequence[Row], label_names: Sequence[str]) -> Spec:
    """Which label was taken for which, of one run under one condition; `counts` of a row: clips by predicted label."""
    names = list(label_names)
    chart = _unfolded(_chart(rows, "condition", "run"), "counts", "count", "predicted", names)
    base = chart.transform_calculate(share="datum.count / datum.clips").transform_filter("datum.count > 0")
    base = base.encode(
        x=alt.X("predicted:N", sort=names, scale=alt.Scale(domain=names), title="predicted", axis=_tilted()),
        y=alt.Y("true:N", sort=names, scale=alt.Scale(domain=names), title="true", axis=_written()),
        tooltip=["true:N", "predicted:N", "count:Q", alt.Tooltip("share:Q", format=".1%"), "run:N", "condition:N"],
    )
    write = len(names) <= LABELS_WRITTEN
    return _map(base, "share", "share of the true label", len(names), 34 if write else 14, write=write)


def reliability(rows: Sequence[Row], runs: Sequence[str]) -> Spec:
    """How often answers of about equal confidence are right, against the diagonal, where both are alike."""
    axis, scale = alt.Axis(format=PERCENT, tickCount=6), alt.Scale(domain=[0, 1])
    base = _chart(rows, "condition").encode(
        x=alt.X("confidence:Q", title="confidence", axis=axis, scale=scale),
        y=alt.Y("accuracy:Q", title="share that is right", axis=axis, scale=scale),
        color=_by_run(runs, rows),
        tooltip=_tips(rows),
    )
    points = base.mark_point(filled=True, opacity=0.85).encode(
        shape=_shape_of(runs, rows), size=alt.Size("answers:Q", legend=None, scale=alt.Scale(range=[20, 300]))
    )
    ends = alt.Data(values=[{"both": 0}, {"both": 1}])
    diagonal = alt.Chart(ends).mark_line(strokeDash=[4, 4], color=GREY).encode(x="both:Q", y="both:Q")
    return _spec(alt.layer(diagonal, base.mark_line(strokeWidth=1), points), HEIGHT + 60)


def dots(rows: Sequence[Row], field: str, title: str, runs: Sequence[str]) -> Spec:
    """A value by condition and run, as dots, all modalities given."""
    chart = alt.Chart(alt.Data(values=list(rows))).mark_point(filled=True, size=70, opacity=0.9)
    scale = alt.Scale(zero=True)
    encoded = chart.encode(
        x=alt.X(f"{field}:Q", title=title, axis=alt.Axis(format=PERCENT, tickCount=6), scale=scale),
        y=alt.Y("condition:N", sort=_as_given(rows, "condition"), axis=alt.Axis(grid=True, **NAMED)),
        color=_by_run(runs, rows),
        shape=_shape_of(runs, rows),
        tooltip=_tips(rows),
    )
    return _spec(encoded, ROW_HEIGHT * len(_as_given(rows, "condition")))


def speaker_bars(rows: Sequence[Row], chance: float, runs: Sequence[str]) -> Spec:
    """Each speaker's UAR under one condition, a bar per run."""
    speakers = _as_given(sorted(rows, key=lambda row: row["order"]), "speaker")
    base = _chart(rows, "condition").encode(
        x=alt.X("uar:Q", title="UAR", axis=alt.Axis(format=PERCENT, tickCount=6), scale=alt.Scale(domain=[0, 1])),
        y=alt.Y("speaker:N", sort=speakers, title="speaker", axis=alt.Axis(labelLimit=LABEL_PIXELS)),
        color=_by_run(runs, rows),
        tooltip=_tips(rows),
    )
    bars = base.mark_bar().encode(yOffset=alt.YOffset("run:N", sort=list(runs)))
    height = max(ROW_HEIGHT, 10 * len(runs)) * len(speakers)
    return _spec(alt.layer(bars, _rule(chance, "x")), height)


def layer_curves(rows: Sequence[Row], chance: float) -> Spec:
    """What each layer knows by itself, a line per modality."""
    modalities = _as_given(rows, "modality")
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0)),
        color=alt.Color("modality:N", scale=alt.Scale(domain=modalities, range=COLOURS), legend=_legend()),
        tooltip=_tips(rows),
    )
    uar = alt.Y("uar:Q", title="validation UAR", axis=alt.Axis(format=PERCENT), scale=alt.Scale(domain=[0, 1]))
    shape = alt.Shape("modality:N", scale=alt.Scale(domain=modalities, range=SHAPES), legend=_legend())
    band = base.mark_area(opacity=0.2).encode(y="low:Q", y2="high:Q")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(y=uar, shape=shape)
    return _spec(alt.layer(band, base.mark_line().encode(y=uar), points, _rule(chance, "y")), HEIGHT)


def feature_map(rows: Sequence[Row], spaces: Sequence[str], methods: Sequence[str]) -> Spec:
    """Clips on two axes, one feature space and one method at a time, coloured by label or by speaker.

    Args:
        rows: of clips; `places` of each: x and y by every method in every space, methods first; null where it has none.
        spaces: names of the feature spaces; `methods`: of the ways to draw them.
    """
    axis = alt.Axis(labels=False, ticks=False, title=None, grid=False)
    chart = alt.Chart(alt.Data(values=list(rows))).add_params(
        _bound("space", spaces[0]), _bound("method", methods[0]), _bound("colouring", "label")
    )
    at = f"2 * (indexof({_listed(spaces)}, space) * {len(methods)} + indexof({_listed(methods)}, method))"
    shown = chart.transform_calculate(
        x=f"datum.places[{at}]",
        y=f"datum.places[{at} + 1]",
        shown="colouring === 'speaker' ? datum.speaker : datum.label",
    ).transform_filter("isValid(datum.x)")
    scale = alt.Scale(zero=False, nice=False, padding=8)
    legend = alt.Legend(orient="bottom", title=None, columns=4, symbolLimit=32, labelLimit=90)
    points = shown.mark_point(filled=True, size=40, opacity=0.85).encode(
        x=alt.X("x:Q", axis=axis, scale=scale),
        y=alt.Y("y:Q", axis=axis, scale=scale),
        color=alt.Color("shown:N", scale=alt.Scale(range=COLOURS), legend=legend),
        shape=alt.Shape("shown:N", scale=alt.Scale(range=[*SHAPES, "triangle-right"]), legend=legend),
        tooltip=[alt.Tooltip(f"{name}:N") for name in ("clip", "label", "speaker")],
    )
    return _spec(points, 420)


def clip_probabilities(rows: Sequence[Row], label_names: Sequence[str]) -> Spec:
    """What a run says of a chosen clip under every condition; `probabilities` of a row: in the order of the labels."""
    names, conditions = list(label_names), _as_given(rows, "condition")
    chart = _unfolded(_chart(rows, "clip", "run"), "probabilities", "probability", "label", names)
    base = chart.encode(
        x=alt.X("label:N", sort=names, scale=alt.Scale(domain=names), axis=alt.Axis(labelAngle=-40, **NAMED)),
        y=alt.Y("condition:N", sort=conditions, axis=alt.Axis(**NAMED)),
        tooltip=["condition:N", "label:N", alt.Tooltip("probability:Q", format=".1%"), "run:N"],
    )
    return _map(base, "probability", "probability", len(conditions), 28, write=len(names) <= LABELS_WRITTEN)


def clip_contributions(rows: Sequence[Row]) -> Spec:
    """What each modality added to the probability of the answer, or took from it, under every condition."""
    modalities, conditions = _as_given(rows, "modality"), _as_given(rows, "condition")
    colour = alt.Scale(domain=modalities, range=COLOURS)
    base = _chart(rows, "clip", "run").encode(
        x=alt.X("value:Q", title="added to the probability", axis=alt.Axis(format="+.0%", tickCount=4)),
        y=alt.Y("condition:N", sort=conditions, axis=alt.Axis(**NAMED)),
        color=alt.Color("modality:N", scale=colour, legend=_legend()),
        tooltip=_tips(rows),
    )
    bars = base.mark_bar().encode(yOffset=alt.YOffset("modality:N", sort=modalities))
    height = max(30, 11 * len(modalities)) * len(conditions)
    return _spec(alt.layer(bars, _rule(0, "x")), height)


def _chart(rows: Sequence[Row], *switched: str) -> alt.Chart:
    """A chart of those rows that the page's fields of these names choose; first, what the first row has."""
    chart = alt.Chart(alt.Data(values=list(rows)))
    for name in switched:
        chart = chart.add_params(_bound(name, rows[0][name])).transform_filter(f"datum.{name} === {name}")
    return chart


def _unfolded(chart: alt.Chart, values: str, value: str, label: str, names: Sequence[str]) -> alt.Chart:
    """A row per label from one that holds a list of values, in the order of the labels: a fifth of the size."""
    labelled = chart.transform_calculate(names=_listed(names))
    return labelled.transform_flatten([values, "names"], as_=[value, label])


def _listed(names: Sequence[str]) -> str:
    """As an expression of Vega."""
    return json.dumps(list(names))


def _bound(name: str, value: object) -> alt.Parameter:
    return alt.param(name=name, value=value, bind=alt.BindDirect(element=f"#{name}", event="input"))


def _map(base: alt.Chart, field: str, title: str, rows: int, height: int, *, write: bool) -> Spec:
    """Cells from pale to dark blue, with per cents in them where there is room."""
    legend = alt.Legend(format=PERCENT, title=title, orient="bottom", gradientLength=160)
    colour = alt.Color(f"{field}:Q", scale=alt.Scale(domain=[0, 1], scheme="blues"), legend=legend)
    layers = [base.mark_rect().encode(color=colour)]
    if write:
        # The map turns dark half way.
        ink = alt.condition(f"datum.{field} > 0.55", alt.value("white"), alt.value("black"))
        # On a phone a cell has room for three digits and for nothing else.
        text = base.transform_calculate(percent=f"100 * datum.{field}").mark_text(fontSize=10)
        layers.append(text.encode(text=alt.Text("percent:Q", format=".0f"), color=ink))
    return _spec(alt.layer(*layers), max(2, rows) * height)


def _by_run(runs: Sequence[str], rows: Sequence[Row]) -> alt.Color:
    return alt.Color("run:N", scale=alt.Scale(domain=list(runs), range=COLOURS), legend=_run_legend(runs, rows))


def _shape_of(runs: Sequence[str], rows: Sequence[Row]) -> alt.Shape:
    return alt.Shape("run:N", scale=alt.Scale(domain=list(runs), range=SHAPES), legend=_run_legend(runs, rows))


def _run_legend(runs: Sequence[str], rows: Sequence[Row]) -> alt.Legend | None:
    """Of those runs that are there; a run keeps its colour in every chart. None where the page is of one run."""
    there = {row["run"] for row in rows}
    return _legend(values=[name for name in runs if name in there]) if len(runs) > 1 else None


def _legend(**options: Any) -> alt.Legend:
    # Areas are pale; what stands for their colour need not be.
    return alt.Legend(orient="bottom", title=None, columns=2, labelLimit=220, symbolOpacity=1, **options)


def _tilted() -> alt.Axis:
    return alt.Axis(labelAngle=-40, labelLimit=90, labelOverlap=False)


def _written() -> alt.Axis:
    return alt.Axis(labelLimit=90)


def _rule(value: float, channel: str) -> alt.Chart:
    line = alt.Chart(alt.Data(values=[{"at": value}])).mark_rule(strokeDash=[2, 3], color=GREY)
    return line.encode(**{channel: "at:Q"})


def _as_given(rows: Sequence[Row], field: str) -> list[Any]:
    """Values in the order in which they first appear, the mildest first; clean stands first of all."""
    return sorted(dict.fromkeys(row[field] for row in rows), key=lambda one: one != "clean")


def _tips(rows: Sequence[Row]) -> list[alt.Tooltip]:
    """What a reader sees who points at something: all of its row, shares as per cents."""
    kinds = {name: "Q" if isinstance(value, (int, float)) else "N" for name, value in rows[0].items()}
    shares = {name for name, value in rows[0].items() if isinstance(value, float)}
    left_out = {"order"} | {name for name in ("low", "high") if rows[0].get(name, 0) is None}
    return [
        alt.Tooltip(f"{name}:{kind}", **({"format": ".1%"} if name in shares else {}))
        for name, kind in kinds.items()
        if name not in left_out
    ]


def _spec(chart: Any, height: int) -> Spec:
    spec: Spec = chart.properties(width="container", height=height).to_dict()
    # The page says how charts look.
    return {name: value for name, value in spec.items() if name not in ("config", "$schema")} | {
        "$schema": spec["$schema"],
        "autosize": {"type": "fit-x", "contains": "padding"},
    }
