"""The page itself: whole, escaped, and what it does in a browser, where there is one."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuse.studies.report.page.clips import choose, contribution_rows, probability_rows
from fuse.studies.report.page.media import Shown, frames_uri, sound_uri
from fuse.studies.report.page.page import ClipBrowser, Grounds, write_page
from fuse.studies.report.page.subjects import read_subjects
from tests.fuse.studies.report.page.conftest import CONDITIONS, HOSTILE, LABELS, Written

# Whatever it is called here; the variable CHROMIUM names another.
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MILLISECONDS = 120_000
MEGABYTES = 3
OWNED = "document.title='owned'"


@pytest.fixture(scope="module")
def path(written: Written) -> Path:
    subjects = read_subjects([written.run, written.other], None)
    chosen = choose(subjects[0], 5)
    rng = np.random.default_rng(0)
    clips = [{"clip": f"{n} {HOSTILE}", "label": LABELS[n % 3], "speaker": HOSTILE} for n in range(12)]
    places = {space: {method: rng.normal(size=(12, 2)) for method in ("PCA", "t-SNE")} for space in ("audio", HOSTILE)}
    places["audio"]["PCA"][3] = np.nan
    layers = [{"modality": HOSTILE, "layer": layer, "uar": 0.4, "low": 0.3, "high": 0.5} for layer in range(3)]
    grounds = {"one": Grounds(layers, clips, places, {"audio": {"encoder": HOSTILE, "pooling": "mean"}}, HOSTILE)}
    nothing = np.full(len(LABELS), 1 / len(LABELS))
    sound, frames = sound_uri(np.zeros(1600, np.float32)), frames_uri(np.zeros((2, 8, 8, 3), np.uint8))
    browser = ClipBrowser(
        chosen=chosen,
        probabilities=[row for one in subjects for row in probability_rows(one, chosen)],
        contributions=contribution_rows(subjects[0], chosen, lambda _: nothing),
        statements={one.clip_id: f"said {HOSTILE}" for one in chosen},
        shown={chosen[0].clip_id: Shown({"clean": sound}, {"clean": frames})},
        heard={one.clip_id: {"clean": f"heard {HOSTILE}"} for one in chosen},
        notes=[f"a note {HOSTILE}"],
    )
    page = written.root / "report.html"
    write_page(page, subjects, grounds, browser)
    return page


def test_it_is_one_small_file_that_names_no_other(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < MEGABYTES * 1_000_000
    markup = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert re.findall(r"(?:src|href)=[\"'](?!data:|#)", markup) == []
    assert "@import" not in markup
    assert re.findall(r"url\(", markup) == []
    # The JavaScript of the charts stands there once: it is two thirds of the page.
    assert text.count("window.vegaEmbed=") == 1


def test_names_are_text_whatever_they_hold(path: Path) -> None:
    """A label or a clip id that is HTML would run whatever its author likes on the machine of every reader."""
    text = path.read_text(encoding="utf-8")
    assert OWNED not in text.replace("\\u0027", "'").replace("&#39;", "'") or "<img src=x" not in text
    assert "<img src=x" not in text
    assert "<b>bold</b>" not in text
    assert "</script><script>document" not in text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text
    specs = re.findall(r'<script type="application/json">(.*?)</script>', text, flags=re.DOTALL)
    assert any(HOSTILE in json.dumps(json.loads(spec), ensure_ascii=False).replace('\\"', '"') for spec in specs)


def test_every_figure_says_how_it_is_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    figures = re.findall(r"<figure.*?</figure>", text, flags=re.DOTALL)
    assert len(figures) >= 10
    for figure in figures:
        caption = re.search(r"<figcaption>(.+?)</figcaption>", figure, flags=re.DOTALL)
        assert caption
        assert caption[1].strip().endswith(".")


class Seen:
    """A page in a browser, and everything that it asked for or complained of."""

    def __init__(self, browser: Any, path: Path, width: int, scheme: str) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(MILLISECONDS)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-drawn]")

    def column(self, table: str, number: int) -> list[str]:
        shown = self.page.query_selector_all(f"#{table} tbody tr:not([hidden])")
        return [row.query_selector_all("td")[number].inner_text().strip() for row in shown]

    def drawn(self, figure: str) -> str:
        return str(self.page.inner_html(f"#{figure} .chart svg"))

    def choose(self, field: str, value: str) -> None:
        self.page.select_option(f"#{field}", value)
        self.page.wait_for_timeout(300)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here; set CHROMIUM to one")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    with driver.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1440, "dark")])
def test_it_is_drawn_without_a_complaint_and_without_a_request(
    browser: Any, path: Path, width: int, scheme: str
) -> None:
    seen = Seen(browser, path, width, scheme)
    assert seen.complaints == []
    assert [url for url in seen.asked if not url.startswith("data:")] == [path.as_uri()]
    charts = len(seen.page.query_selector_all(".chart"))
    assert charts >= 10
    assert len(seen.page.query_selector_all(".chart svg")) == charts
    assert "owned" not in seen.page.title()
    # Nothing is wider than the window: on a phone one would have to push the page about.
    assert seen.page.evaluate("document.documentElement.scrollWidth") == width
    assert seen.page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    seen.page.close()


@pytest.mark.slow
def test_tables_are_sorted_by_key_and_filtered(browser: Any, path: Path) -> None:
    seen = Seen(browser, path, 1440, "light")
    heads = [head.inner_text() for head in seen.page.query_selector_all("#robustness-table thead th")]
    column, head = heads.index("UAR %"), "#robustness-table thead th >> nth={}"
    seen.page.focus(head.format(column))
    for direction in ("descending", "ascending"):
        seen.page.keyboard.press("Enter")
        seen.page.wait_for_timeout(200)
        assert seen.page.get_attribute(head.format(column), "aria-sort") == direction
        values = [float(text) for text in seen.column("robustness-table", column)]
        assert values == sorted(values, reverse=direction == "descending")
    seen.page.fill("input[data-filter]", "video 0db+OCC")
    assert set(seen.column("robustness-table", heads.index("condition"))) == {CONDITIONS[-1]}
    assert set(seen.column("robustness-table", heads.index("modalities"))) == {"audio+video", "video"}
    seen.page.close()


@pytest.mark.slow
def test_fields_switch_the_charts_that_they_are_for(browser: Any, path: Path) -> None:
    seen = Seen(browser, path, 1440, "light")
    before = {name: seen.drawn(name) for name in ("confusion", "reliability", "speakers", "ece")}
    seen.choose("condition", "noise-white-0db")
    after = {name: seen.drawn(name) for name in before}
    assert [name for name in before if before[name] != after[name]] == ["confusion", "reliability", "speakers"]
    curve = seen.drawn("curve-noise-white")
    seen.choose("modalities", "audio")
    assert seen.drawn("curve-noise-white") != curve
    features = seen.drawn("features")
    seen.choose("colouring", "speaker")
    assert seen.drawn("features") != features
    # What was chosen stays so when evening comes.
    seen.page.emulate_media(color_scheme="dark")
    seen.page.wait_for_timeout(1500)
    assert seen.page.input_value("#condition") == "noise-white-0db"
    assert re.sub(r"#\w{6}", "", seen.drawn("speakers")) == re.sub(r"#\w{6}", "", after["speakers"])
    assert seen.complaints == []
    seen.page.close()


@pytest.mark.slow
def test_a_clip_is_picked_by_keyboard(browser: Any, path: Path) -> None:
    seen = Seen(browser, path, 390, "light")
    shown = ".clip:not([hidden])"
    assert seen.page.evaluate("document.querySelector('.clip img').naturalWidth") > 100
    assert seen.page.query_selector(f"{shown} audio")
    first, drawn = seen.page.get_attribute(shown, "data-clip"), seen.drawn("clip-contributions")
    seen.page.focus("#clip")
    seen.page.keyboard.press("ArrowDown")
    seen.page.wait_for_timeout(300)
    assert len(seen.page.query_selector_all(shown)) == 1
    assert seen.page.get_attribute(shown, "data-clip") != first
    assert "heard <img src=x" in seen.page.inner_text(shown)
    assert seen.drawn("clip-contributions") != drawn
    seen.page.close()
