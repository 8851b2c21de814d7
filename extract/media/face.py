"""Where the face is: the Haar cascade (Viola & Jones, CVPR 2001) that ships inside opencv-python-headless.

A face is a box in shares of the picture, so that it means the same at every size. Where eyes and mouth lie
in it was measured on eight actors of RAVDESS (three stills each, OpenCV's eye and smile cascades): eyes at
(0.31 and 0.68, 0.40) of the face box, standard deviation 0.01; mouth at (0.50, 0.83), 0.02. The distance of
the eyes, 0.37 of the box, is 63 mm in adults (Dodgson, Variation and extrema of human interpupillary
distance, SPIE 5291, 2004, p. 36), so one per cent of the box is about 1.7 mm.

Shape letters: T frames, H height, W width, C colour channels.
"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from cv2.data import haarcascades

from extract.media.frames import Frames, even_indices

CASCADE = "haarcascade_frontalface_default.xml"
FRAMES_LOOKED_AT = 5
DETECTION_SIDE = 160  # pixels of the short side of the picture that the cascade sees
SMALLEST_FACE = 1 / 6  # of the short side
MARGIN = 0.2  # of the face box, added on each side of it by the face crop
# One object must not be used by two threads at once.
_DETECTING = threading.Lock()


class Box(NamedTuple):
    """A rectangle. From 0 to 1, in shares of the picture or of another box."""

    left: float
    top: float
    width: float
    height: float

    def inside(self, outer: Box) -> Box:
        """This box, given in shares of `outer`, in the shares that `outer` is given in."""
        left, top = outer.left + self.left * outer.width, outer.top + self.top * outer.height
        return Box(left, top, self.width * outer.width, self.height * outer.height)

    def pixels(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of a picture of that size; what lies outside is left out, one pixel is always in."""
        rows = _whole(self.top * height, (self.top + self.height) * height, height)
        return rows, _whole(self.left * width, (self.left + self.width) * width, width)


# Brows and lids: from 31 mm above the pupils to 20 mm below them, 27 mm to the outside of each.
EYES = Box(0.15, 0.22, 0.69, 0.30)
# From under the nose to the chin that the box cuts off, so that an open mouth is covered too.
MOUTH = Box(0.25, 0.68, 0.50, 0.32)
# The usual face of RAVDESS in the centre crop: mean of the same stills. Stands in where none is found.
CENTRED_FACE = Box(0.21, 0.21, 0.58, 0.58)


def find_face(frames_THWC: Frames) -> Box | None:
    """The largest frontal face of a clip, as a share of the picture: the median over five even frames.

    None where fewer than half of the frames looked at show one: a single hit is as likely to be a mistake.
    """
    looked_at = sorted(set(even_indices(len(frames_THWC), FRAMES_LOOKED_AT)))
    found = [box for box in (_largest_face(frames_THWC[index]) for index in looked_at) if box is not None]
    return Box(*np.median(found, axis=0).tolist()) if 2 * len(found) >= len(looked_at) else None


def crop_to_face(frames_THWC: Frames) -> tuple[Frames, bool]:
    """Cut one square around the face out of all frames: 1.4 times the face box, clamped inside the picture.

    Returns:
        the cut frames (T, S, S, C) and True, or the frames as they are and False where no face is found.
    """
    face = find_face(frames_THWC)
    if face is None:
        return frames_THWC, False
    rows, columns = face_square(face, *frames_THWC.shape[1:3])
    return frames_THWC[:, rows, columns], True


def face_square(face: Box, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the square around `face` in a picture of that size."""
    larger = max(face.width * width, face.height * height)
    side = min(round(larger * (1 + 2 * MARGIN)), height, width)
    top = _clamped((face.top + face.height / 2) * height - side / 2, height - side)
    left = _clamped((face.left + face.width / 2) * width - side / 2, width - side)
    return slice(top, top + side), slice(left, left + side)


def _clamped(start: float, last: int) -> int:
    return min(max(round(start), 0), last)


def _whole(start: float, stop: float, size: int) -> slice:
    first = _clamped(start, size - 1)
    return slice(first, max(first + 1, min(round(stop), size)))


def _largest_face(frame_HWC: Frames) -> Box | None:
    cv2.setNumThreads(1)  # the ranks share the cores
    grey_HW = _small_grey(frame_HWC)
    height, width = grey_HW.shape
    smallest = max(1, round(SMALLEST_FACE * min(height, width)))
    with _DETECTING:
        found = _cascade().detectMultiScale(grey_HW, scaleFactor=1.1, minNeighbors=5, minSize=(smallest, smallest))
    if not len(found):
        return None
    # Of equal ones the leftmost: the order of detection is not promised.
    x, y, w, h = min((tuple(map(int, box)) for box in found), key=lambda box: (-box[2] * box[3], box))
    return Box(x / width, y / height, w / width, h / height)


def _small_grey(frame_HWC: Frames) -> npt.NDArray[np.uint8]:
    grey_HW = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)
    height, width = grey_HW.shape
    scale = DETECTION_SIDE / min(height, width)
    if scale < 1:
        grey_HW = cv2.resize(grey_HW, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    # Spread the grey levels: without it dark faces before a light wall are missed.
    return np.asarray(cv2.equalizeHist(grey_HW), np.uint8)


@cache
def _cascade() -> cv2.CascadeClassifier:
    cascade = cv2.CascadeClassifier(str(Path(haarcascades) / CASCADE))
    assert not cascade.empty(), "opencv-python-headless 4 ships the cascades, 5 does not"
    return cascade
