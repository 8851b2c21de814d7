"""Units: every row in one unit, every unit with one rank, whatever the number of ranks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.features.units import LARGEST_UNIT, SMALLEST_UNIT, owned_units, unit_count, unit_rows, unit_size

rows = st.integers(1, 20_000)


@given(rows)
def test_units_partition_the_rows_in_order(rows: int) -> None:
    units = [unit_rows(rows, unit) for unit in range(unit_count(rows))]
    assert list(itertools.chain.from_iterable(units)) == list(range(rows))
    assert all(units)
    assert {len(unit) for unit in units[:-1]} <= {unit_size(rows)}


@given(rows)
def test_units_are_neither_tiny_nor_huge(rows: int) -> None:
    assert SMALLEST_UNIT <= unit_size(rows) <= LARGEST_UNIT


@given(rows, st.integers(1, 64))
def test_every_unit_has_one_owner(rows: int, world_size: int) -> None:
    owned = [unit for rank in range(world_size) for unit in owned_units(rows, rank, world_size)]
    assert sorted(owned) == list(range(unit_count(rows)))


@given(rows, st.integers(1, 64))
def test_ranks_own_equal_shares(rows: int, world_size: int) -> None:
    shares = [len(owned_units(rows, rank, world_size)) for rank in range(world_size)]
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(
    ("rows", "size", "count"),
    [(1, 8, 1), (8, 8, 1), (9, 8, 2), (128, 8, 16), (240, 15, 16), (1440, 90, 16), (2880, 180, 16), (2881, 180, 17)],
)
def test_sizes_that_stores_rely_on(rows: int, size: int, count: int) -> None:
    """A change here makes every existing store unreadable."""
    assert (unit_size(rows), unit_count(rows)) == (size, count)


def test_1440_clips_over_seven_ranks() -> None:
    assert [list(owned_units(1440, rank, 7)) for rank in range(7)] == [
        [0, 7, 14],
        [1, 8, 15],
        [2, 9],
        [3, 10],
        [4, 11],
        [5, 12],
        [6, 13],
    ]
