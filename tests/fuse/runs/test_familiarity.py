"""How far a row lies from the training rows."""

from __future__ import annotations

import numpy as np
import pytest

from fuse.runs import familiarity as module
from fuse.runs.familiarity import familiarity


def rows(count: int, seed: int, width: int = 40) -> np.ndarray:
    """Rows in a plane of six directions, and a little of all others."""
    rng = np.random.default_rng(seed)
    plane = np.random.default_rng(0).standard_normal((6, width))
    return (rng.standard_normal((count, 6)) @ plane + 0.1 * rng.standard_normal((count, width)) + 3).astype(np.float32)


def test_of_rows_like_the_validation_rows_two_percent_lie_beyond_the_limit() -> None:
    described = familiarity(rows(600, 1), rows(400, 2))
    alarms = described.distances(rows(4000, 3)) > described.limit
    assert 0.005 < alarms.mean() < 0.045


def test_a_shift_off_the_plane_is_found_and_one_along_it_only_when_it_is_large() -> None:
    described = familiarity(rows(600, 1), rows(400, 2))
    off = rows(200, 4) + 0.5 * np.random.default_rng(5).standard_normal(40).astype(np.float32)
    assert (described.distances(off) > described.limit).mean() > 0.95


def test_the_distance_is_mahalanobis_where_every_direction_is_kept() -> None:
    train = np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32) * [1.0, 2.0, 5.0]
    described = familiarity(train.astype(np.float32), train[:50].astype(np.float32))
    probe = np.array([[1.0, -2.0, 4.0]], np.float32)
    centred = probe[0] - train.mean(0)
    expected = np.sqrt(centred @ np.linalg.inv(np.cov(train.T, bias=True)) @ centred / 3)
    assert described.distances(probe)[0] == pytest.approx(expected, rel=1e-4)


def test_absent_rows_do_not_count_and_have_no_distance() -> None:
    train, validation = rows(100, 1), rows(50, 2)
    with_gaps = np.concatenate([train, np.full((5, 40), np.nan, np.float32)])
    one, other = familiarity(train, validation), familiarity(with_gaps, np.concatenate([validation, with_gaps[-1:]]))
    assert one.limit == other.limit
    assert np.isnan(one.distances(with_gaps[-1:])).all()


def test_fewer_than_two_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two training rows"):
        familiarity(rows(1, 0), rows(5, 1))


def test_of_very_many_rows_some_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    # All were decomposed: of a million rows 768 wide, 20 GB and more.
    monkeypatch.setattr(module, "MOST_ROWS", 200)
    train = rows(600, 1)
    train[5] = np.nan
    described, again = (familiarity(train, rows(400, 2)) for _ in range(2))
    assert described.limit != familiarity(train[:200], rows(400, 2)).limit
    assert described.limit == again.limit
    alarms = described.distances(rows(4000, 3)) > described.limit
    assert 0.005 < alarms.mean() < 0.045
