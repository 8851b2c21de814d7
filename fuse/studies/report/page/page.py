"""The page: runs as one HTML file that asks nobody for anything. Jinja2 escapes whatever is put into it."""

from __future__ import annotations

import base64
import io
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from cache.files.atomic import write_atomic
from cache.files.commands import make_command, setting
from fuse.runs.folder import CONFIG, TRAINING_CURVES
from fuse.scores.metrics import uar_in_words
from fuse.studies.report.page import charts
from fuse.studies.report.page.clips import Chosen
from fuse.studies.report.page.evidence import (
    OTHER_KINDS,
    Row,
    Score,
    all_conditions,
    all_subsets,
    confusion_rows,
    family_rows,
    joint_rows,
    reliability_rows,
    scores_of,
    speaker_rows,
    summary_row,
)
from fuse.studies.report.page.media import Shown
from fuse.studies.report.page.subjects import Subject
from fuse.studies.report.page.tables import SHORT, robustness_columns, rule_columns, table_html

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE, STYLE, SCRIPT, SORTING = "report.html.j2", "report.css", "report.js", "sortable.js"
PICTURE_PIXELS = 1000
PACKAGES = ("torch", "transformers", "numpy", "scikit-learn", "zarr", "h5py", "altair", "great-tables")


@dataclass(frozen=True)
class Figure:
    """A chart, or a picture where there is no chart; `reading` says how to read it."""

    figure_id: str
    title: str
    reading: str
    spec: Mapping[str, Any] | None = None
    picture: str = ""
    is_wide: bool = False


@dataclass(frozen=True)
class Grounds:
    """What a run of stage two rests on, as `make report` computes it.

    Attributes:
        layers: a row per layer's probe.
        clips: those that the head was not trained on, a row each.
        places: by feature space and method, a place on two axes for each of them, (N, 2); NaN where a clip has none.
        provenance: by modality, how its features were made.
        note: what must be said of every number.
    """

    layers: Sequence[Row]
    clips: Sequence[Row]
    places: Mapping[str, Mapping[str, NDArray[np.float64]]]
    provenance: Mapping[str, Mapping[str, Any]]
    note: str


