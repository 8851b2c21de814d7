"""One optimiser's step of one rank: passes forward and back, gradients summed over ranks, weights moved.

Shape letters: B clips of a pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from configs.schema.finetune import FinetuneOptim
from fuse.finetune.inputs.batches import Batch
from fuse.finetune.network import Answers, EndToEndModel, loss_of


@dataclass(frozen=True)
class World:
    """This rank among the others, and what it computes on; `group`: by which they talk, None for the default one."""

    rank: int
    size: int
    device: torch.device
    group: ProcessGroup | None = None


class Stepper:
    """Model, gradients and optimiser of one rank. All ranks start alike and take the same steps."""

    def __init__(self, model: EndToEndModel, optim: FinetuneOptim, steps: int, world: World) -> None:
        """`steps`: of the whole training, for the schedule of learning rates."""
        # Nothing here has buffers that training changes: nothing of them need be sent before every pass.
        devices = [world.device] if world.device.type == "cuda" else None
        self.parallel = DistributedDataParallel(model, devices, process_group=world.group, broadcast_buffers=False)
        self.smoothing, self.clip_norm, self.world = optim.label_smoothing, optim.clip_norm, world
        self.learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.adamw = torch.optim.AdamW(groups_of(model, optim), weight_decay=optim.weight_decay)
        warm = round(optim.warmup * steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.adamw, lambda step: rate(step, steps, warm))
        # Small gradients vanish in float16 unless the loss is scaled up.
        self.scaler = torch.amp.grad_scaler.GradScaler(world.device.type, enabled=model.dtype == torch.float16)
        self.average = averaged_weights(self.learning.values(), optim.average) if optim.average else None

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
        if self.clip_norm is not None:
            self.scaler.unscale_(self.adamw)
            torch.nn.utils.clip_grad_norm_(self.learning.values(), self.clip_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.adamw)
        self.scaler.update()
        # The scaler lowers its scale where a gradient overflowed, and only there: it has left out the step.
        if self.scaler.get_scale() >= scale:
            self.schedule.step()
            if self.average is not None:
                self.average.update_parameters(_as_module(self.learning.values()))
        return total

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it, the model has the average of its weights, where one is kept."""
        own = [weight.detach().clone() for weight in self.learning.values()] if self.average else []
        _copy(self.learning.values(), self.average.parameters() if self.average else [])
        try:
            yield
        finally:
            _copy(self.learning.values(), own)

    def state(self) -> dict[str, dict[str, Any]]:
        """What `restore` takes."""
        return {
            "average": _on_cpu(self.average.state_dict()) if self.average else {},
            "adamw": self.adamw.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(
        self,
        average: Mapping[str, Any],
        adamw: Mapping[str, Any],
        schedule: Mapping[str, Any],
        scaler: Mapping[str, Any],
    ) -> None:
        """Go on where another stepper of the same settings has stopped.

        Raises:
            ValueError: it was of other settings.
        """
        if bool(scaler) != self.scaler.is_enabled():
            raise ValueError("the scaler of gradients was on, or off, there: it goes with precision=float16")
        if bool(average) != bool(self.average):
            raise ValueError("an average of the weights was kept, or not, there: it goes with optim.average")
        if self.average is not None:
            self.average.load_state_dict(dict(average))
        self.adamw.load_state_dict(dict(adamw))
        self.schedule.load_state_dict(dict(schedule))
        self.scaler.load_state_dict(dict(scaler))

    def _pass(self, batch: Batch, clips: int) -> float:
        answers: Answers = self.parallel(batch.inputs, batch.present)
        loss = loss_of(answers.taught_BKC, batch.labels_B, self.smoothing) * batch.clips
        # DistributedDataParallel divides the sum over ranks by their number.
        self.scaler.scale(loss * (self.world.size / clips)).backward()  # type: ignore[no-untyped-call]
        return loss.item()


def rate(step: int, steps: int, warm: int) -> float:
    """Share of the learning rate: a linear rise over `warm` steps, then a cosine to nothing.

    As in SGDR (Loshchilov and Hutter 2017, arXiv 1608.03983), without restarts.
    """
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(step - warm, steps - warm) / (steps - warm)))


def groups_of(model: EndToEndModel, optim: FinetuneOptim) -> list[dict[str, Any]]:
    """What learns, by how fast: the head, and of each encoder its blocks from the last one down, then the rest of it.

    The last block that learns has the encoders' own rate.
    """
    groups: list[dict[str, Any]] = [{"params": list(model.fusion.weights.values()), "lr": optim.lr}]
    for encoder in model.encoders.values():
        blocks = [weights for block in encoder.blocks if (weights := _learning(block))]
        inside = {id(weight) for weights in blocks for weight in weights}
        rest = [weight for weight in _learning(encoder.network) if id(weight) not in inside]
        below = len(blocks) if blocks else 0
        slower = [(rest, below), *((weights, below - 1 - number) for number, weights in enumerate(blocks))]
        top = optim.lr * optim.encoder_lr_scale
        groups += [{"params": weights, "lr": top * optim.layer_decay**depth} for weights, depth in slower]
    return [group for group in groups if group["params"]]


def averaged_weights(weights: Iterable[nn.Parameter], decay: float) -> AveragedModel:
    """Their moving average, updated after each step."""
    return AveragedModel(_as_module(weights), multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


def _as_module(weights: Iterable[nn.Parameter]) -> nn.ParameterList:
    return nn.ParameterList(weights)


def _copy(to: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for weight, value in zip(to, values, strict=False):
            weight.copy_(value)


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


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
