"""Fusion heads: from one row per modality to eight logits.

Shape letters: B clips, D width of the concatenation, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cache.clips import LABELS


class ConcatMlp(nn.Module):
    """The card's head: concatenation, one hidden layer, eight classes (2304 -> hidden -> 8 by default)."""

    def __init__(self, widths: Mapping[str, int], hidden: int, dropout: float) -> None:
        """`widths`: modality to width, in the order of concatenation."""
        super().__init__()
        self.modalities = tuple(widths)
        self.layers = nn.Sequential(
            nn.Linear(sum(widths.values()), hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, len(LABELS))
        )

    def forward(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Modality to (B, width), standardised; returns logits_BC."""
        logits_BC: Tensor = self.layers(torch.cat([rows[name] for name in self.modalities], dim=1))
        return logits_BC


class LinearProbe(nn.Module):
    """Logistic regression on the concatenation: what the features say by themselves."""

    def __init__(self, widths: Mapping[str, int], hidden: int, dropout: float) -> None:
        """Same arguments as every head; `hidden` is not used."""
        super().__init__()
        del hidden
        self.modalities = tuple(widths)
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(sum(widths.values()), len(LABELS)))

    def forward(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Modality to (B, width), standardised; returns logits_BC."""
        logits_BC: Tensor = self.layers(torch.cat([rows[name] for name in self.modalities], dim=1))
        return logits_BC


class Discriminant(nn.Module):
    """Linear discriminant analysis with a shrunken within-class covariance, solved, not iterated.

    Friedman, "Regularized Discriminant Analysis", JASA 84(405), 1989, eq. 18 with equal covariances. With a
    dozen training speakers the clips of an emotion differ mostly by speaker; the covariance of those
    differences is what a head has to discount, and shrinking makes it usable. Classes are weighted equally,
    as UAR does.
    """

    def __init__(self, widths: Mapping[str, int], hidden: int, dropout: float) -> None:
        """Same arguments as every head; `hidden` and `dropout` are not used."""
        super().__init__()
        del hidden, dropout
        self.modalities = tuple(widths)
        self.layer = nn.Linear(sum(widths.values()), len(LABELS))

    def forward(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Modality to (B, width), standardised; returns logits_BC, whose softmax is the posterior."""
        logits_BC: Tensor = self.layer(torch.cat([rows[name] for name in self.modalities], dim=1))
        return logits_BC

    def solve(self, rows: Mapping[str, Tensor], labels_B: Tensor, shrinkage: float) -> None:
        """Set the weights from the training clips. `shrinkage` 1 takes the classes as spheres."""
        rows_BD = torch.cat([rows[name] for name in self.modalities], dim=1).double()
        means_CD = torch.stack([rows_BD[labels_B == label].mean(0) for label in range(len(LABELS))])
        # An emotion that nobody in training shows gets the mean of all: it is then never preferred.
        means_CD = torch.where(torch.isfinite(means_CD), means_CD, rows_BD.mean(0))
        within_BD = rows_BD - means_CD[labels_B]
        covariance_DD = within_BD.T @ within_BD / len(rows_BD)
        sphere = covariance_DD.diagonal().mean().clamp_min(1e-12)
        covariance_DD = (1 - shrinkage) * covariance_DD + shrinkage * sphere * torch.eye(len(covariance_DD))
        weight_CD = torch.linalg.solve(covariance_DD, means_CD.T).T
        with torch.no_grad():
            self.layer.weight.copy_(weight_CD)
            self.layer.bias.copy_(-0.5 * (weight_CD * means_CD).sum(1))


HEADS: dict[str, Callable[[Mapping[str, int], int, float], nn.Module]] = {
    "mlp": ConcatMlp,
    "linear": LinearProbe,
    "lda": Discriminant,
}


def make_head(name: str, widths: Mapping[str, int], hidden: int, dropout: float) -> nn.Module:
    """The head of that name.

    Raises:
        ValueError: no such head; names those there are.
    """
    if name not in HEADS:
        raise ValueError(f"head: unknown head {name!r}; known: {', '.join(HEADS)}")
    return HEADS[name](widths, hidden, dropout)


class Standardiser(nn.Module):
    """Mean and SD of the training speakers, kept inside the checkpoint; a missing modality becomes their mean."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        """Identity until `fit`."""
        super().__init__()
        self.mean_ = nn.ParameterDict({name: nn.Parameter(torch.zeros(w), False) for name, w in widths.items()})
        self.scale_ = nn.ParameterDict({name: nn.Parameter(torch.ones(w), False) for name, w in widths.items()})

    def fit(self, rows: Mapping[str, Tensor], rescale: bool = True) -> Standardiser:
        """Learn from the training speakers' rows (B, width); NaN rows are absent and do not count."""
        for name, values in rows.items():
            seen = values[torch.isfinite(values).all(dim=1)].double()
            if not len(seen):
                raise ValueError(f"no training clip has {name}; leave it out of modalities")
            if rescale:
                self.mean_[name].data = seen.mean(0).float()
                self.scale_[name].data = seen.std(0, unbiased=False).clamp_min(1e-6).float()
        return self

    def forward(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Standardised rows; NaN (absent or withheld) becomes 0, the training mean."""
        return {
            name: torch.nan_to_num((values - self.mean_[name]) / self.scale_[name]) for name, values in rows.items()
        }


class FusionModel(nn.Module):
    """Standardiser and head: what a run saves and everything later loads."""

    def __init__(self, head: str, widths: Mapping[str, int], hidden: int, dropout: float) -> None:
        """Build with random weights from torch's global generator."""
        super().__init__()
        self.widths = dict(widths)
        self.settings: dict[str, Any] = {"head": head, "widths": self.widths, "hidden": hidden, "dropout": dropout}
        self.standardiser = Standardiser(widths)
        self.head = make_head(head, widths, hidden, dropout)

    def forward(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Modality to raw features (B, width), NaN where absent; returns logits_BC."""
        logits_BC: Tensor = self.head(self.standardiser(rows))
        return logits_BC
