"""`make demo`, whole: minutes long, so only with the slow tests."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny.places import ROOT


@pytest.mark.slow
def test_demo_learns_from_each_modality_alone_and_is_not_trivial(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fuse.demo", "--config", str(ROOT / "configs/demo/demo.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RANKS": "2"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "small and untrained" in done.stdout
    assert "Noise does not reach the text" in done.stdout
    # The last thing that is done: once it stood before the report, and its lines were out of sight.
    last = done.stdout.partition("7/7 a prediction")[2]
    assert "make predict CLIP=" in last
    assert "contributions: " in last
    for name in ("audio-alone", "video-alone"):
        metrics = json.loads((tmp_path / "outputs/demo" / name / "metrics.json").read_text())
        assert 0.25 <= metrics["test"]["uar"] <= 0.85, name
    with (tmp_path / "outputs/demo/robustness/robustness_table.csv").open() as file:
        rows = {(row["run"], row["modalities"], row["condition"]): float(row["uar"]) for row in csv.DictReader(file)}
    voice = json.loads((tmp_path / "outputs/demo/audio-alone/metrics.json").read_text())["test"]["uar"]
    # Pictures that are occluded took the plain fusion from 0.64 to 0.16, far below the voice alone.
    for condition in ("occlude-block-25", "occlude-block-50"):
        assert rows["reliable", "audio+video+text", condition] > voice - 0.05
    for picture in ("fusion/confusion_matrix.png", "robustness/robustness_table.png", "finetune/training_curves.png"):
        assert (tmp_path / "outputs/demo" / picture).stat().st_size > 10_000
    assert (tmp_path / "outputs/demo/report.html").stat().st_size > 1_000_000
    assert done.stdout.splitlines()[-1].endswith("outputs/demo/report.html")
