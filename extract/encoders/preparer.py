"""The half of an encoder that is not a network: from a clip's signal to the arrays that the network takes.

Preparers hold settings and vocabularies, a few megabytes at most, and can be pickled: threads and loader processes
get them without any weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch

from extract.encoders.models import Model
from extract.encoders.options import DEFAULT, EncoderOptions

Array = npt.NDArray[Any]
Inputs = dict[str, torch.Tensor]
# The input that counts each clip's own tokens. It stays on the CPU in stage one: reading it would wait for the GPU.
OWN = "own_B"


@dataclass(frozen=True)
class Span:
    """A window of a clip: from `start` up to, and without, `end`; `new` of it lie in no window before it."""

    start: int
    end: int
    new: int


def spans(length: int, window: int, hop: int) -> list[Span]:
    """Windows of equal length that cover a clip which is longer; the last one ends where the clip ends.

    Args:
        length: of the clip, in samples or tokens.
        window: of each window, less than `length`.
        hop: from the beginning of a window to that of the next, `window` at most.
    """
    assert 0 < hop <= window < length, (hop, window, length)
    starts = [*range(0, length - window, hop), length - window]
    ends = [start + window for start in starts]
    return [Span(start, end, end - before) for start, end, before in zip(starts, ends, [0, *ends], strict=False)]


@dataclass(frozen=True, eq=False)
class Alone:
    """The `batch_key` of a clip that is encoded in so many windows: it equals no other, so nothing shares its batch."""

    windows: int


@dataclass(frozen=True)
class Window:
    """A part of a clip, encoded as if it were a clip; `weight`: how much of the clip is in no window before it."""

    signal: Any
    weight: int


def _nothing() -> None:
    """Nothing is done between two windows."""


@dataclass(frozen=True)
class Windows:
    """A clip that is longer than what its encoder takes at a time.

    Attributes:
        parts: in their order. They are prepared when it is their turn: what a long clip takes of memory is its signal.
        between: called before every few of them; ends the work by raising.
    """

    parts: tuple[Window, ...]
    between: Callable[[], object] = _nothing


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
        """Clips with equal keys may share a batch; one in windows is `Alone`.

        Raises:
            ValueError: the signal cannot be encoded; that clip fails.
        """

    def padded_key(self, signal: Any) -> Hashable:
        """The same where rounding may differ between batches, as in training: clips that are padded may share one, if
        the network is told which part of each is its own."""
        return self.batch_key(signal)

    @abstractmethod
    def inputs(self, signals: Sequence[Any]) -> Inputs:
        """What the network takes, on the CPU. The signals agree in `batch_key`, unless a class says otherwise."""

    def windows(self, _: Any) -> Windows | None:
        """The windows of a clip that is encoded in several; None: it is encoded whole."""
        return None

    def prepare(self, signals: Sequence[Any]) -> Inputs | Windows:
        """The same for `Encoder.encode_prepared`; may run in a thread beside it."""
        cut = [windows for signal in signals if (windows := self.windows(signal))]
        assert len(signals) == 1 or not cut, "a clip in windows shares no batch"
        return cut[0] if cut else self._pinned(self.inputs(signals))

    def prepare_windows(self, windows: Sequence[Window]) -> Inputs:
        """The same of a few windows of one clip."""
        return self._pinned(self.inputs([window.signal for window in windows]))

    def _pinned(self, inputs: Inputs) -> Inputs:
        return {name: values.pin_memory() for name, values in inputs.items()} if self.pinned else inputs
