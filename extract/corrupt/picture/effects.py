"""Picture conditions: what is done to the sampled frames of a clip. The input is never modified.

Each takes the frames (T, H, W, 3) uint8, the level of its kind, and a generator: it draws from that alone.

Shape letters: T frames, H height, W width, C colour channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from extract.corrupt.picture.codec import through_h264
from extract.media.face import CENTRED_FACE, EYES, MOUTH, Box, find_face
from extract.media.frames import Frames

Indices = npt.NDArray[np.intp]


def occlude_block(frames_THWC: Frames, percent: int, rng: np.random.Generator) -> Frames:
    """Black out one randomly placed block of `percent` of the area, the same in every frame."""
    height, width = frames_THWC.shape[1:3]
    block_height = max(1, round(height * (percent / 100) ** 0.5))
    block_width = min(width, max(1, round(percent / 100 * height * width / block_height)))
    top = int(rng.integers(0, height - block_height + 1))
    left = int(rng.integers(0, width - block_width + 1))
    occluded_THWC = frames_THWC.copy()
    occluded_THWC[:, top : top + block_height, left : left + block_width] = 0
    return occluded_THWC


def drop_frames(frames_THWC: Frames, percent: int, rng: np.random.Generator) -> Frames:
    """Drop `percent` of the frames; each is replaced by the last kept one (leading ones by the first kept)."""
    return frames_THWC[kept_frames(len(frames_THWC), percent, rng)]


def kept_frames(count: int, percent: int, rng: np.random.Generator) -> Indices:
    """For each frame the index of the frame that is shown in its place; at least one frame is kept."""
    dropped = rng.choice(count, min(count - 1, round(percent / 100 * count)), replace=False)
    shown = np.arange(count)
    shown[dropped] = -1
    first = shown[shown >= 0][0]
    replacement: Indices = np.maximum(np.maximum.accumulate(shown), first)
    return replacement


def freeze_frames(frames_THWC: Frames, percent: int, rng: np.random.Generator) -> Frames:
    """Hold the picture for one run of `percent` of the frames, as a stalled stream does."""
    return frames_THWC[frozen_frames(len(frames_THWC), percent, rng)]


def frozen_frames(count: int, percent: int, rng: np.random.Generator) -> Indices:
    """For each frame the index of the frame that is shown in its place.

    The run starts anywhere and shows the frame before it (at the very start, the first one after it).
    """
    frozen = min(count - 1, round(percent / 100 * count))
    start = int(rng.integers(0, count - frozen + 1))
    shown = np.arange(count)
    shown[start : start + frozen] = start - 1 if start else frozen
    return shown


def occlude_eyes(frames_THWC: Frames, _level: int, _rng: np.random.Generator) -> Frames:
    """Black out eyes and brows: one box for all frames, where `extract.media.face` finds or expects them."""
    return _blacked_out(frames_THWC, EYES)


def occlude_mouth(frames_THWC: Frames, _level: int, _rng: np.random.Generator) -> Frames:
    """Black out the mouth: one box for all frames, where `extract.media.face` finds or expects it."""
    return _blacked_out(frames_THWC, MOUTH)


def _blacked_out(frames_THWC: Frames, part_of_face: Box) -> Frames:
    face = find_face(frames_THWC) or CENTRED_FACE
    rows, columns = part_of_face.inside(face).pixels(*frames_THWC.shape[1:3])
    occluded_THWC = frames_THWC.copy()
    occluded_THWC[:, rows, columns] = 0
    return occluded_THWC


def occlude_left(frames_THWC: Frames, _level: int, _rng: np.random.Generator) -> Frames:
    """Black out the left half of the picture, as one looks at it."""
    occluded_THWC = frames_THWC.copy()
    occluded_THWC[:, :, : frames_THWC.shape[2] // 2] = 0
    return occluded_THWC


def occlude_right(frames_THWC: Frames, _level: int, _rng: np.random.Generator) -> Frames:
    """Black out the right half of the picture, as one looks at it."""
    occluded_THWC = frames_THWC.copy()
    occluded_THWC[:, :, frames_THWC.shape[2] - frames_THWC.shape[2] // 2 :] = 0
    return occluded_THWC


def black_screen(frames_THWC: Frames, _level: int, _rng: np.random.Generator) -> Frames:
    """All frames black: the video is there, unlike in a clip without video, and shows nothing."""
    return np.zeros_like(frames_THWC)


def blur_gaussian(frames_THWC: Frames, sigma_px: int, _rng: np.random.Generator) -> Frames:
    """Out of focus: a Gaussian of standard deviation `sigma_px` pixels of the stored frame."""
    return _filtered(frames_THWC, lambda frame_HWC: cv2.GaussianBlur(frame_HWC, (0, 0), sigma_px))


def blur_motion(frames_THWC: Frames, length_px: int, rng: np.random.Generator) -> Frames:
    """A camera that moved: every pixel is smeared along a straight line, at one angle for the whole clip."""
    kernel_KK = motion_kernel(length_px, rng.uniform(0, np.pi))
    return _filtered(frames_THWC, lambda frame_HWC: cv2.filter2D(frame_HWC, -1, kernel_KK))


def motion_kernel(length_px: int, angle: float) -> npt.NDArray[np.float32]:
    """A line through the middle of a square: each pixel weighs as much of the line as lies in it.

    Args:
        length_px: length of the line in pixels.
        angle: between the line and the rows, in radians.

    Returns:
        (K, K) float32 with K odd and at least `length_px`; sums to 1.
    """
    reach = length_px // 2
    steps = 64 * length_px
    offsets_N = (np.arange(steps) + 0.5) / 64 - length_px / 2
    rows_N = np.rint(offsets_N * np.sin(angle)).astype(int).clip(-reach, reach) + reach
    columns_N = np.rint(offsets_N * np.cos(angle)).astype(int).clip(-reach, reach) + reach
    kernel_KK = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    np.add.at(kernel_KK, (rows_N, columns_N), 1 / steps)
    return kernel_KK


def light_low(frames_THWC: Frames, percent: int, _rng: np.random.Generator) -> Frames:
    """Leave `percent` of the light: as a shorter exposure does, without its noise.

    Light adds up before the camera's tone curve, so the grey levels are taken back to it (sRGB, IEC
    61966-2-1), dimmed, and curved again: a quarter of the light leaves about half of the grey level.
    """
    light_256 = _linear(np.arange(256) / 255) * percent / 100
    levels_256 = np.rint(255 * _curved(light_256)).astype(np.uint8)
    return levels_256[frames_THWC]


def _linear(level: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def _curved(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def noise_pixel(frames_THWC: Frames, percent: int, rng: np.random.Generator) -> Frames:
    """Add Gaussian noise with a standard deviation of `percent` of full scale, anew in each frame and channel.

    As Gaussian noise in Hendrycks & Dietterich (arXiv 1903.12261, ImageNet-C: 8 to 38 per cent); rounded
    and cut off at black and white.
    """
    noisy_THWC = rng.standard_normal(frames_THWC.shape, np.float32)
    noisy_THWC *= 2.55 * percent
    noisy_THWC += frames_THWC
    return np.rint(noisy_THWC).clip(0, 255).astype(np.uint8)


def codec_h264(frames_THWC: Frames, kbps: int, _rng: np.random.Generator) -> Frames:
    """Encode at `kbps` and decode: see `extract.corrupt.picture.codec`."""
    return through_h264(frames_THWC, kbps)


def shift_picture(frames_THWC: Frames, pixels: int, rng: np.random.Generator) -> Frames:
    """The picture moved by `pixels`, the whole clip up, down, left or right; its edge is repeated where it came from.

    As the translations of ImageNet-P (arXiv 1903.12261), which ask whether the answer stays.
    """
    height, width = frames_THWC.shape[1:3]
    down, right = ((pixels, 0), (-pixels, 0), (0, pixels), (0, -pixels))[rng.integers(4)]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return np.ascontiguousarray(frames_THWC[:, rows][:, :, columns])


def _filtered(frames_THWC: Frames, blur: Callable[[Frames], npt.NDArray[Any]]) -> Frames:
    """Each frame through an OpenCV filter. Beyond its edges the picture is mirrored, OpenCV's default."""
    cv2.setNumThreads(1)  # the ranks share the cores
    return np.stack([blur(frame_HWC) for frame_HWC in frames_THWC]).astype(np.uint8, copy=False)


PICTURE: dict[str, Callable[[Frames, int, np.random.Generator], Frames]] = {
    "occlude-block": occlude_block,
    "occlude-eyes": occlude_eyes,
    "occlude-mouth": occlude_mouth,
    "occlude-left": occlude_left,
    "occlude-right": occlude_right,
    "drop-frames": drop_frames,
    "freeze-frames": freeze_frames,
    "blur-gaussian": blur_gaussian,
    "blur-motion": blur_motion,
    "light-low": light_low,
    "noise-pixel": noise_pixel,
    "codec-h264": codec_h264,
    "black-screen": black_screen,
    "shift-picture": shift_picture,
}
