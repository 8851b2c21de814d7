"""Rows that encoders make of clips, on all ranks; and what late fusion fits to rows once they are tuned.

Shape letters: N clips, D width, V conditions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Subset

from cache.conditions import JointCondition
from configs.schema.fusion import Augment
from fuse.finetune.inputs.batches import Loaders
from fuse.finetune.inputs.clips import MediaClips
from fuse.finetune.network import EndToEndModel
from fuse.finetune.training.stepper import World
from fuse.model.fusion import standardise
from fuse.model.heads.reliable import FITTED
from fuse.stack.job import Job
from fuse.stack.reliability import Finisher
from fuse.stack.rows import CachedRows

Rows = dict[str, npt.NDArray[np.float32]]


def rows_of(model: EndToEndModel, loaders: Loaders, clips: MediaClips, world: World) -> Rows:
    """By modality, the row (N, D) that its encoder makes of each clip, on every rank; NaN where a clip lacks it."""
    own = own_rows(model, loaders, clips, world)
    gathered = [own]
    if world.size > 1:
        gathered = [{} for _ in range(world.size)]
        dist.all_gather_object(gathered, own, group=world.group)
    return put_together(gathered, len(clips), loaders.batch_size)


def own_rows(model: EndToEndModel, loaders: Loaders, clips: MediaClips, world: World) -> Rows:
    """Those of this rank's share; empty where it has none.

    Ranks share out whole batches, so that each is the same, to the last bit of its rows, on any number of ranks.
    """
    own = _share(len(clips), loaders.batch_size, world.rank, world.size)
    parts: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in model.encoders}
    model.eval()
    with torch.inference_mode():
        for batch in loaders.over(Subset(clips, own)):
            placed = batch.to(world.device)
            for name, found in parts.items():
                row_BD = torch.where(placed.present[name][:, None], model.row(name, placed.inputs[name]), torch.nan)
                found.append(row_BD.cpu().numpy())
    return {name: np.concatenate(found) for name, found in parts.items() if found}


def put_together(shares: Sequence[Rows], clips: int, batch_size: int) -> Rows:
    """The rows of all clips, from what each rank made of its share."""
    found: Rows = {}
    for rank, share in enumerate(shares):
        for name, rows in share.items():
            whole_ND = found.setdefault(name, np.full((clips, rows.shape[1]), np.nan, np.float32))
            whole_ND[_share(clips, batch_size, rank, len(shares))] = rows
    return found


def _share(clips: int, batch_size: int, rank: int, ranks: int) -> list[int]:
    return [place for place in range(clips) if place // batch_size % ranks == rank]


def is_fitted(model: EndToEndModel) -> bool:
    """Whether its head has weights that are fitted to rows, which no gradient reaches."""
    return any(FITTED in name for name in model.fusion.weights)


def refit(
    model: EndToEndModel, loaders: Loaders, train: MediaClips, validation: MediaClips, augment: Augment, world: World
) -> None:
    """Fit temperatures and distances of the votes to the rows that the encoders make now, as stage two does.

    On clips as they are, and under every condition that training draws from.
    """
    parts = [_as_is(clips) for clips in (train, validation)]
    plain = _both(rows_of(model, loaders, clips, world) for clips in parts)
    variants: dict[str, Mapping[str, tuple[Tensor, Tensor]]] = {}
    for signal in sorted(model.encoders.keys() & {"audio", "video"}):
        joints: Sequence[JointCondition] = getattr(augment, signal)
        under = [_both(rows_of(model, loaders, _under(clips, one), world) for clips in parts)[signal] for one in joints]
        if under:
            rows_VND = torch.from_numpy(np.stack(under))
            variants[signal] = {signal: (rows_VND.nan_to_num().to(world.device), rows_VND[..., 0].isnan())}
    rows_ND = torch.cat([torch.from_numpy(values) for values in plain.values()], dim=1)
    absent_Nm = torch.stack([torch.from_numpy(np.isnan(values[:, 0])) for values in plain.values()], dim=1)
    cached = CachedRows(
        model.fusion.widths,
        rows_ND.nan_to_num().to(world.device),
        absent_Nm.to(world.device),
        torch.from_numpy(np.concatenate([clips.labels for clips in parts])).to(world.device),
        variants,
    )
    ends = (len(train), len(train) + len(validation))
    job = Job(tuple(range(ends[0])), tuple(range(*ends)), augment=augment.probability)
    weights = {name: weight.detach()[None] for name, weight in model.fusion.weights.items()}
    mean_D, scale_D = model.fusion.standardiser.side_by_side()
    zero_D = standardise(torch.zeros_like(mean_D), mean_D, scale_D)
    finisher = Finisher(model.fusion.settings, cached, job, weights, mean_D, scale_D, zero_D)
    for name, value in finisher.fitted().items():
        model.fusion.weights[name].data.copy_(value)


def _both(parts: Iterable[Rows]) -> Rows:
    first, second = parts
    return {name: np.concatenate([values, second[name]]) for name, values in first.items()}


def _as_is(clips: MediaClips) -> MediaClips:
    """Without what training draws."""
    one = copy(clips)
    one.augment = None
    return one


def _under(clips: MediaClips, joint: JointCondition) -> MediaClips:
    """Under one condition more, which replaces any other of its signal."""
    one = copy(clips)
    one.parts = {**clips.parts, **{part.modality: part for part in joint.parts}}
    return one
