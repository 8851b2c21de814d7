"""Settings of every test run, and what several files of tests need."""

from __future__ import annotations

import os
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
