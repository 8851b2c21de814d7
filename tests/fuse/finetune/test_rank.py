"""What a rank does beside training: join the others on its GPU or CPU, and say why it ended."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from configs.command.stop import Stopped
from fuse.finetune import rank
from fuse.finetune.rank import MEMORY, _conclude, _lost, process_group
from fuse.finetune.training.loop import Diverged
from fuse.finetune.training.stepper import World

GPU = torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("device", "gpus", "ranks", "backend"),
    [
        (GPU, 2, "2", "nccl"),
        (GPU, 4, "2", "nccl"),
        (GPU, 1, "2", "gloo"),  # two ranks on one GPU: nccl refuses them
        (torch.device("cpu"), 0, "2", "gloo"),
    ],
)
def test_ranks_with_a_gpu_each_talk_by_nccl_and_others_by_gloo(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, gpus: int, ranks: str, backend: str
) -> None:
    """The path of GPUs, with no GPU there."""
    joined: list[Any] = []
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", joined.append)
    monkeypatch.setattr(dist, "init_process_group", lambda kind, device_id: joined.append((kind, device_id)))
    monkeypatch.setattr(dist, "new_group", lambda timeout: timeout.total_seconds())
    monkeypatch.setattr(dist, "destroy_process_group", lambda: joined.append("left"))
    with suppress(KeyError), process_group(World(1, 2, device), 7.0) as world:
        joined.append(world.group)
        raise KeyError
    own = backend == "nccl"
    assert joined == [*([device] if own else []), (backend, device if own else None), 7.0, "left"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Stopped(), 0, None),
        (Diverged("training diverged in epoch 3", 2), 0, "training diverged in epoch 3"),
        (ValueError("unit-00000.h5 is not readable"), 1, "unit-00000.h5 is not readable"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            1,
            MEMORY,
        ),
    ],
)
def test_what_one_rank_alone_has_met_ends_the_others(
    tmp_path: Path, error: Exception, code: int, said: str | None
) -> None:
    """torchrun stops the other ranks when one returns 1; what all meet alike needs no such end."""
    file = tmp_path / "error.txt"
    assert _conclude(error, file) == code
    assert (file.read_text() if file.exists() else None) == said


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:9", "rank 1 waits for the others"),
        ("[../gloo/transport/unbound_buffer.cc:81] Timed out waiting 2000ms", "rank 1 waits for the others in vain"),
        ("DataLoader worker (pid(s) 9) exited unexpectedly", "a process of rank 1 that reads clips died"),
        ("mat1 and mat2 shapes cannot be multiplied", ""),
    ],
)
def test_a_rank_says_what_it_waited_for_and_a_fault_of_ours_is_shown_whole(said: str, reason: str) -> None:
    found = _lost(RuntimeError(said), World(1, 2, torch.device("cpu")))
    assert found.startswith(reason)
    assert bool(found) is bool(reason)


def test_an_encoder_that_does_not_fit_a_gpu_names_the_knob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While encoders were loaded it ended in a traceback, and ranks with room waited half an hour for this one."""

    def too_much(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(rank, "load_config", lambda *_: None)
    monkeypatch.setattr(rank, "plan_finetune", too_much)
    assert rank.main(["config.yaml", str(tmp_path / "error.txt")]) == 1
    assert (tmp_path / "error.txt").read_text() == MEMORY
