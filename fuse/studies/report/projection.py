"""Features on two axes: what a reader can see of how clips lie.

Shape letters: N clips, T clips of the training speakers, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

SMALLEST_SCALE = 1e-6
PERPLEXITY = 30.0
# With fewer there are no neighbours to speak of, and t-SNE is PCA.
FEWEST_ROWS = 5
Features = NDArray[np.floating]
Coordinates = NDArray[np.float64]


def standardised(features_ND: Features, training_TD: Features) -> NDArray[np.float64]:
    """Features in SDs of the training clips, about their mean; clips with NaN in `training_TD` do not count."""
    seen = training_TD[np.isfinite(training_TD).all(axis=1)].astype(np.float64)
    if not len(seen):
        raise ValueError("no clip of a training speaker has these features; leave the modality out")
    standard_ND: NDArray[np.float64] = (features_ND - seen.mean(0)) / np.maximum(seen.std(0), SMALLEST_SCALE)
    return standard_ND


def pca(features_ND: Features) -> Coordinates:
    """The first two principal components, (N, 2); signs are set, so that equal features give equal pictures."""
    if len(features_ND) == 1:
        return np.zeros((1, 2))
    components = min(2, *features_ND.shape)
    coordinates = PCA(components, svd_solver="full").fit_transform(features_ND.astype(np.float64))
    return _two_columns(coordinates)


def tsne(features_ND: Features) -> Coordinates:
    """t-SNE (van der Maaten & Hinton, JMLR 9, 2008), (N, 2), perplexity 30 or as much as so few clips allow.

    It starts from the principal components, which keeps the large distances meaningful (Kobak & Berens, Nature
    Communications 10, 2019), with a fixed seed: on one thread, equal features give equal pictures.
    """
    # Equal rows would be torn apart: of many at distance 0, only some are a clip's nearest neighbours.
    different_ND, place_N = np.unique(features_ND, axis=0, return_inverse=True)
    return _tsne(different_ND)[place_N]


def _tsne(features_ND: Features) -> Coordinates:
    start_N2 = pca(features_ND)
    if len(features_ND) < FEWEST_ROWS:
        return start_N2
    start_N2 *= 1e-4 / max(float(start_N2[:, 0].std()), SMALLEST_SCALE)
    perplexity = min(PERPLEXITY, (len(features_ND) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init=start_N2.astype(np.float32), random_state=0, learning_rate="auto")
    return np.asarray(model.fit_transform(features_ND.astype(np.float32)), dtype=np.float64)


METHODS: Mapping[str, Callable[[Features], Coordinates]] = {"PCA": pca, "t-SNE": tsne}


@dataclass(frozen=True)
class Projection:
    """One feature space on two axes.

    Attributes:
        coordinates: (N, 2) by method; NaN where a clip has no features.
        shares: of the variance, along the first and the second principal component.
    """

    coordinates: Mapping[str, Coordinates]
    shares: tuple[float, float]


def project(features_ND: Features, training_TD: Features) -> Projection:
    """Features standardised by the training clips, on two axes by every method.

    A clip with NaN features keeps NaN coordinates and moves no other.

    Raises:
        ValueError: no training clip has these features.
    """
    standard_ND = standardised(features_ND, training_TD)
    given = np.isfinite(standard_ND).all(axis=1)
    coordinates = {name: np.full((len(standard_ND), 2), np.nan) for name in METHODS}
    if not given.any():
        return Projection(coordinates, (0.0, 0.0))
    for name, method in METHODS.items():
        coordinates[name][given] = method(standard_ND[given])
    spread = max(float(standard_ND[given].var(axis=0).sum()), SMALLEST_SCALE)
    first, second = (coordinates["PCA"][given].var(axis=0) / spread).tolist()
    return Projection(coordinates, (first, second))


def _two_columns(coordinates: NDArray[np.float64]) -> Coordinates:
    missing = 2 - coordinates.shape[1]
    return np.pad(coordinates, ((0, 0), (0, missing)))
