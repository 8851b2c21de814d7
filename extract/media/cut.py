"""How frames are brought to an encoder's size. No torch: the launcher reads it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configs.schema.features import MediaSettings


@dataclass(frozen=True)
class Cut:
    """How a picture becomes a square.

    Attributes:
        face: cut a square around the face first; where none is found, the centre is cut as ever.
        short_side: pixels that the short side is brought to before the centre is cut out; 0: the square's side.
        resample: filter of the resize, `bilinear` or `bicubic`.
    """

    face: bool = False
    short_side: int = 0
    resample: str = "bilinear"

    @classmethod
    def of(cls, settings: MediaSettings) -> Cut:
        """As the configuration asks."""
        return cls(settings.face_crop, settings.short_side, settings.resample)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What differs from the plain cut."""
        named = {"face_crop": self.face, "short_side": self.short_side, "resample": self.resample}
        plain = {"face_crop": False, "short_side": 0, "resample": "bilinear"}
        return {name: value for name, value in named.items() if value != plain[name]}


PLAIN = Cut()
