"""A linear probe: one layer on the concatenation of all modalities.

Shape letters: M heads of the stack, B clips, D width of the concatenation, C classes.
"""

from __future__ import annotations

import torch

from fuse.model.heads.base import Drop, Outputs, Rows, Shape, decided
from fuse.model.heads.layer import Weights, draw_linear, linear


def draw_probe(shape: Shape, generator: torch.Generator) -> Weights:
    """The starting weights: of one layer, from the concatenation to the classes."""
    return draw_linear("out", shape.width, shape.classes, generator)


def probe(weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> Outputs:
    """One layer; dropout of its inputs."""
    del shape
    return decided(linear(weights, "out", drop(rows.values_MBD)), rows.values_MBD)


def undropped_probe(weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> Outputs:
    """One layer that was solved: nothing is dropped."""
    del drop
    return probe(weights, shape, rows, lambda values: values)
