"""Settings of every test run."""

from __future__ import annotations

import os


def pytest_configure() -> None:
    """One thread per process: test workers share the cores, and OpenMP threads that wait for each other spin."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
