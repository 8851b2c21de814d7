"""What a step takes of memory, as it is reckoned and as it is."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import traceback
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    RobertaConfig,
    RobertaModel,
    VideoMAEConfig,
    VideoMAEModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from fuse.finetune.training.memory import step_bytes
from tests.fuse.finetune.site import await_ranks

GIB = 2**30
M_MMAP_THRESHOLD = -3


def kilobytes(key: str) -> int:
    """Of this process: VmRSS now, VmHWM at most."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)]
    return int(line.split()[1])


def measured_bytes(model: nn.Module, inputs: torch.Tensor) -> int:
    """What a first step adds to this process at its peak, and the weights that were there before."""
    # What is freed goes back at once, and the code of all that is called is in memory.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 65_536)
    with torch.no_grad():
        copied = copy.deepcopy(model)
    copied(inputs[:1]).last_hidden_state.square().mean().backward()
    torch.optim.AdamW(copied.parameters()).step()
    del copied
    adamw = torch.optim.AdamW(model.parameters())
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = kilobytes("VmRSS")
    model(inputs).last_hidden_state.square().mean().backward()
    adamw.step()
    return (kilobytes("VmHWM") - before) * 1024 + sum(one.nbytes for one in model.parameters())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_takes_what_was_reckoned_within_a_tenth(checkpointing: bool) -> None:
    sizes = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 512}
    config = Wav2Vec2Config(**sizes, conv_dim=[32] * 7, layerdrop=0.0, apply_spec_augment=False)
    model, inputs = Wav2Vec2Model(config).train(), torch.randn(8, 32_000)
    if checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    shapes = copy.deepcopy(model).to("meta")
    reckoned = step_bytes(shapes, lambda: shapes(inputs.to("meta")).last_hidden_state.square().mean())
    # In a fork: what this process has freed, and not given back, would hide what the step takes.
    if not (pid := os.fork()):
        code = 1
        try:
            torch.set_num_threads(1)
            gc.collect()
            assert measured_bytes(model, inputs) == pytest.approx(reckoned, rel=0.1)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    await_ranks([pid])
    assert reckoned > 3 * 4 * sum(one.numel() for one in model.parameters())


@pytest.mark.slow
def test_sixteen_clips_of_the_full_size_encoders_fit_a_gpu_of_32_gb_with_checkpointing() -> None:
    """In float32; float16 takes less. Without checkpointing they do not."""
    peaks = []
    for checkpointing in (True, False):
        with torch.device("meta"):
            networks = nn.ModuleDict(
                {
                    "audio": Wav2Vec2Model(Wav2Vec2Config(layerdrop=0.0, apply_spec_augment=False)),
                    "video": VideoMAEModel(VideoMAEConfig()),
                    "text": RobertaModel(RobertaConfig(num_hidden_layers=6)),
                }
            ).train()
            inputs = {
                "audio": torch.empty(16, 48_000),
                "video": torch.empty(16, 16, 3, 224, 224),
                "text": torch.ones(16, 12, dtype=torch.long),
            }
        networks["audio"].freeze_feature_encoder()  # type: ignore[operator]
        for network in networks.values() if checkpointing else ():
            network.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})

        def loss(networks: nn.ModuleDict = networks, inputs: dict[str, torch.Tensor] = inputs) -> torch.Tensor:
            outputs = [network(inputs[name], output_hidden_states=True) for name, network in networks.items()]
            return torch.stack([one.last_hidden_state.mean() for one in outputs]).sum()

        peaks.append(step_bytes(networks, loss))
    assert peaks[0] < 12 * GIB < 32 * GIB < peaks[1]
