"""Shapley values: hand-computed games, and the properties that define them."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuse.predict.contributions import shapley_values, subsets

NAMES = ("audio", "video", "text")
worths = st.lists(st.floats(0, 1), min_size=8, max_size=8).map(
    lambda values: dict(zip(subsets(NAMES), values, strict=True))
)


def test_a_glove_game() -> None:
    """Audio has a left glove, video and text a right one each: a pair is worth 1 (Shapley 1953's kind of example)."""
    worth = {subset: float("audio" in subset and len(subset) > 1) for subset in subsets(NAMES)}
    assert shapley_values(worth, NAMES) == pytest.approx({"audio": 2 / 3, "video": 1 / 6, "text": 1 / 6})


@given(worths)
def test_it_is_the_mean_over_all_orders_of_arrival(worth: dict[frozenset[str], float]) -> None:
    expected = dict.fromkeys(NAMES, 0.0)
    for order in permutations(NAMES):
        for place, name in enumerate(order):
            before = frozenset(order[:place])
            expected[name] += (worth[before | {name}] - worth[before]) / 6
    assert shapley_values(worth, NAMES) == pytest.approx(expected, abs=1e-12)


@given(worths)
def test_values_add_up_to_the_whole(worth: dict[frozenset[str], float]) -> None:
    total = sum(shapley_values(worth, NAMES).values())
    assert total == pytest.approx(worth[frozenset(NAMES)] - worth[frozenset()], abs=1e-12)
