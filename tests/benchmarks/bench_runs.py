"""Whole runs: one with nothing to do, and the memory of a rank against the size of the corpus."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

from cache.corpus.clips import Clip, write_metadata
from cache.corpus.ravdess import LABELS
from tests.tiny.corpus import tone, write_tiny_encoders
from tests.tiny.places import ROOT

FEW, MANY = 144, 1440
RANK = """
import sys
from pathlib import Path
from configs.schema.features import FeaturesConfig
from configs.loader import load_config
from extract.run.plan import make_plan, prepare_stores
from configs.command.stop import StopRequest
from extract.run.rank import run_rank
config = load_config(FeaturesConfig, Path(sys.argv[1]))
plan = make_plan(config)
prepare_stores(plan)
run_rank(plan, 0, 1, StopRequest().check, Path(sys.argv[1]).with_suffix(".decodes"))
# Not getrusage: its maximum is inherited from the process that started this one.
print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024)
"""


def run(folder: Path) -> list[str]:
    """Peak memory of a rank for 144 and 1440 clips, then a rerun with nothing to do."""
    encoder = write_tiny_encoders(folder / "encoders")["audio"]
    configs = {count: _write_corpus(folder / str(count), count, encoder) for count in (FEW, MANY)}
    peaks = {count: float(_python("-c", RANK, str(config)).splitlines()[-1]) for count, config in configs.items()}
    imports, rerun = (
        _seconds("-c", "import extract.__main__"),
        _seconds("-m", "extract", "--config", str(configs[MANY])),
    )
    growth = 100 * (peaks[MANY] / peaks[FEW] - 1)
    return [
        f"peak memory of a rank: {peaks[FEW]:.0f} MiB for {FEW} clips, "
        f"{peaks[MANY]:.0f} MiB for {MANY} ({growth:+.1f} %)",
        f"a rerun with nothing to do, {MANY} clips: {rerun:.2f} s, {rerun - imports:.2f} s beside imports",
    ]


def _write_corpus(folder: Path, count: int, encoder: Path) -> Path:
    folder.mkdir(parents=True)
    clips = [Clip(f"c{n:04d}", f"c{n:04d}.wav", LABELS[n % 8], str(n % 24)) for n in range(count)]
    sound = tone(3.0)
    for number, clip in enumerate(clips):
        # No two files alike, six lengths: as many batches of a length as in a real corpus.
        soundfile.write(folder / clip.path, np.roll(sound, number)[: 16_000 + 800 * (number % 6)], 16_000)
    write_metadata(clips, folder / "metadata.csv")
    config = folder / "features.yaml"
    config.write_text(
        f"corpus: {folder}/metadata.csv\nfeatures_dir: {folder}/features\n"
        f"encoders: {{audio: {encoder}, video: null, text: null}}\nconditions: [clean, noise-white-0db]\n"
    )
    return config


def _seconds(*arguments: str) -> float:
    start = time.perf_counter()
    _python(*arguments)
    return time.perf_counter() - start


def _python(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
