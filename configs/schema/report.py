"""What `make report` may be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from configs.loader import STRICT


@dataclass(frozen=True, config=STRICT)
class ReportConfig:
    """Configuration of `python -m fuse.report`.

    Attributes:
        run: folder of a run of stage two; gets features.png, layers.png and layers.csv.
        corpus, features_dir: as in the run when null.
        threads: of everything that is computed; with one, equal runs give equal pictures.
    """

    run: str = "outputs/fusion"
    corpus: str | None = None
    features_dir: str | None = None
    threads: Annotated[int, Field(ge=1)] = 1
