"""What the demo may be told."""

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
