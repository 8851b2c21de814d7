"""The page in a browser: a real upload, sliders, and who is asked for what. Only where Gradio and Chromium are."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from configs.schema.predict import AppConfig
from fuse.predict.app.page import build, quiet_gradio, serve
from fuse.predict.app.trial import Trial
from tests.fuse.predict.app.test_trial import Site, site

__all__ = ["site"]
pytestmark = pytest.mark.slow
# Whatever it is called here; the variable CHROMIUM names another.
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MILLISECONDS = 120_000


@dataclass(frozen=True)
class Served:
    """A page that is being served."""

    address: str
    uploads: Path
    site: Site


@pytest.fixture(scope="module")
def served(site: Site) -> Iterator[Served]:
    pytest.importorskip("gradio", reason="gradio is installed by make app")
    with tempfile.TemporaryDirectory() as folder:
        gradio = quiet_gradio(Path(folder))
        trial = Trial(site.trial.model, site.trial.config, Path(folder))
        blocks = build(gradio, trial)
        address = serve(gradio, blocks, AppConfig(run=trial.config.run, max_megabytes=1), wait=False)
        yield Served(address.rstrip("/"), Path(folder), site)
        blocks.close()


def status(address: str, host: str = "127.0.0.1") -> int:
    try:
        asked = urllib.request.Request(address, headers={"Host": host})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_no_path_is_served_and_no_other_name_is_answered_to(served: Served) -> None:
    private = served.site.root / "private.txt"
    private.write_text("mine")
    assert served.address.startswith("http://127.0.0.1:")
    assert status(served.address) == 200
    for path in ("/etc/passwd", str(private), "Makefile"):
        assert status(f"{served.address}/gradio_api/file={path}") in (403, 404)
    assert status(served.address, host="evil.example") == 400
    with urllib.request.urlopen(f"{served.address}/gradio_api/info", timeout=30) as answer:
        assert b"/upload" not in answer.read()


@pytest.fixture
def page(served: Served) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here; set CHROMIUM to one")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    with driver.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1300, "height": 1200})
        opened.set_default_timeout(MILLISECONDS)
        opened.asked = []
        opened.on("request", lambda request: opened.asked.append(request.url))
        opened.goto(served.address)
        yield opened
        browser.close()


def test_an_upload_is_answered_a_slider_moves_it_and_nobody_else_is_asked(page: Any, served: Served) -> None:
    clip = next((served.site.root / "corpus").rglob("*.mp4"))
    page.set_input_files("input[type=file] >> nth=0", clip)
    page.wait_for_selector(".bars")
    page.wait_for_selector(".contributions th:nth-child(5)")
    before = page.inner_text(".bars")
    assert {"happy", "sad"} <= set(before.split())
    # The panel's caption once lay over its first line.
    caption, first = (
        page.locator(one).bounding_box() for one in ("[data-testid=block-label]:has-text('Emotion')", "h3.label")
    )
    assert first["y"] >= caption["y"] + caption["height"]
    assert not list(served.uploads.rglob("*.mp4"))
    page.fill("input[type=number] >> nth=0", "-10")
    page.press("input[type=number] >> nth=0", "Enter")
    page.locator("input[type=range]").first.dispatch_event("pointerup")
    page.wait_for_function("before => document.querySelector('.bars').innerText !== before", arg=before)
    # A picture of the page is more than an empty one.
    assert len(page.screenshot()) > 20_000
    asked = {url.split("/")[2] for url in page.asked if url.startswith(("http", "ws"))}
    assert asked == {served.address.removeprefix("http://")}


def test_a_file_that_is_no_clip_is_one_line(page: Any, served: Served, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no film" * 1000)
    page.set_input_files("input[type=file] >> nth=0", tmp_path / "bad.mp4")
    page.wait_for_selector(".problem")
    assert "could not be read" in page.inner_text(".problem")
    assert not list(served.uploads.rglob("*.mp4"))
