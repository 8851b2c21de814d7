"""Settings of every test run, and what several files of tests need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pytest_configure() -> None:
    """One thread per process: test workers share the cores, and OpenMP threads that wait for each other spin."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A time limit per example says how busy the machine is; pytest-timeout finds what hangs.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")


@contextmanager
def _undrawn() -> Iterator[None]:
    """Runs get small grey pictures: drawing takes nine tenths of a small run, and tests/fuse/runs looks at it."""
    from PIL import Image

    def grey(_: object, path: Path, *__: object, **___: object) -> None:
        Image.new("L", (8, 8), 128).save(path)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("confusion_matrix_figure", "training_curves_figure"):
            patch.setattr(f"fuse.runs.folder.{name}", grey)
        yield


@pytest.fixture
def undrawn() -> Iterator[None]:
    with _undrawn():
        yield


@pytest.fixture(scope="module")
def all_undrawn() -> Iterator[None]:
    """For the runs of a module's own fixtures too."""
    with _undrawn():
        yield


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, each once, to look into."""
    from matplotlib.figure import Figure

    kept: list[Figure] = []
    save = Figure.savefig

    def remember(figure: Figure, *arguments: Any, **options: Any) -> None:
        if figure not in kept:
            kept.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    return kept
