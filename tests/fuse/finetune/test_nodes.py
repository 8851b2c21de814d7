"""A fine-tune on two nodes with a rank each: the weights of two ranks on one node, whatever comes between."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from cache.conditions import parse_joint
from configs.loader import dump_config
from configs.schema.finetune import FinetuneOptim
from configs.schema.fusion import Augment
from fuse.finetune.training.state import RESUME, last_position
from fuse.runs.folder import STAGING
from tests.configs.command.nodes.namespaces import Cable, all_done, await_work, cable, strike
from tests.fuse.finetune.site import NOISE, config_of, write_corpus
from tests.tiny.places import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def laid() -> Iterator[Cable]:
    with cable() as both:
        yield both


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, laid: Cable) -> Path:
    assert laid.names  # where there is no cable, nothing is made
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root)
    return root


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    kept = torch.load(out / "best_model.pth", weights_only=True)
    parts = {"head": kept["state"], **kept["networks"]}
    return {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}


def test_power_cuts_and_signals_change_no_bit_of_the_weights(laid: Cable, corpus: Path, tmp_path: Path) -> None:
    optim = FinetuneOptim(epochs=10, batch_size=1, lr=1e-3)
    configs, outs = {}, {}
    for name in ("one", "two"):
        outs[name] = tmp_path / name
        augment = Augment(audio=(parse_joint(NOISE),))
        config = config_of(
            corpus, optim=optim, augment=augment, output_dir=str(outs[name]), checkpoint_minutes=1e-9, export=False
        )
        configs[name] = tmp_path / f"{name}.yaml"
        configs[name].write_text(dump_config(config))
    alone(configs["one"], "fuse.finetune", ranks=2)
    nodes_through_faults(laid, configs["two"], outs["two"])
    one, two = map(weights_of, outs.values())
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not (outs["two"] / ".nodes").exists()


def nodes_through_faults(laid: Cable, config: Path, out: Path) -> None:
    """Node 1 loses its power, then node 0; then node 1 is told to stop; then both come to the end."""
    resume, arguments = out / STAGING / RESUME, ("fuse.finetune", "--config", str(config))
    for fault in ("strike 1", "strike 0", "stop 1"):
        before = last_position(resume)
        nodes = [laid.start(node, *arguments) for node in (0, 1)]
        await_work(nodes, partial(is_past, resume, before))
        verb, number = fault.split()
        struck, other = nodes[int(number)], nodes[1 - int(number)]
        start = time.monotonic()
        if verb == "strike":
            strike(struck)
        else:
            struck.terminate()
            output, _ = struck.communicate(timeout=60)
            assert struck.returncode == 143, output
            assert "node 1 was told to stop; the same command on all nodes continues" in output
        output, _ = other.communicate(timeout=100)
        assert time.monotonic() - start < 60
        assert other.returncode == 1, output
        (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
        cause = "node 1 was told to stop" if verb == "stop" else "died or hangs"
        assert cause in error, output
        assert "continues" in error
    all_done([laid.start(node, *arguments) for node in (1, 0)])


def is_past(resume: Path, before: Path | None) -> bool:
    return last_position(resume) not in (None, before)


def alone(config: Path, module: str, ranks: int) -> None:
    environment = {**os.environ, "RANKS": str(ranks), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
