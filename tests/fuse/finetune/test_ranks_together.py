"""Two ranks do what one does, go on after they were killed, and none of them waits for another for ever."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from cache.conditions import parse_joint
from configs.loader import dump_config
from configs.schema.finetune import FinetuneOptim
from configs.schema.fusion import Augment
from fuse.finetune.load import clips_of, load
from fuse.finetune.plan import plan_finetune
from fuse.finetune.training.loop import Training, evaluate
from fuse.finetune.training.order import Order
from fuse.finetune.training.state import RESUME, Keeper, last_position
from fuse.finetune.training.stepper import Stepper, World
from fuse.runs.folder import STAGING
from tests.fuse.finetune.site import CPU, await_ranks, config_of, fork_ranks, no_news, together
from tests.tiny.places import ROOT
from tests.tiny.stage_one import wait_for


def gradients(corpus: Path, world: World, batch_size: int, accumulate: int) -> dict[str, Tensor]:
    """Of the first step, without dropout; and beside them the logits of all clips of three parts."""
    plan = plan_finetune(config_of(corpus))
    model, loaders = load(plan, CPU)
    clips = clips_of(plan, "train")
    order = Order(len(clips), batch_size, accumulate, 3, world.rank, world.size)
    stepper = Stepper(model, FinetuneOptim(), 10, world)
    passes = list(loaders.drawn(clips, [[(0, index) for index in one] for one in order.passes(0, 0)]))
    stepper.parallel.eval()
    stepper.step(passes, order.clips_of(0))
    # Three clips on two ranks.
    odd = replace(plan, parts={"test": (*plan.parts["test"], *plan.parts["train"][:1])})
    logits_NC = evaluate(load(plan, CPU)[0], clips_of(odd, "test"), loaders, world, no_news())
    return {name: one.grad for name, one in stepper.learning.items() if one.grad is not None} | {
        "logits": torch.from_numpy(logits_NC)
    }


def test_two_ranks_and_passes_that_are_added_up_have_the_gradient_of_one_batch(corpus: Path, tmp_path: Path) -> None:
    """In float32; and each clip is evaluated once, three of them on two ranks too."""

    def rank_of(name: str, batch_size: int, accumulate: int) -> Callable[[World], None]:
        def work(world: World) -> None:
            torch.save(gradients(corpus, world, batch_size, accumulate), tmp_path / f"{name}-{world.rank}.pt")

        return work

    for name, ranks, batch_size, accumulate in (("alone", 1, 4, 1), ("two", 2, 2, 1), ("added", 1, 2, 2)):
        await_ranks(fork_ranks(rank_of(name, batch_size, accumulate), ranks, tmp_path / f"store-{name}"))
    names = ("alone-0", "two-0", "two-1", "added-0")
    alone, *others = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in names)
    for other in others:
        assert other.keys() == alone.keys()
        for name, values in alone.items():
            torch.testing.assert_close(other[name], values, rtol=1e-5, atol=1e-6)
    assert torch.isfinite(alone["logits"]).all()
    assert len(alone["logits"]) == 3


def test_two_ranks_of_eight_clips_have_the_gradient_of_sixteen_in_float64(corpus: Path, tmp_path: Path) -> None:
    """In float32, where rows were rounded to it on the way, a fault of a millionth could not be told from rounding."""

    def work(world: World) -> None:
        plan = plan_finetune(config_of(corpus, augment=Augment(audio=(parse_joint("noise-white-0db"),))))
        model, loaders = load(plan, CPU)
        clips = clips_of(plan, "train")
        stepper = Stepper(model.double(), FinetuneOptim(), 10, world)
        # Four clips as four epochs draw them.
        own = [(epoch, index) for epoch in range(4) for index in range(len(clips))][world.rank :: world.size]
        (batch,) = loaders.drawn(clips, [own])
        sizes = {name: {key: _double(one) for key, one in together(batch, name).items()} for name in batch.inputs}
        stepper.parallel.eval()
        stepper.step([replace(batch, inputs=sizes)], 16)
        gradients = {name: one.grad for name, one in stepper.learning.items()}
        torch.save(gradients, tmp_path / f"of-{world.size}-{world.rank}.pt")

    for ranks in (1, 2):
        await_ranks(fork_ranks(work, ranks, tmp_path / f"store-{ranks}"))
    alone, *both = (torch.load(tmp_path / f"of-{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    assert {name.partition(".")[0] for name in alone} == {"networks", "fusion"}
    largest = max(one.abs().max().item() for one in alone.values())
    for other in both:
        for name, values in alone.items():
            assert values.dtype == torch.float64
            torch.testing.assert_close(other[name], values, rtol=1e-6, atol=1e-12 * largest)


def _double(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_steps_two_ranks_end_bit_for_bit_as_undisturbed(
    corpus: Path, tmp_path: Path, kills: int
) -> None:
    """SIGKILL to both, and a new start each time. A state is written after every step."""

    def ranks_in(folder: Path) -> Callable[[World], None]:
        def work(world: World) -> None:
            optim = FinetuneOptim(epochs=1 + kills, batch_size=1, lr=1e-3)
            augment = Augment(audio=(parse_joint("noise-white-0db"),), video=(parse_joint("drop-frames-30"),))
            plan = plan_finetune(config_of(corpus, optim=optim, augment=augment))
            model, loaders = load(plan, CPU)
            clips, validation, keeper = clips_of(plan, "train"), clips_of(plan, "validation"), Keeper(folder, 1e-9)
            start = -10 * np.eye(2, dtype=np.float32)[validation.labels]
            training = Training(model, clips, validation, loaders, optim, world, no_news(), keeper)
            training.run([start, start], keeper.load())
            torch.save(model.state_dict(), folder.with_name(f"{folder.name}-{world.rank}.pt"))

        return work

    def store() -> Path:
        return tmp_path / f"store-{time.monotonic_ns()}"

    await_ranks(fork_ranks(ranks_in(tmp_path / "whole"), 2, store()))
    killed, draw = tmp_path / "killed", random.Random(kills)
    for _ in range(kills):
        before = last_position(killed)
        pids = fork_ranks(ranks_in(killed), 2, store())
        deadline = time.monotonic() + 100
        while last_position(killed) in (None, before):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.05))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)
    await_ranks(fork_ranks(ranks_in(killed), 2, store()))
    whole, *others = (
        torch.load(tmp_path / name, weights_only=True) for name in ("whole-0.pt", "killed-0.pt", "killed-1.pt")
    )
    for other in others:
        assert all(torch.equal(value, other[name]) for name, value in whole.items())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_dies_or_hangs_ends_the_job_with_its_reason(
    corpus: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """A rank that hung kept the others waiting for half an hour."""
    optim = FinetuneOptim(epochs=5000, batch_size=2)
    out = tmp_path / "run"
    config = config_of(corpus, optim=optim, output_dir=str(out), hang_seconds=5)
    (tmp_path / "finetune.yaml").write_text(dump_config(config))
    command = [sys.executable, "-m", "fuse.finetune", "--config", str(tmp_path / "finetune.yaml")]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "RANKS": "2"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for(lambda: last_position(out / STAGING / RESUME), process)
    ranks = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.cmdline()[1:4] == ["-u", "-m", "fuse.finetune.rank"]
    ]
    ranks[1].send_signal(number)
    start = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - start < 30
    assert process.returncode == 1, output
    (said,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "died or hangs" in said
    assert "the same command continues at epoch" in said
    assert not psutil.wait_procs(ranks, timeout=5)[1]
