"""Linear discriminant analysis with a shrunken within-class covariance, solved, not iterated.

Friedman, "Regularized Discriminant Analysis", JASA 84(405), 1989, eq. 18 with equal covariances. With a dozen
training speakers the clips of an emotion differ mostly by speaker; the covariance of those differences is what a head
has to discount, and shrinking makes it usable. Classes are weighted equally, as UAR does.

Shape letters: B clips, D width, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fuse.model.heads.base import CLASSES
from fuse.model.heads.layer import Weights


def solve_discriminant(rows_BD: Tensor, labels_B: Tensor, shrinkage: float) -> Weights:
    """The weights of one head from its training clips. `shrinkage` 1 takes the classes as spheres."""
    rows_BD = rows_BD.double()
    means_CD = torch.stack([rows_BD[labels_B == label].mean(0) for label in range(CLASSES)])
    # An emotion that nobody in training shows gets the mean of all: it is then never preferred.
    means_CD = torch.where(torch.isfinite(means_CD), means_CD, rows_BD.mean(0))
    within_BD = rows_BD - means_CD[labels_B]
    covariance_DD = within_BD.T @ within_BD / len(rows_BD)
    sphere = covariance_DD.diagonal().mean().clamp_min(1e-12)
    covariance_DD *= 1 - shrinkage
    covariance_DD.diagonal().add_(shrinkage * sphere)
    weight_CD = torch.linalg.solve(covariance_DD, means_CD.T).T
    return {"out_weight": weight_CD.float(), "out_bias": (-0.5 * (weight_CD * means_CD).sum(1)).float()}
