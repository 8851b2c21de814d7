"""Of the frames that come out of a decoder, those that are kept: upright, in the order in which they are shown.

Shape letters: T frames, H height, W width, C colour channels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence

import av
import numpy as np

from extract.media.cut import Cut
from extract.media.frames import Frames, even_indices, resize_and_crop


class Picture:
    """Keeps some frames of a track, each as `reduce` leaves it, so that memory does not grow with the clip.

    Attributes:
        count: how many came so far.
        times: when each is shown, by the clock of the file, in seconds.
        kept: by their numbers, those that are wanted.
    """

    def __init__(self, wanted: Sequence[int], reduce: Callable[[Frames], Frames]) -> None:
        """`wanted`: numbers of frames, as the decoder counts them; `reduce`: from (H, W, C) to what is kept of it."""
        self.wanted, self.reduce = frozenset(wanted), reduce
        self.count = 0
        self.times: list[float] = []
        self.kept: dict[int, Frames] = {}

    def add(self, frame: av.VideoFrame) -> None:
        """Take the next decoded frame.

        Raises:
            ValueError: the decoder says that it is damaged.
        """
        if frame.is_corrupt:
            raise ValueError("damaged inside: a frame could not be decoded as it was")
        if self.count in self.wanted:
            self.kept[self.count] = self.reduce(upright(frame))
        self.count += 1
        # Without a clock frames follow the one before.
        self.times.append(self.times[-1] if frame.time is None and self.times else frame.time or 0.0)


def frame_numbers(decoded: int, repeats: Mapping[int, int], wanted: int) -> list[int]:
    """The numbers of `wanted` evenly spaced frames, among `decoded` ones of which some are shown more than once."""
    shown = np.array([1 + repeats.get(number, 0) for number in range(decoded)])
    last_shown = np.cumsum(shown)
    numbers: list[int] = np.searchsorted(last_shown, even_indices(int(last_shown[-1]), wanted), side="right").tolist()
    return numbers


def upright(frame: av.VideoFrame) -> Frames:
    """The frame (H, W, C) in RGB as a player shows it: turned and mirrored as its display matrix says.

    The matrix takes (x, y) to (a x + c y, b x + d y); of other angles than quarter turns the nearest one is taken.
    """
    frame_HWC: Frames = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return frame_HWC
    a, b, _, c, d, *_ = struct.unpack("<9i", bytes(matrix))
    right, down = (a, d) if abs(a) >= abs(b) else (c, b)
    turned_HWC = frame_HWC if abs(a) >= abs(b) else frame_HWC.transpose(1, 0, 2)
    return np.ascontiguousarray(turned_HWC[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])


def reduction(size: int, cut: Cut) -> Callable[[Frames], Frames]:
    """What is kept of a frame (H, W, C) as it is read: small, or whole where a face is still to be looked for in it."""
    return _whole if cut.face else lambda frame_HWC: resize_and_crop(frame_HWC[None], size, cut)[0]


def brought_to_size(kept: Sequence[Frames], size: int, cut: Cut) -> tuple[Frames, bool | None]:
    """The kept frames (T, size, size, C) of one clip, and whether a face was found; None where none was looked for.

    Raises:
        ValueError: a face is looked for, and the frames differ in size.
    """
    if not cut.face:
        return np.stack(kept), None
    from extract.media.face import crop_to_face

    if len({frame_HWC.shape for frame_HWC in kept}) > 1:
        raise ValueError("the picture changes its size on the way: no face can be followed")
    square_THWC, face_found = crop_to_face(np.stack(kept))
    return resize_and_crop(square_THWC, size, cut), face_found


def _whole(frame_HWC: Frames) -> Frames:
    return frame_HWC
