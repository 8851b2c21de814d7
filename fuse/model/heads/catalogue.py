"""Every kind of head by its name in a configuration."""

from __future__ import annotations

from cache.names import did_you_mean
from fuse.model.heads.base import Head
from fuse.model.heads.discriminant import solve_discriminant
from fuse.model.heads.joint import draw_gated, draw_low_rank, draw_mlp, gated, low_rank, mlp
from fuse.model.heads.late import draw_late, draw_late_learned, late_average, late_learned
from fuse.model.heads.logistic import solve_logistic
from fuse.model.heads.probe import draw_probe, probe, undropped_probe
from fuse.model.heads.reliable import separate
from fuse.model.heads.transformer import ATTENTION_HEADS, draw_transformer, transformer

HEADS: dict[str, Head] = {
    "mlp": Head(draw_mlp, mlp),
    "linear": Head(draw_probe, probe),
    "lda": Head(draw_probe, undropped_probe, solve_discriminant),
    "logistic": Head(draw_probe, undropped_probe, solve_logistic),
    "gated": Head(draw_gated, gated),
    "low-rank": Head(draw_low_rank, low_rank),
    "transformer": Head(draw_transformer, transformer, divides=ATTENTION_HEADS),
    "late-average": Head(draw_late, late_average),
    "late-learned": Head(draw_late_learned, late_learned),
}
# A head of any kind above, but late fusion itself, for each modality.
UNIMODAL = tuple(name for name in HEADS if not name.startswith("late"))
# Late fusion whose votes are weighted after training; whether also by distance.
WEIGHTED = {"late-calibrated": False, "late-reliable": True}
DEFAULT_UNIMODAL = "lda"
HEADS |= {name: separate(HEADS[DEFAULT_UNIMODAL], reliable) for name, reliable in WEIGHTED.items()}


def find_head(name: str, hidden: int, unimodal: str = DEFAULT_UNIMODAL) -> Head:
    """The head of that name; `unimodal`: the kind of each modality's own head, where it has one of any kind.

    Raises:
        ValueError: no such head, with those there are; or a hidden width that it cannot have.
    """
    if name not in HEADS:
        raise ValueError(f"head: unknown head {name!r}{did_you_mean(name, HEADS)}; known: {', '.join(HEADS)}")
    if unimodal not in UNIMODAL:
        raise ValueError(
            f"unimodal: no such head of one modality: {unimodal!r}{did_you_mean(unimodal, UNIMODAL)}; "
            f"known: {', '.join(UNIMODAL)}"
        )
    head = separate(HEADS[unimodal], WEIGHTED[name]) if name in WEIGHTED else HEADS[name]
    if hidden % head.divides:
        raise ValueError(f"hidden={hidden}: the head {name} needs a multiple of {head.divides}")
    return head
