"""Which frames are taken from a clip, and how they are brought to the encoder's size.

Shape letters: T frames, H height, W width, C colour channels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from extract.media.cut import PLAIN, Cut

Frames = npt.NDArray[np.uint8]


def even_indices(available: int, wanted: int) -> list[int]:
    """`wanted` evenly spaced indices into `available` frames, both ends included; they repeat in short clips."""
    return [round(i * (available - 1) / (wanted - 1)) for i in range(wanted)]


def resize_and_crop(frames_THWC: Frames, size: int, cut: Cut = PLAIN) -> Frames:
    """Resize the short side with antialiasing, then cut out the centre square of `size` pixels.

    Equals the image processors on PIL to within rounding: VideoMAE's with `bilinear`, CLIP's with `bicubic` (but
    where a picture is more than twice as high as wide, Pillow filters columns first). Both round after rows and after
    columns: one grey level apart, or two in one value of ten thousand, where weights such as those of 5 to 4 make
    ties. decord's own resize does not filter and differs by up to 177 of 255.
    """
    height, width = frames_THWC.shape[1:3]
    short = cut.short_side or size
    scaled = (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
    top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    whole = [_resize(frame_HWC, scaled, cut.resample) for frame_HWC in frames_THWC]
    return np.ascontiguousarray(np.stack(whole)[:, top : top + size, left : left + size])


def _resize(frame_HWC: Frames, scaled: tuple[int, int], resample: str) -> Frames:
    import torch  # the launcher reads this module and needs none

    # uint8 input takes torch's fixed-point path, the same arithmetic as Pillow's.
    frame_1CHW = torch.from_numpy(frame_HWC).permute(2, 0, 1)[None]
    small_1CHW = torch.nn.functional.interpolate(frame_1CHW, scaled, mode=resample, antialias=True)
    return small_1CHW[0].permute(1, 2, 0).numpy()
