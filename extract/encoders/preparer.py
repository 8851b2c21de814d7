"""The half of an encoder that is not a network: from a clip's signal to the arrays that the network takes.

Preparers hold settings and vocabularies, a few megabytes at most, and can be pickled: threads and loader processes
get them without any weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any

import numpy.typing as npt
import torch

from extract.encoders.models import Model
from extract.encoders.options import DEFAULT, EncoderOptions

Array = npt.NDArray[Any]
Inputs = dict[str, torch.Tensor]
# The input that counts each clip's own tokens. It stays on the CPU in stage one: reading it would wait for the GPU.
OWN = "own_B"


class Preparer(ABC):
    """What a model's own preprocessing makes of clips.

    Attributes:
        pinned: `prepare` puts its tensors where a GPU can fetch them while it computes; only beside a GPU.
    """

    pinned = False

    def __init__(self, model: Model, options: EncoderOptions = DEFAULT) -> None:
        """Read the settings of the model's folder.

        Raises:
            ValueError: they are not there, or do not fit what the media store keeps.
        """
        self.model, self.options = model, options

    @abstractmethod
    def batch_key(self, signal: Any) -> Hashable:
        """Clips with equal keys may share a batch.

        Raises:
            ValueError: the signal cannot be encoded; that clip fails.
        """

    @abstractmethod
    def inputs(self, signals: Sequence[Any]) -> Inputs:
        """What the network takes, on the CPU. The signals agree in `batch_key`, unless a class says otherwise."""

    def prepare(self, signals: Sequence[Any]) -> Inputs:
        """The same for `Encoder.encode_prepared`; may run in a thread beside it."""
        inputs = self.inputs(signals)
        return {name: values.pin_memory() for name, values in inputs.items()} if self.pinned else inputs
