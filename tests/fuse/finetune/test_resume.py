"""An interrupted fine-tune goes on where it stopped, and ends as if nothing had been."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.conditions import parse_joint
from configs.command.progress import Progress
from configs.command.stop import Stopped, StopRequest
from configs.loader import dump_config
from configs.schema.finetune import FinetuneOptim, Lora
from configs.schema.fusion import Augment
from fuse.finetune.launch import settings_of
from fuse.finetune.load import clips_of, load
from fuse.finetune.plan import plan_finetune
from fuse.finetune.training import loop
from fuse.finetune.training.loop import Training, Watch
from fuse.finetune.training.order import Order
from fuse.finetune.training.state import RESUME, STATE, Keeper, TrainingState, begin, last_position
from fuse.runs.folder import STAGING
from fuse.stack.job import History
from tests.fuse.finetune.site import ALONE, CPU, config_of, is_past, kill_all
from tests.tiny.places import ROOT
from tests.tiny.stage_one import wait_for

OPTIM = FinetuneOptim(epochs=3, batch_size=2, lr=1e-3)
AUGMENT = Augment(audio=(parse_joint("noise-white-0db"),), video=(parse_joint("drop-frames-30"),))


class After(StopRequest):
    """Told to stop after so many looks, as by a signal."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    @property
    def due(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@dataclass(frozen=True)
class Ended:
    """What came of a training."""

    weights: dict[str, torch.Tensor]
    history: History
    best_NC: np.ndarray

    def same(self, other: Ended) -> bool:
        return (
            all(torch.equal(one, other.weights[name]) for name, one in self.weights.items())
            and self.history == other.history
            and np.array_equal(self.best_NC, other.best_NC)
        )


def train(corpus: Path, keeper: Keeper, stop: StopRequest, **changed: Any) -> Ended:
    """From the keeper's state, if it has one."""
    plan = plan_finetune(config_of(corpus, **{"optim": OPTIM, "augment": AUGMENT, **changed}))
    model, loaders = load(plan, CPU)
    clips, validation = clips_of(plan, "train"), clips_of(plan, "validation")
    # A start that gets everything wrong, so that some epoch is better.
    start = -10 * np.eye(model.fusion.settings.classes, dtype=np.float32)[validation.labels]
    watch = Watch(stop, Progress("test", 1, "clips", shown=False))
    training = Training(model, clips, validation, loaders, plan.config.optim, ALONE, watch, keeper)
    torch.rand(3)  # whatever torch's own generator was used for before
    history, best_NC = training.run([start, start], keeper.load())
    return Ended({name: value.clone() for name, value in model.state_dict().items()}, history, best_NC)


@pytest.mark.usefixtures("alone")
def test_stopped_anywhere_and_continued_it_ends_bit_for_bit_as_undisturbed(corpus: Path, tmp_path: Path) -> None:
    """Nothing was kept: an interrupted fine-tune started again."""
    undisturbed = train(corpus, Keeper(tmp_path / "whole", 60), StopRequest())
    assert undisturbed.history.best_epoch >= 0
    # Two steps and a look while validating in each of three epochs: after a step, after the last, while validating.
    for looks in (0, 1, 2, 4, 7):
        keeper = Keeper(tmp_path / f"after-{looks}", 60)
        with pytest.raises(Stopped):
            train(corpus, keeper, After(looks))
        assert last_position(keeper.folder)
        assert train(corpus, keeper, StopRequest()).same(undisturbed), looks


@pytest.mark.usefixtures("alone")
def test_adapters_and_the_average_of_weights_go_on_too(corpus: Path, tmp_path: Path) -> None:
    optim = replace(OPTIM, average=0.5, warmup=0.3, clip_norm=0.5, layer_decay=0.5, accumulate=2, batch_size=1)
    changed = {"optim": optim, "lora": Lora(2), "modality_dropout": 0.3}
    undisturbed = train(corpus, Keeper(tmp_path / "whole", 60), StopRequest(), **changed)
    keeper = Keeper(tmp_path / "stopped", 60)
    with pytest.raises(Stopped):
        train(corpus, keeper, After(4), **changed)
    assert train(corpus, keeper, StopRequest(), **changed).same(undisturbed)
    with pytest.raises(ValueError, match=r"it goes with optim\.average"):
        train(corpus, keeper, StopRequest(), **{**changed, "optim": replace(optim, average=None)})


@pytest.mark.usefixtures("alone")
def test_a_state_is_written_after_every_epoch_and_so_many_minutes_and_the_last_one_stays(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, int]] = []
    plain = Keeper.save

    def noted(keeper: Keeper, state: TrainingState) -> None:
        written.append((state.epoch, state.step))
        plain(keeper, state)

    monkeypatch.setattr(Keeper, "save", noted)
    train(corpus, Keeper(tmp_path / "epochs", 60), StopRequest())
    assert written == [(1, 0), (2, 0), (3, 0)]
    names = {path.name.partition("-")[0] for path in (tmp_path / "epochs").iterdir()}
    assert names == {"epoch", "best"}
    assert len(list((tmp_path / "epochs").iterdir())) == 2
    written.clear()
    train(corpus, Keeper(tmp_path / "minutes", 1e-9), StopRequest())
    assert written == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 0)]


