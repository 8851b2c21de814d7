"""Where heads are trained."""

from __future__ import annotations

import pytest
import torch

from fuse.stack.rows import torch_device


@pytest.mark.parametrize(
    ("name", "there", "device"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_heads_are_trained_on_a_gpu_where_there_is_one_unless_told_otherwise(
    name: str, there: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert torch_device(name) == torch.device(device)


def test_a_gpu_that_is_asked_for_and_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device=cuda: torch finds no GPU here; set device=auto"):
        torch_device("cuda")
