"""Stage one by an engine, on the tiny corpus: sound alone, which starts fastest."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.tiny.stage_one import Done, Site

SOUND = ("encoders.video=null", "encoders.text=null", "conditions=[clean, noise-white-0db]", "max_failed=3")


def settings(engine: str, *further: str) -> list[str]:
    """Three tasks of a unit each."""
    return [*SOUND, f"engine.name={engine}", "engine.units_per_task=1", "engine.mem_per_cpu_gb=1", *further]


def ranks_anywhere(folder: Path) -> list[psutil.Process]:
    """The ranks of a run, whoever started them."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if "extract.run.rank" in command and str(folder / ".engine") in command:
            found.append(process)
    return found


def kill_a_rank(site: Site, features: str, settings: list[str], once: Callable[[], Any]) -> Done:
    """Run, with a rank killed as soon as it is at work and `once` says so."""
    process = site.start(features, *settings)
    deadline = time.monotonic() + 150
    while not (once() and ranks_anywhere(site.root / features)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ranks_anywhere(site.root / features)[-1].kill()
    output, _ = process.communicate(timeout=300)
    return Done(process.returncode, output, site.root / features)
