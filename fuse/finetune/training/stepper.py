"""One optimiser's step of one rank: passes forward and back, gradients summed over ranks, weights moved.

Shape letters: B clips of a pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from configs.schema.finetune import FinetuneOptim
from fuse.finetune.batches import Batch
from fuse.finetune.network import Answers, EndToEndModel, loss_of


@dataclass(frozen=True)
class World:
    """This rank among the others, and what it computes on."""

    rank: int
    size: int
    device: torch.device


class Stepper:
    """Model, gradients and optimiser of one rank. All ranks start alike and take the same steps."""

    def __init__(self, model: EndToEndModel, optim: FinetuneOptim, steps: int, world: World) -> None:
        """`steps`: of the whole training, for the cosine schedule."""
        # Nothing here has buffers that training changes: nothing of them need be sent before every pass.
        devices = [world.device] if world.device.type == "cuda" else None
        self.parallel = DistributedDataParallel(model, devices, broadcast_buffers=False)
        self.smoothing, self.world = optim.label_smoothing, world
        groups = [
            {"params": list(model.fusion.weights.values()), "lr": optim.lr},
            {"params": _learning(model.networks), "lr": optim.lr * optim.encoder_lr_scale},
        ]
        self.adamw = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=optim.weight_decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.adamw, lambda step: cosine(step, steps))
        # Small gradients vanish in float16 unless the loss is scaled up.
        self.scaler = torch.amp.grad_scaler.GradScaler(world.device.type, enabled=model.dtype == torch.float16)

    def step(self, passes: Sequence[Batch], clips: int, seeds: Iterable[int] = ()) -> float:
        """One step; returns the summed loss of this rank's clips.

        The gradient is that of the mean loss over all clips of the step, however they are dealt to ranks and passes.

        Args:
            passes: what this rank encodes, one after the other; at least one, which may count for nothing.
            clips: of the step, over all ranks.
            seeds: of what the network draws, by pass.
        """
        self.adamw.zero_grad(set_to_none=True)
        total, drawn = 0.0, iter(seeds)
        for number, batch in enumerate(passes):
            if (seed := next(drawn, None)) is not None:
                torch.manual_seed(seed)
            # Ranks talk once in a step: gradients of the earlier passes are added up where they are.
            with nullcontext() if number == len(passes) - 1 else self.parallel.no_sync():
                total += self._pass(batch.to(self.world.device), clips)
        scale = self.scaler.get_scale()
        self.scaler.step(self.adamw)
        self.scaler.update()
        # The scaler lowers its scale where a gradient overflowed, and only there: it has left out the step.
        if self.scaler.get_scale() >= scale:
            self.schedule.step()
        return total

    def state(self) -> dict[str, dict[str, Any]]:
        """What `restore` takes."""
        return {
            "adamw": self.adamw.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, adamw: Mapping[str, Any], schedule: Mapping[str, Any], scaler: Mapping[str, Any]) -> None:
        """Go on where another stepper of the same settings has stopped.

        Raises:
            ValueError: it was of other settings.
        """
        if bool(scaler) != self.scaler.is_enabled():
            raise ValueError("the scaler of gradients was on, or off, there: it goes with precision=float16")
        self.adamw.load_state_dict(dict(adamw))
        self.schedule.load_state_dict(dict(schedule))
        self.scaler.load_state_dict(dict(scaler))

    def _pass(self, batch: Batch, clips: int) -> float:
        answers: Answers = self.parallel(batch.inputs, batch.present)
        loss = loss_of(answers.taught_BKC, batch.labels_B, self.smoothing) * batch.clips
        # DistributedDataParallel divides the sum over ranks by their number.
        self.scaler.scale(loss * (self.world.size / clips)).backward()  # type: ignore[no-untyped-call]
        return loss.item()


def cosine(step: int, steps: int) -> float:
    """Share of the learning rate (SGDR, Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def weights_that_learn(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights that learn, on the CPU."""
    weights = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
    return {name: weight.detach().to("cpu", copy=True) for name, weight in weights}


def put_back(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Put back what `weights_that_learn` copied.

    Raises:
        ValueError: these are not the weights that learn.
    """
    own = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if own.keys() != kept.keys():
        raise ValueError(f"other weights learn now: {', '.join(sorted(own.keys() ^ kept.keys())[:3])}")
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(kept[name])


def _learning(module: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in module.parameters() if weight.requires_grad]
