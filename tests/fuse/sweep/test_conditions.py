"""A sweep of fine-tunes whose runs are scored under several conditions."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.conditions import JointCondition
from configs.command.launch import Interruption
from configs.command.stop import StopRequest
from fuse.finetune.launch import fine_tune
from fuse.finetune.load import load
from fuse.finetune.plan import FinetunePlan, plan_finetune
from fuse.finetune.rank import finetune
from fuse.robustness.tuned import TunedEncoders
from fuse.scores.predictions import read_predictions
from fuse.sweep.__main__ import run
from fuse.sweep.ground import score
from fuse.sweep.rank import UNDER_CONDITIONS, run_folder
from fuse.sweep.tuning import FineTunes
from tests.fuse.finetune.site import ALONE, CPU, NOISE
from tests.fuse.sweep.test_tuning import rows_of, sweep_of


@pytest.mark.usefixtures("alone", "all_undrawn")
def test_each_is_scored_under_the_conditions_of_the_sweep(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sweeps of fine-tunes refused `conditions`: what noise costs a recipe came out when it had been chosen."""
    asked: list[list[str]] = []
    stopped = Interruption()

    def by_ranks(own: TunedEncoders, conditions: Sequence[JointCondition], _: int, told: Interruption) -> Any:
        asked.append([condition.name for condition in conditions])
        if told.exit_code:
            return []
        return [own.encode([own.plan(condition) for condition in conditions], ALONE)]

    def launch(plan: FinetunePlan, *_: Any) -> str:
        finetune(plan, *load(plan, CPU), ALONE, StopRequest())
        return ""

    monkeypatch.setattr(TunedEncoders, "_by_ranks", by_ranks)
    monkeypatch.setattr("fuse.finetune.launch._launch", launch)
    monkeypatch.setattr("fuse.sweep.__main__.Interruption", lambda _: stopped)
    out = tmp_path / "out"
    config = sweep_of(corpus, out, f"conditions=[clean,{NOISE}]", "run.optim.epochs=1", "test=true")
    config = replace(config, grid={"optim.lr": [0.001, 0.01]}, compare=None)
    # A signal that comes while its clips are encoded: the run is there, and its row is not.
    tunes = FineTunes.of(config)
    folder = run_folder(out, 0)
    assert fine_tune(plan_finetune(tunes.configs[0]), stopped, 1).done
    stopped.signal = signal.SIGTERM
    assert tunes.predict(0, stopped, 1) is False
    assert not tunes.is_done(0)
    assert not (folder / UNDER_CONDITIONS).exists()
    stopped.signal, asked[:] = 0, []
    kept = (folder / "metrics.json").stat().st_mtime_ns
    assert run(config) == 0
    # The condition that they were trained on is not encoded again.
    assert asked == [[NOISE], [NOISE]]
    assert (folder / "metrics.json").stat().st_mtime_ns == kept
    written = read_predictions(folder / "predictions.csv")
    under = read_predictions(folder / UNDER_CONDITIONS)
    assert {(str(one), str(other)) for one, other in zip(under.split, under.condition, strict=True)} == {
        (split, condition) for split in ("validation", "test") for condition in ("clean", NOISE)
    }
    clean = under.select(condition="clean")
    assert np.array_equal(clean.probabilities_NC, written.probabilities_NC)
    noisy = under.select(condition=NOISE)
    assert set(noisy.clip_id) == set(written.clip_id)
    assert not np.allclose(np.sort(noisy.probabilities_NC[:, 0]), np.sort(written.probabilities_NC[:, 0]), atol=1e-3)
    assert float(rows_of(out)[0]["validation_uar"]) == pytest.approx(score(under))
    table = (out / "sweep.md").read_text()
    assert f"Scores are means over clean, {NOISE}." in table
    assert f"| all | {NOISE} |" in table
    assert run(config) == 0
    assert asked == [[NOISE], [NOISE]]
