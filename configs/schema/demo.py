"""What the demo may be told, and the sizes of its random encoders."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from configs.loader import STRICT


@dataclass(frozen=True, config=STRICT)
class DemoConfig:
    """Configuration of `python -m fuse.demo`; its stages have YAML files of their own beside demo.yaml.

    Attributes:
        root: gets the synthetic clips and the small encoders.
        seed: of the corpus.
        repetitions: times that each speaker says each sentence with each emotion.
    """

    root: str = "data/demo"
    seed: Annotated[int, Field(ge=0)] = 0
    repetitions: Annotated[int, Field(ge=1, le=2)] = 1


@dataclass(frozen=True, config=STRICT)
class RandomEncodersConfig:
    """Configuration of `python -m extract.random_encoders`.

    Attributes:
        out: folder that gets wav2vec2/, videomae/ and roberta/.
        width: size of a hidden state; a multiple of 16.
        blocks: transformer blocks per encoder.
        size: pixels that the video encoder takes; a multiple of `patch`.
        patch: pixels per side of a video patch.
        seed: of the weights.
    """

    out: str
    width: Annotated[int, Field(ge=16, le=768, multiple_of=16)] = 64
    blocks: Annotated[int, Field(ge=1, le=12)] = 2
    size: Annotated[int, Field(ge=16, le=224)] = 224
    patch: Annotated[int, Field(ge=4, le=32)] = 16
    seed: int = 0

    def __post_init__(self) -> None:
        """Patches must tile the picture."""
        if self.size % self.patch:
            raise ValueError(f"size {self.size} must be a multiple of patch {self.patch}")
