"""Units: fixed runs of consecutive rows, the grain of ownership, writing and resuming.

They follow from the number of clips alone, never from the number of ranks or from what is missing,
so that a run on one rank, on seven, or continued after a crash writes the same bytes.
"""

from __future__ import annotations

LARGEST_UNIT = 180
# Small corpora are cut into about sixteen units, so that a few ranks finish at about the same time.
USUAL_UNITS = 16
SMALLEST_UNIT = 8
# To open a column takes longer than to read a chunk of it; a million rows of text at once fill the memory.
UNITS_PER_BLOCK = 32


def unit_size(rows: int) -> int:
    """Rows per unit for a corpus of `rows` clips."""
    return min(LARGEST_UNIT, max(SMALLEST_UNIT, -(-rows // USUAL_UNITS)))


def unit_rows(rows: int, unit: int) -> range:
    """The rows of one unit."""
    size = unit_size(rows)
    return range(unit * size, min(rows, (unit + 1) * size))


def unit_count(rows: int) -> int:
    """Number of units."""
    return -(-rows // unit_size(rows))


def owned_units(rows: int, rank: int, world_size: int) -> range:
    """The units a rank works on: by unit number alone."""
    return range(rank, unit_count(rows), world_size)


def block_rows(rows: int, unit: int) -> range:
    """The rows of a unit and of its neighbours, which are read together where a column is gone through in order."""
    first = unit - unit % UNITS_PER_BLOCK
    return range(unit_rows(rows, first).start, min(rows, (first + UNITS_PER_BLOCK) * unit_size(rows)))
