"""How far a clip's features lie from those that a run was trained on: whether its answer is worth anything.

The training rows of each modality are described by a Gaussian with few directions and one spread for all others
(probabilistic PCA: Tipping & Bishop, Journal of the Royal Statistical Society B 61(3), 1999); the distance of a row is
its Mahalanobis distance under it, over the root of the width. The limit is a conformal quantile of the validation
speakers' distances (Laxhammar & Falkman, Annals of Mathematics and Artificial Intelligence 74, 2015): of clips
like theirs about 2 % lie beyond it.

Shape letters: N clips, D width, q directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MOST_DIRECTIONS = 64
ROWS_PER_DIRECTION = 4
ALARMS = 0.02
SMALLEST_VARIANCE = 1e-6
# Of more rows a decomposition takes gigabytes and minutes, and 64 directions are known from fewer.
MOST_ROWS = 2**16
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Familiarity:
    """What a run keeps of one modality's training rows, standardised as its model sees them.

    Attributes:
        mean_D: their mean.
        directions_qD: orthonormal, of largest variance.
        variances_q: along them.
        residual: variance along each of the other directions.
        limit: distance beyond which a clip is not like the validation speakers' clips.
    """

    mean_D: Rows
    directions_qD: Rows
    variances_q: Rows
    residual: float
    limit: float = math.inf

    def distances(self, rows_ND: Rows) -> npt.NDArray[np.float64]:
        """Of each row; NaN where the modality is absent."""
        centred_ND = rows_ND.astype(np.float64) - self.mean_D
        along_Nq = centred_ND @ self.directions_qD.T.astype(np.float64)
        rest_N = np.maximum((centred_ND**2).sum(1) - (along_Nq**2).sum(1), 0.0)
        distances_N: npt.NDArray[np.float64] = np.sqrt(
            ((along_Nq**2 / self.variances_q).sum(1) + rest_N / self.residual) / rows_ND.shape[1]
        )
        return distances_N


def familiarity(train_ND: Rows, validation_ND: Rows) -> Familiarity:
    """Describe the training rows, and set the limit by the validation rows; NaN rows are absent and do not count.

    Of more than `MOST_ROWS` training rows so many are looked at.

    Raises:
        ValueError: fewer than two training rows.
    """
    rows_ND = _at_most(train_ND, np.flatnonzero(np.isfinite(train_ND).all(1))).astype(np.float64)
    if len(rows_ND) < 2:
        raise ValueError("familiarity needs at least two training rows")
    mean_D = rows_ND.mean(0)
    rows_ND -= mean_D
    directions, variances_N = _directions(rows_ND)
    kept = max(1, min(MOST_DIRECTIONS, len(rows_ND) // ROWS_PER_DIRECTION, len(variances_N)))
    others = rows_ND.shape[1] - kept
    residual = float(variances_N[kept:].sum() / others) if others else 0.0
    described = Familiarity(
        mean_D.astype(np.float32),
        directions[:kept].astype(np.float32),
        np.maximum(variances_N[:kept], SMALLEST_VARIANCE).astype(np.float32),
        max(residual, SMALLEST_VARIANCE),
    )
    held_out = described.distances(validation_ND)
    limit = _conformal(held_out[np.isfinite(held_out)])
    return Familiarity(described.mean_D, described.directions_qD, described.variances_q, described.residual, limit)


def _at_most(rows_ND: Rows, present: npt.NDArray[np.intp]) -> Rows:
    """The rows that are present; of more than `MOST_ROWS` so many, drawn the same way each time."""
    if len(present) > MOST_ROWS:
        present = np.sort(np.random.default_rng(0).choice(present, MOST_ROWS, replace=False))
    return rows_ND[present]


def _directions(centred_ND: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Principal directions, as rows, and the variances along them, largest first."""
    _, singular, directions = np.linalg.svd(centred_ND, full_matrices=False)
    return directions, singular**2 / len(centred_ND)


def _conformal(distances_N: npt.NDArray[np.float64]) -> float:
    """The ceil((N + 1) (1 - ALARMS))-th smallest; the largest where there are too few to tell."""
    if not len(distances_N):
        return math.inf
    rank = min(len(distances_N), math.ceil((len(distances_N) + 1) * (1 - ALARMS)))
    return float(np.sort(distances_N)[rank - 1])