@dataclass(frozen=True)
class ClipBrowser:
    """Clips of the first run: who they are, what they look and sound like, and what runs say of them."""

    chosen: Sequence[Chosen] = ()
    probabilities: Sequence[Row] = ()
    contributions: Sequence[Row] = ()
    statements: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, Shown] = field(default_factory=dict)
    heard: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def write_page(path: Path, subjects: Sequence[Subject], grounds: Mapping[str, Grounds], browser: ClipBrowser) -> None:
    """Write the file, complete or not at all. `grounds`: by a run's name, of those that have some."""
    scores = {one.name: scores_of(one) for one in subjects}
    whole = {one.name: _whole(one, scores[one.name]) for one in subjects}
    first = subjects[0]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template(TEMPLATE).render(
        runs=[one.name for one in subjects],
        caveats=_caveats(subjects),
        subjects=subjects,
        conditions=all_conditions(subjects),
        subsets=all_subsets(subjects),
        summary=table_html([summary_row(one, whole[one.name]) for one in subjects], "summary-table"),
        tables=_robustness_tables(subjects),
        uar_words=uar_in_words(len(first.test.label_names)),
        curves=list(_curves(subjects, scores)),
        condition_figures=list(_condition_figures(subjects, scores)),
        clip_figures=list(_clip_figures(browser, first.test.label_names)),
        ground_figures=list(_ground_figures(subjects, grounds)),
        spaces=_spaces(grounds),
        browser=browser,
        grounds=grounds,
        provenance={name: _provenance(name, one) for name, one in grounds.items()},
        commands=[
            *map(_command, subjects),
            make_command("report", [setting("run", [str(one.folder) for one in subjects])]),
        ],
        encoders=list(_encoders(grounds)),
        versions={"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        style=_asset(STYLE),
        scripts=[_javascript(), _asset(SORTING), _asset(SCRIPT)],
    )
    write_atomic(path, text)


def _robustness_tables(subjects: Sequence[Subject]) -> dict[str, Markup]:
    """What fits a page, all columns, means over conditions, and rules, by id; those that there are."""
    rows, groups = [row for one in subjects for row in one.table], [row for one in subjects for row in one.groups]
    columns = {
        "robustness-table": robustness_columns(rows, SHORT),
        "robustness-columns": robustness_columns(rows),
        "robustness-groups": robustness_columns(groups),
        "robustness-rules": rule_columns([row for one in subjects for row in one.rules]),
    }
    return {table_id: table_html(shown, table_id) for table_id, shown in columns.items() if shown}


def _whole(subject: Subject, scores: Sequence[Score]) -> Score:
    """All modalities given, clean where that was tried."""
    return next(one for one in scores if (one.condition, one.modalities) == (subject.conditions[0], subject.modalities))


def _curves(subjects: Sequence[Subject], scores: Mapping[str, Sequence[Score]]) -> Iterator[Figure]:
    every = [score for one in subjects for score in scores[one.name]]
    names, chance = [one.name for one in subjects], 1 / len(subjects[0].test.label_names)
    for kind, rows in family_rows(every).items():
        ordered = kind != OTHER_KINDS
        reading = "From clean on the left to the worst on the right: the flatter, the more robust. " if ordered else ""
        yield Figure(
            f"curve-{kind.replace(' ', '-')}",
            kind,
            f"{reading}{'Shaded' if ordered else 'Upright'}: 95 % over speakers, where there are 8 or more. "
            "Dotted: chance.",
            charts.level_curve(rows, chance, names, joined=ordered),
        )
    if joint := joint_rows(every):
        reading = (
            "Each cell is the UAR, in per cent, under both at once; the first row and column are one of them alone."
        )
        yield Figure("joint-grid", "sound and picture at once", reading, charts.joint_grid(joint), is_wide=True)


def _condition_figures(subjects: Sequence[Subject], scores: Mapping[str, Sequence[Score]]) -> Iterator[Figure]:
    names, labels = [one.name for one in subjects], subjects[0].test.label_names
    confusion = [row for one in subjects for row in confusion_rows(one)]
    yield Figure(
        "confusion",
        "confusion matrix",
        "Per cents of the true label: a row adds up to 100. On the diagonal stands what was right; its mean is the "
        "UAR. Folds and seeds are summed.",
        charts.confusion_matrix(confusion, labels),
        is_wide=True,
    )
    reliable = [row for one in subjects for row in reliability_rows(one)]
    yield Figure(
        "reliability",
        "calibration",
        "On the dashed line confidence is what it says; below it the run is surer than it is right. Larger marks hold "
        "more clips.",
        charts.reliability(reliable, names),
    )
    errors = [
        score.row
        for one in subjects
        for score in scores[one.name]
        if score.modalities == one.modalities and score.condition in one.conditions
    ]
    yield Figure(
        "ece",
        "expected calibration error",
        "How far confidence is from being right, on average (15 bins): 0 is best. With few clips it is too high: "
        "compare runs on the same clips.",
        charts.dots(errors, "ece", "ECE", names),
    )
    speakers = [row for one in subjects for row in speaker_rows(one)]
    yield Figure(
        "speakers",
        "speakers",
        "A bar is one test speaker's UAR: what one person may meet. Dotted: chance.",
        charts.speaker_bars(speakers, 1 / len(labels), names),
    )


def _clip_figures(browser: ClipBrowser, label_names: Sequence[str]) -> Iterator[Figure]:
    if browser.probabilities:
        yield Figure(
            "clip-probabilities",
            "what the run says of this clip",
            "A row is a condition and adds up to 100 %; the darkest cell is the answer. Mean over seeds.",
            charts.clip_probabilities(browser.probabilities, label_names),
            is_wide=True,
        )
    if browser.contributions:
        yield Figure(
            "clip-contributions",
            "what each modality contributed",
            "How much each modality adds to the probability of the answer, or takes from it, averaged over all orders "
            "in which modalities may arrive (exact Shapley values over all subsets); together they are what the clip "
            "adds to the answer of a run that has nothing to go by.",
            charts.clip_contributions(browser.contributions),
            is_wide=True,
        )


def _ground_figures(subjects: Sequence[Subject], grounds: Mapping[str, Grounds]) -> Iterator[Figure]:
    chance = 1 / len(subjects[0].test.label_names)
    for number, one in enumerate(subjects):
        if one.name in grounds:
            yield Figure(
                f"layers-{number}",
                f"layers: {one.name}",
                "Each layer by itself, a logistic regression scored on validation speakers: where a line is highest, "
                "the encoder knows most. Dotted: chance.",
                charts.layer_curves(grounds[one.name].layers, chance),
            )
        if (one.folder / TRAINING_CURVES).is_file():
            yield Figure(
                f"curves-{number}",
                f"training: {one.name}",
                "Loss should fall and validation UAR rise; where validation loss rises while training loss falls, the "
                "head learns its clips by heart.",
                picture=picture_uri(one.folder / TRAINING_CURVES),
            )
    if spaces := _spaces(grounds)["space"]:
        yield Figure(
            "features",
            "features of clips that were not trained on",
            "A mark is a clip; clips that lie together look alike to the head. Labels should part, speakers should "
            "not. Distances in t-SNE mean little between groups.",
            charts.feature_map(list(_placed(grounds)), spaces, _spaces(grounds)["method"]),
            is_wide=True,
        )


def _spaces(grounds: Mapping[str, Grounds]) -> dict[str, list[str]]:
    """What the map of features may show: of every run its spaces, and the ways to draw them."""
    spaces = [f"{name}: {space}" for name, one in grounds.items() for space in one.places]
    methods = dict.fromkeys(method for one in grounds.values() for drawn in one.places.values() for method in drawn)
    return {"space": spaces, "method": list(methods)}


def _placed(grounds: Mapping[str, Grounds]) -> Iterator[Row]:
    """A row per clip, with its places in the order of `_spaces`: runs share most of their clips."""
    methods, clips = _spaces(grounds)["method"], {row["clip"]: row for one in grounds.values() for row in one.clips}
    columns: list[dict[str, list[float]]] = []
    for one in grounds.values():
        names = [row["clip"] for row in one.clips]
        for drawn in one.places.values():
            columns += [dict(zip(names, np.round(drawn[method], 2).tolist(), strict=True)) for method in methods]
    for clip_id, row in clips.items():
        places = [value for column in columns for value in column.get(clip_id, [np.nan, np.nan])]
        yield {**row, "places": [None if np.isnan(value) else value for value in places]}


def _provenance(name: str, grounds: Grounds) -> Markup:
    rows = [
        {"modality": modality, "key": key, "value": str(value)}
        for modality, made in grounds.provenance.items()
        for key, value in made.items()
    ]
    return table_html(rows, f"provenance-{name}")


def _encoders(grounds: Mapping[str, Grounds]) -> Iterator[str]:
    yield from dict.fromkeys(str(made["encoder"]) for one in grounds.values() for made in one.provenance.values())


def _caveats(subjects: Sequence[Subject]) -> dict[str, list[str]]:
    """What must be said of numbers, and of which runs."""
    said: dict[str, list[str]] = {}
    for one in subjects:
        if note := one.metrics.get("note"):
            said.setdefault(note, []).append(one.name)
    return said


def _command(subject: Subject) -> str:
    """What trains the run again."""
    target = "finetune-e2e" if "\ninit:" in f"\n{subject.config}" else "train-fusion"
    return make_command(target, config=subject.folder / CONFIG)


def _own_command(subjects: Sequence[Subject]) -> str:
    return make_command("report", [setting("run", [str(one.folder) for one in subjects])])


def picture_uri(path: Path) -> str:
    """A picture as data, no wider than it is shown."""
    with Image.open(path) as picture:
        picture.thumbnail((PICTURE_PIXELS, 4 * PICTURE_PIXELS))
        file = io.BytesIO()
        # Few colours, as drawn ones have.
        picture.convert("RGB").quantize(64).save(file, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _asset(name: str) -> Markup:
    """A file of ours that stands in the page as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


@cache
def _javascript() -> Markup:
    """Vega, Vega-Lite and vega-embed, once for all charts; making them one file takes seconds.

    What would end a script before its end must not be in it.
    """
    bundle = vl_convert.javascript_bundle(vl_version=alt.SCHEMA_VERSION.rpartition(".")[0].removeprefix("v"))  # type: ignore[call-arg]
    return Markup(bundle.replace("</script", "<\\/script"))
