"""Frames are brought to size as the models' own processors do it, bilinear and bicubic."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from extract.media.cut import Cut
from extract.media.frames import resize_and_crop
from tests.tiny.corpus import pictures

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def rough(width: int, height: int, count: int = 2) -> npt.NDArray[np.uint8]:
    """Edges, gradients and noise up to black and white, where bicubic overshoots."""
    rng = np.random.default_rng(0)
    noise = rng.integers(-90, 90, (count, height, width, 3))
    rough_THWC: npt.NDArray[np.uint8] = np.clip(pictures(count, width, height) + noise, 0, 255).astype(np.uint8)
    return rough_THWC


@given(st.sampled_from(list(FILTERS)), st.integers(40, 300), st.integers(40, 300))
@settings(max_examples=30, deadline=None)
@example("bilinear", 70, 70)
@example("bilinear", 280, 70)
def test_pixels_are_pillows_to_within_rounding(resample: str, width: int, height: int) -> None:
    # Higher than twice the width, Pillow filters columns first: where bicubic overshoots, the order matters.
    assume(resample == "bilinear" or height <= 2 * width)
    size = 56
    scaled = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    frames_THWC = rough(width, height)
    small_THWC = resize_and_crop(frames_THWC, size, Cut(resample=resample))
    for frame_HWC, shown_HWC in zip(frames_THWC, small_THWC, strict=True):
        whole = Image.fromarray(frame_HWC).resize(scaled, FILTERS[resample])
        expected = np.asarray(whole.crop((left, top, left + size, top + size))).astype(int)
        apart_HWC = np.abs(shown_HWC - expected)
        # Two passes, each rounded: where 5 pixels become 4, ties go either way in both.
        assert apart_HWC.max() <= 2
        assert (apart_HWC > 1).mean() < 0.001
        assert apart_HWC.mean() < 0.4


@pytest.mark.parametrize(("width", "height"), [(640, 360), (243, 321), (100, 100), (224, 300)])
def test_bicubic_pixels_are_the_clip_processors_within_one_grey_level(width: int, height: int) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil()
    assert processor.resample == Image.Resampling.BICUBIC
    frames_THWC = rough(width, height)
    pixels_TCHW = np.asarray(processor(list(frames_THWC), return_tensors="np").pixel_values, np.float64)
    mean, std = (np.array(value)[:, None, None] for value in (processor.image_mean, processor.image_std))
    expected_THWC = 255 * (pixels_TCHW * std + mean).transpose(0, 2, 3, 1)
    deviation = np.abs(resize_and_crop(frames_THWC, 224, Cut(resample="bicubic")) - expected_THWC)
    assert deviation.mean() <= 1
    assert deviation.max() < 3
    # At the same size nothing is resampled, and the filters agree.
    if min(width, height) != 224:
        assert np.abs(resize_and_crop(frames_THWC, 224) - expected_THWC).mean() > 2 * deviation.mean()