@pytest.mark.usefixtures("alone")
def test_a_position_that_is_kept_twice_is_there_all_the_time(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to stop while it validates, it may be where a state is already: that was removed before the new one came."""
    keeper, states = Keeper(tmp_path / "state", 60), list[TrainingState]()
    plain = Keeper.save

    def noted(own: Keeper, state: TrainingState) -> None:
        states.append(state)
        plain(own, state)

    monkeypatch.setattr(Keeper, "save", noted)
    with pytest.raises(Stopped):
        train(corpus, keeper, After(1))
    folder = last_position(keeper.folder)
    assert folder is not None
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    plain(keeper, states[-1])
    assert {path.name: path.stat().st_ino for path in folder.iterdir()} == before


@pytest.mark.usefixtures("alone")
def test_ranks_talk_before_each_batch_that_they_validate(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They talked when all was validated: who hung was found long after a minute, and who was slow passed for that."""
    plan = plan_finetune(config_of(corpus, optim=replace(OPTIM, batch_size=1)))
    model, loaders = load(plan, CPU)
    clips, encoded, talks = clips_of(plan, "train"), list[object](), list[object]()
    model.register_forward_hook(lambda *_: encoded.append(None))

    def in_vain(*_: object) -> list[float]:
        talks.append(None)
        if len(talks) > 2:
            raise RuntimeError("Timed out waiting 2000ms")
        return [0.0]

    monkeypatch.setattr(loop, "_summed", in_vain)
    watch = Watch(StopRequest(), Progress("test", 1, "clips", shown=False))
    with pytest.raises(RuntimeError, match="Timed out"):
        loop.evaluate(model, clips, loaders, ALONE, watch)
    assert len(clips) > 2
    assert len(encoded) == 2


@pytest.mark.usefixtures("alone")
def test_every_key_of_a_state_is_used_or_it_is_refused(corpus: Path, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "state", 60)
    with pytest.raises(Stopped):
        train(corpus, keeper, After(4))
    folder = last_position(keeper.folder)
    assert folder is not None
    kept = torch.load(folder / STATE, weights_only=True)
    for changed, message in (
        ({**kept, "more": 1}, "has unknown more"),
        ({name: one for name, one in kept.items() if name != "adamw"}, "lacks adamw"),
        ({**kept, "history": {**kept["history"], "more": 1}}, "more"),
    ):
        torch.save(changed, folder / STATE)
        with pytest.raises(ValueError, match=rf"is no state of a fine-tune \(.*{message}.*overwrite=true"):
            keeper.load()
    torch.save(kept, folder / STATE)
    (folder / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="is no state of a fine-tune"):
        keeper.load()


@pytest.mark.usefixtures("alone")
def test_weights_that_do_not_learn_now_are_not_put_back(corpus: Path, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "state", 60)
    with pytest.raises(Stopped):
        train(corpus, keeper, After(1))
    with pytest.raises(ValueError, match="other weights learn now"):
        train(corpus, keeper, StopRequest(), unfreeze=1)


def test_other_settings_are_refused_with_the_difference(corpus: Path, tmp_path: Path) -> None:
    config = config_of(corpus, output_dir=str(tmp_path / "run"))
    resume = tmp_path / "run" / STAGING / RESUME

    def start(ranks: int, anew: bool = False, **changed: Any) -> None:
        begin(resume, settings_of(plan_finetune(replace(config, **changed)), ranks), anew)

    start(2)
    start(2, seeds=(3,))  # nothing was trained yet
    start(2)
    (resume / "epoch-1-step-2").mkdir()
    start(2, threads=2, loader_workers=3, checkpoint_minutes=1)
    start(1, optim=replace(config.optim, batch_size=4))
    start(2, optim=replace(config.optim, batch_size=1, accumulate=2))
    for ranks, changed, message in (
        (2, {"seeds": (3,)}, r"seeds: \[0\] there, \[3\] now"),
        (2, {"optim": replace(config.optim, lr=0.5)}, r"optim\.lr: 0\.001 there, 0\.5 now"),
        (1, {}, r"clips of a step .*: 4 there, 2 now"),
        (2, {"unfreeze": 1}, "unfreeze: all there, 1 now"),
    ):
        with pytest.raises(ValueError, match=rf"holds an interrupted fine-tune of other settings \({message}\)"):
            start(ranks, **changed)
    assert last_position(resume)
    start(2, anew=True, seeds=(3,))
    assert last_position(resume) is None


def orders(ranks: int, batch_size: int, accumulate: int = 1, clips: int = 21) -> list[Order]:
    return [Order(clips, batch_size, accumulate, 5, rank, ranks) for rank in range(ranks)]


@pytest.mark.parametrize("several", [orders(2, 4), orders(4, 2), orders(2, 2, 2), orders(1, 4, 2), orders(8, 1)])
def test_a_step_has_the_same_clips_on_any_number_of_ranks(several: list[Order]) -> None:
    """A sampler dealt clips by rank, repeated some of them, and ended in steps of other sizes."""
    (alone,) = orders(1, 8)
    for epoch in range(2):
        seen: list[int] = []
        for step in range(alone.steps):
            wanted = sorted(index for one in alone.passes(epoch, step) for index in one)
            dealt = sorted(index for order in several for one in order.passes(epoch, step) for index in one)
            assert dealt == wanted
            assert len(dealt) == several[0].clips_of(step)
            assert all(len(one) <= order.batch_size for order in several for one in order.passes(epoch, step))
            seen += dealt
        assert sorted(seen) == list(range(21))
    assert alone.passes(0, 0) != alone.passes(1, 0)
    assert len(
        {one.torch_seed(e, s, n) for one in several for e in range(2) for s in range(2) for n in range(2)}
    ) == 8 * len(several)


def test_a_loader_goes_on_in_the_middle_of_an_epoch() -> None:
    (order,) = orders(1, 4, 2)
    whole = list(order.from_there(0, 0, 3))
    for epoch in range(3):
        for step in range(order.steps + 1):
            before = sum(
                len(order.passes(e, s)) for e in range(epoch + 1) for s in range(order.steps if e < epoch else step)
            )
            assert list(order.from_there(epoch, step, 3)) == whole[before:]


def start(config: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fuse.finetune", "--config", str(config)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "RANKS": "2"}, text=True, **streams)  # type: ignore[call-overload,no-any-return]


@pytest.mark.slow
def test_a_command_that_is_killed_or_told_to_stop_ends_bit_for_bit_as_undisturbed(corpus: Path, tmp_path: Path) -> None:
    """Two ranks, SIGKILL to everything; the last interruption is a SIGTERM, after which it ends with 143."""
    optim = FinetuneOptim(epochs=8, batch_size=1, lr=1e-3)
    outs = [tmp_path / "undisturbed", tmp_path / "killed"]
    for out in outs:
        config = config_of(corpus, optim=optim, augment=AUGMENT, output_dir=str(out), checkpoint_minutes=1e-9)
        (tmp_path / f"{out.name}.yaml").write_text(dump_config(config))
    undisturbed = start(tmp_path / "undisturbed.yaml")
    output, _ = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, output
    resume, draw, before = outs[1] / STAGING / RESUME, random.Random(0), None
    for kill in range(4):
        process = start(tmp_path / "killed.yaml")
        wait_for(partial(is_past, resume, before), process)
        time.sleep(draw.uniform(0, 0.05))
        if kill == 3:
            process.terminate()
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 143, output
        else:
            kill_all(process)
        before = last_position(resume)
    process = start(tmp_path / "killed.yaml")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "continues the interrupted fine-tune at epoch" in output
    whole, continued = (torch.load(out / "best_model.pth", weights_only=True) for out in outs)
    states = [{"head": kept["state"], **kept["networks"]} for kept in (whole, continued)]
    for name, weights in states[0].items():
        assert all(torch.equal(value, states[1][name][key]) for key, value in weights.items()), name
    assert (outs[0] / "predictions.csv").read_bytes() == (outs[1] / "predictions.csv").read_bytes()
