"""Late fusion by how sure each modality is: a head of any kind each, their votes divided by temperatures and added.

Adding log-probabilities is right for modalities that err independently given the class (Kittler et al., "On Combining
Classifiers", IEEE PAMI 20(3), 1998, the product rule), if each one's probabilities can be believed; hence temperatures
(Guo et al., "On Calibration of Modern Neural Networks", ICML 2017), fitted on validation clips under every condition
that was trained on. `late-reliable` also divides a vote by how far the clip's row lies from the training rows: beyond
the distance that nine in ten validation rows stay within, its weight falls as the inverse square of the distance, as
the precision of a Gaussian whose spread grows with it. Of two distances the larger counts. Mahalanobis distance sees a
shift where training rows hardly vary, as of babble, and discounts one along their main directions, as of a picture that
is partly hidden; plain distance does the opposite. What is fitted after training: `fuse.stack.reliability`.

Shape letters: M heads of the stack, B clips, D width, q directions, K modalities, C classes.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from fuse.model.heads.base import NEVER, Drop, Head, Outputs, Penalty, Rows, Shape
from fuse.model.heads.late import average_given
from fuse.model.heads.layer import Weights

# Of the weights that are fitted after training, on validation clips: no gradient reaches them.
FITTED = "_fitted_"
MOST_DIRECTIONS = 64
# How far a bias may be from NEVER, as a share of it.
NEAR = 0.05
# How sharply the weight bends at the limit: it is (1 + (distance / limit)^8)^(-1/4).
BEND = 4


def separate(unimodal: Head, reliable: bool) -> Head:
    """A head of that kind for each modality; `reliable`: the votes are weighted by distance as well."""
    return Head(
        partial(_draw, unimodal, reliable),
        partial(_forward, unimodal, reliable),
        unimodal.solve,
        unimodal.divides,
        reliable=reliable,
    )


def solve_each(head: Head, shape: Shape, rows: Rows, labels_B: Tensor, penalty: Penalty, copies: int) -> Weights:
    """Each modality's head by itself, from the clips that have it; `rows` are of one head.

    Raises:
        ValueError: no training clip has a modality.
    """
    assert head.solve is not None
    weights: Weights = {}
    for number, (name, columns) in enumerate(shape.columns.items()):
        values_BD, own_B = rows.values_MBD[0, :, columns], labels_B
        if rows.absent_MBm is not None:
            given_B = ~rows.absent_MBm[0, :, number]
            values_BD, own_B = values_BD[given_B], labels_B[given_B]
        if not len(own_B):
            raise ValueError(f"no training clip has {name}; leave it out of modalities")
        solved = head.solve(values_BD, own_B, shape.classes, penalty, copies)
        weights |= {f"{name}_{key}": value for key, value in solved.items()}
    return weights


def own_logits(unimodal: Head, weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> list[Outputs]:
    """What each modality's head says by itself, as it is."""
    outputs = []
    for name, columns in shape.columns.items():
        part = {key.removeprefix(f"{name}_"): one for key, one in weights.items() if key.startswith(f"{name}_")}
        one = Shape({name: shape.widths[name]}, shape.hidden, shape.classes)
        outputs.append(unimodal.forward(part, one, Rows(rows.values_MBD[:, :, columns]), drop))
    return outputs


def known_classes(weights: Weights, name: str) -> Tensor:
    """Which classes a modality's head has learned of, (M, C): one that its training clips lack has the bias NEVER."""
    # Near it, for fine-tuning may move it a little. Where features hardly vary, solved biases of known classes lie far
    # below, too. A head that diverged knows all, or its NaN would be covered up.
    return ~((weights[f"{name}_out_bias"] / NEVER - 1).abs() < NEAR)


def without_vetoes(votes_MBKC: Tensor, known_M1KC: Tensor) -> Tensor:
    """Votes in which a modality neither favours nor rules out a class that it knows nothing of.

    How likely its row is under such a class is unknown; the mean likelihood over the classes that it does know stands
    for it. By that modality alone the class then keeps its prior probability, 1 / C, whatever the row: the others
    decide. The mean of log-probabilities would not do: it is the lower, the surer the modality is of some class it
    knows, and so rules the class out again where a row only looks like another's.
    """
    others_MBK1 = votes_MBKC.masked_fill(~known_M1KC, -torch.inf).logsumexp(3, keepdim=True)
    return torch.where(known_M1KC, votes_MBKC, others_MBK1 - known_M1KC.sum(3, keepdim=True).log())


