from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from fuse.studies.report.projection import METHODS, pca, project, standardised, tsne


def clusters(each: int = 12, width: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three groups that lie apart, and which of them a row is of."""
    rng = np.random.default_rng(seed)
    centres = 6 * rng.normal(size=(3, width))
    labels = np.repeat(np.arange(3), each)
    return centres[labels] + rng.normal(size=(len(labels), width)), labels


@pytest.mark.parametrize("method", METHODS)
def test_groups_that_lie_apart_stay_apart(method: str) -> None:
    features, labels = clusters()
    coordinates = project(features, features).coordinates[method]
    distances = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(axis=1)] == labels).all()


def test_principal_components_and_their_shares() -> None:
    rng = np.random.default_rng(1)
    spread = np.array([5.0, 2.0, 0.5, 0.1])
    features = rng.normal(size=(200, 4)) * spread
    features -= features.mean(0)
    coordinates = pca(features)
    np.testing.assert_allclose(np.abs(np.corrcoef(coordinates[:, 0], features[:, 0])[0, 1]), 1, atol=1e-2)
    np.testing.assert_allclose(coordinates.std(0), spread[:2], rtol=0.15)
    # Standardised by rows of the same spread nothing stands out; by rows of spread 1 the first two do.
    np.testing.assert_allclose(project(features, features).shares, [0.25, 0.25], atol=0.08)
    unit = np.concatenate([np.eye(4), -np.eye(4)]) * 2
    np.testing.assert_allclose(project(features, unit).shares, spread[:2] ** 2 / (spread**2).sum(), rtol=0.15)


def test_the_training_clips_alone_set_the_scale() -> None:
    training = np.array([[0.0, 10.0], [2.0, 10.0], [np.nan, np.nan]])
    np.testing.assert_allclose(standardised(np.array([[3.0, 10.0]]), training), [[2.0, 0.0]])
    with pytest.raises(ValueError, match="no clip of a training speaker"):
        standardised(training, np.full((3, 2), np.nan))


@pytest.mark.parametrize("method", METHODS)
def test_a_clip_without_features_has_no_place_and_moves_no_other(method: str) -> None:
    features, _ = clusters(4)
    absent = np.insert(features, [0, 5], np.nan, axis=0)
    with threadpool_limits(1):
        alone, among = project(features, features), project(absent, features)
    given_rows = np.isfinite(absent).all(axis=1)
    assert np.isnan(among.coordinates[method][~given_rows]).all()
    np.testing.assert_array_equal(among.coordinates[method][given_rows], alone.coordinates[method])
    assert among.shares == alone.shares


def test_nobody_has_the_modality() -> None:
    nothing = project(np.full((3, 2), np.nan), np.eye(2))
    assert all(np.isnan(coordinates).all() for coordinates in nothing.coordinates.values())


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4))
def test_any_number_of_clips_has_a_place(clips: int, width: int) -> None:
    features = np.random.default_rng(clips).normal(size=(clips, width)).astype(np.float32)
    for coordinates in project(features, features).coordinates.values():
        assert coordinates.shape == (clips, 2)
        assert np.isfinite(coordinates).all()


def test_equal_clips_lie_on_one_another_whatever_their_order() -> None:
    """Two sentences are two rows, many times each."""
    features = np.random.default_rng(3).normal(size=(6, 8))[np.arange(60) % 6]
    order = np.random.default_rng(4).permutation(60)
    with threadpool_limits(1):
        placed, shuffled = tsne(features), tsne(features[order])
    np.testing.assert_array_equal(shuffled, placed[order])
    assert len(np.unique(placed, axis=0)) == 6


def test_equal_features_give_equal_pictures() -> None:
    features, _ = clusters()
    with threadpool_limits(1):
        np.testing.assert_array_equal(tsne(features), tsne(features.copy()))