def distance_share(weights: Weights, name: str, values_MBD: Tensor) -> Tensor:
    """Squared distance of a modality's rows from its training rows over the squared limit; (M, B).

    Of the two distances the larger.
    """
    # In float64: where features hardly vary in some direction, the two sums below are large and nearly cancel, and in
    # float32 a clip's weight would depend on which clips it is computed with.
    mean_MD, directions_MqD, gain_Mq, rest_M, plain_M = (
        weights[f"{name}{FITTED}{part}"].detach().double() for part in ("mean", "directions", "gain", "rest", "plain")
    )
    centred_MBD = values_MBD.double() - mean_MD[:, None]
    along_MBq = torch.bmm(centred_MBD, directions_MqD.transpose(1, 2))
    squared_MB = centred_MBD.square().sum(2)
    share_MB = squared_MB * rest_M[:, None] + (along_MBq.square() * gain_Mq[:, None]).sum(2)
    return torch.maximum(share_MB.clamp_min(0), squared_MB * plain_M[:, None]).to(values_MBD.dtype)


def reliability(share_MB: Tensor) -> Tensor:
    """The weight of a vote, from 1 to 0: 1 near the training rows, (limit / distance)^2 far from them."""
    # A row that is farther than float32 can say is not believed at all.
    return (1 + share_MB.double() ** BEND).pow(-1 / BEND).to(share_MB.dtype)


def _draw(unimodal: Head, reliable: bool, shape: Shape, generator: torch.Generator) -> Weights:
    """The starting weights of each modality's head; temperature 1, and no row far from any other."""
    weights: Weights = {}
    for name, width in shape.widths.items():
        drawn = unimodal.draw(Shape({name: width}, shape.hidden, shape.classes), generator)
        weights |= {f"{name}_{key}": one for key, one in drawn.items()}
        weights[f"{name}{FITTED}log_temperature"] = torch.zeros(())
        if reliable:
            directions = min(MOST_DIRECTIONS, width)
            sizes = {
                "mean": (width,),
                "directions": (directions, width),
                "gain": (directions,),
                "rest": (),
                "plain": (),
            }
            weights |= {f"{name}{FITTED}{part}": torch.zeros(size) for part, size in sizes.items()}
    return weights


def _forward(unimodal: Head, reliable: bool, weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> Outputs:
    """Logits over temperatures, weighted, and averaged over the modalities that a clip has, times how many it has."""
    outputs = own_logits(unimodal, weights, shape, rows, drop)
    votes = []
    for (name, columns), one in zip(shape.columns.items(), outputs, strict=True):
        # Of a stack, each head its own.
        sharpness_MB = weights[f"{name}{FITTED}log_temperature"].detach().neg().exp()[:, None]
        if reliable:
            sharpness_MB = sharpness_MB * reliability(distance_share(weights, name, rows.values_MBD[:, :, columns]))
        votes.append(one.logits_MBC * sharpness_MB[..., None])
    own_MBKC = torch.stack([one.logits_MBC for one in outputs], dim=2)
    known_M1KC = torch.stack([known_classes(weights, name) for name in shape.widths], dim=1)[:, None]
    votes_MBKC = without_vetoes(torch.stack(votes, dim=2), known_M1KC)
    given = len(votes) if rows.absent_MBm is None else (~rows.absent_MBm).sum(2, keepdim=True).clamp_min(1)
    # What nobody has learned of is never predicted, however little weight those have who say so.
    joined_MBC = (average_given(votes_MBKC, rows.absent_MBm) * given).masked_fill(~known_M1KC.any(2), NEVER)
    fused_MBH = torch.cat([one.fused_MBH for one in outputs], dim=2)
    return Outputs(joined_MBC, without_vetoes(own_MBKC, known_M1KC), fused_MBH)
