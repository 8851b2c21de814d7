"""Picture conditions do what their name says, and the same each time."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib

import numpy as np
import numpy.typing as npt
import pytest
import scipy.ndimage
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cache.conditions import KINDS, parse_condition
from extract.corrupt.picture.codec import CLIP_SECONDS, encoded
from extract.corrupt.picture.effects import PICTURE, frozen_frames, kept_frames, motion_kernel
from extract.media.face import CENTRED_FACE, EYES, MOUTH
from tests.tiny.corpus import pictures
from tests.tiny.places import ROOT

Frames = npt.NDArray[np.uint8]
EVERY = {
    "occlude-block-50": True,
    "occlude-eyes": False,
    "occlude-mouth": False,
    "occlude-left": False,
    "occlude-right": False,
    "drop-frames-30": True,
    "freeze-frames-50": True,
    "blur-gaussian-4px": False,
    "blur-motion-15px": True,
    "light-low-25": False,
    "noise-pixel-10": True,
    "codec-h264-30kbps": False,
    "black-screen": False,
    "shift-picture-4px": True,
}
sizes = st.sampled_from([(64, 64), (224, 224), (96, 128), (225, 77)])
names = st.sampled_from(list(EVERY))


def changed(frames_THWC: Frames, name: str, clip_id: str = "clip", seed: int = 0) -> Frames:
    condition = parse_condition(name, seed)
    return PICTURE[condition.kind](frames_THWC, condition.level, condition.rng(clip_id))


def textured(count: int, height: int = 64, width: int = 64, seed: int = 0) -> Frames:
    """Smooth blobs that move a little: structure at many scales, no two frames alike."""
    rough = np.random.default_rng(seed).standard_normal((count, height, width, 3))
    rough[1:] = 0.9 * rough[:1] + 0.1 * rough[1:]
    smooth = scipy.ndimage.gaussian_filter(rough, (0, 3, 3, 0)) + 0.1 * rough
    smooth -= smooth.min()
    textured_THWC: Frames = (255 * smooth / smooth.max()).astype(np.uint8)
    return textured_THWC


def squared_error(one: Frames, other: Frames) -> float:
    return float(np.mean((one.astype(float) - other.astype(float)) ** 2))


# All of them


def test_every_kind_of_picture_condition_is_tested_here() -> None:
    assert {parse_condition(name).kind for name in EVERY} == set(PICTURE)
    assert set(PICTURE) == {name for name, kind in KINDS.items() if kind.modality == "video"}


@given(names, st.integers(1, 9), st.sampled_from([(16, 16), (33, 18), (17, 40)]), st.text(max_size=3))
@settings(max_examples=60, deadline=None)
def test_size_and_input_stay_and_nothing_but_the_seed_decides(
    name: str, count: int, size: tuple[int, int], clip_id: str
) -> None:
    frames_THWC = textured(count, *size)
    before = frames_THWC.copy()
    first, second = changed(frames_THWC, name, clip_id), changed(frames_THWC, name, clip_id)
    assert first.dtype == np.uint8
    assert first.shape == frames_THWC.shape
    assert not np.shares_memory(first, frames_THWC)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(frames_THWC, before)


@pytest.mark.parametrize("name", EVERY)
def test_the_seed_and_the_clip_change_what_is_random_and_only_that(name: str) -> None:
    frames_THWC = textured(16)
    shown = changed(frames_THWC, name)
    assert not np.array_equal(shown, frames_THWC)
    # Several: two runs of frozen frames may start at the same place.
    seeded = [np.array_equal(shown, changed(frames_THWC, name, seed=seed)) for seed in range(1, 6)]
    others = [np.array_equal(shown, changed(frames_THWC, name, clip_id=f"other {n}")) for n in range(5)]
    assert all(seeded) == all(others) == (not EVERY[name])


@pytest.mark.parametrize(
    ("name", "checksum"),
    [
        ("occlude-block-50", 1052175134),
        ("drop-frames-30", 3944294790),
        ("freeze-frames-50", 3063548851),
        ("noise-pixel-10", 1444630176),
        ("shift-picture-4px", 692176519),
    ],
)
def test_draws_are_what_they_were(name: str, checksum: int) -> None:
    """Another order of draws would make stored features of a condition stale unnoticed."""
    assert zlib.crc32(changed(pictures(16, 32, 32), name).tobytes()) == checksum


def test_the_drawn_angle_is_what_it_was() -> None:
    point_THWC = np.zeros((1, 41, 41, 3), np.uint8)
    point_THWC[:, 20, 20] = 255
    rows, columns = np.nonzero(changed(point_THWC, "blur-motion-30px")[0, :, :, 0])
    assert np.polyfit(columns, rows, 1)[0] == pytest.approx(0.80, abs=0.05)


# Occlusion


def black_box(frames_THWC: Frames, name: str, clip_id: str = "clip") -> tuple[slice, slice]:
    """Rows and columns that are black in every frame; the rest must be untouched and the black one block."""
    black_THWC = changed(frames_THWC, name, clip_id)
    changed_THW = (black_THWC != frames_THWC).any(axis=-1)
    assert (changed_THW == changed_THW[0]).all()
    assert (black_THWC[changed_THW] == 0).all()
    rows, columns = np.flatnonzero(changed_THW[0].any(axis=1)), np.flatnonzero(changed_THW[0].any(axis=0))
    assert changed_THW[0][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def share(box: tuple[slice, slice], size: tuple[int, int]) -> float:
    rows, columns = box
    return float((rows.stop - rows.start) * (columns.stop - columns.start) / (size[0] * size[1]))


@given(st.integers(1, 100), sizes, st.text(max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_block_covers_its_share_of_the_area(percent: int, size: tuple[int, int], clip_id: str) -> None:
    white_THWC = np.full((2, *size, 3), 255, np.uint8)
    assert abs(share(black_box(white_THWC, f"occlude-block-{percent}", clip_id), size) - percent / 100) <= 0.01


def test_the_block_lies_elsewhere_in_other_clips_and_anywhere_in_the_picture() -> None:
    white_THWC = np.full((1, 64, 64, 3), 255, np.uint8)
    seen_HW = np.zeros((64, 64), bool)
    places = set()
    for number in range(200):
        rows, columns = black_box(white_THWC, "occlude-block-25", f"clip {number}")
        seen_HW[rows, columns] = True
        places.add((rows.start, columns.start))
    assert len(places) > 100
    assert seen_HW.any(axis=0).all()
    assert seen_HW.any(axis=1).all()


@given(sizes)
def test_left_and_right_are_halves(size: tuple[int, int]) -> None:
    white_THWC = np.full((2, *size, 3), 255, np.uint8)
    left, right = black_box(white_THWC, "occlude-left"), black_box(white_THWC, "occlude-right")
    assert left == (slice(0, size[0]), slice(0, size[1] // 2))
    assert right == (slice(0, size[0]), slice(size[1] - size[1] // 2, size[1]))
    assert abs(share(left, size) - 0.5) <= 0.01


@given(sizes)
@settings(deadline=None)
def test_without_a_face_eyes_and_mouth_of_a_centred_one_are_covered(size: tuple[int, int]) -> None:
    white_THWC = np.full((2, *size, 3), 255, np.uint8)
    for name, part in (("occlude-eyes", EYES), ("occlude-mouth", MOUTH)):
        box = black_box(white_THWC, name)
        expected = part.width * part.height * CENTRED_FACE.width * CENTRED_FACE.height
        assert abs(share(box, size) - expected) <= 0.01
        for pixels, extent, middle in zip(box, size, _middle(part.inside(CENTRED_FACE)), strict=True):
            assert abs((pixels.start + pixels.stop) / 2 - middle * extent) <= 1


def _middle(box: tuple[float, float, float, float]) -> tuple[float, float]:
    left, top, width, height = box
    return top + height / 2, left + width / 2


def test_a_black_screen_shows_nothing() -> None:
    assert not changed(pictures(3), "black-screen").any()


# Lost frames


@given(st.integers(1, 64), st.integers(1, 99), st.integers(0, 50))
def test_dropped_frames_are_exactly_as_many_and_replaced_by_the_last_kept(count: int, percent: int, seed: int) -> None:
    shown = kept_frames(count, percent, np.random.default_rng(seed))
    kept = [index for index in range(count) if shown[index] == index]
    assert count - len(kept) == min(count - 1, round(percent / 100 * count))
    for index, source in enumerate(shown):
        assert source == max([k for k in kept if k <= index], default=kept[0])


@given(st.integers(1, 64), st.integers(1, 99), st.integers(0, 50))
@example(16, 50, 20)
def test_frozen_frames_are_one_run_of_exactly_as_many(count: int, percent: int, seed: int) -> None:
    shown = frozen_frames(count, percent, np.random.default_rng(seed))
    frozen = [index for index in range(count) if shown[index] != index]
    assert len(frozen) == min(count - 1, round(percent / 100 * count))
    if frozen:
        assert frozen == list(range(frozen[0], frozen[-1] + 1))
        assert set(shown[frozen]) == {frozen[0] - 1 if frozen[0] else frozen[-1] + 1}


def test_the_picture_freezes_anywhere() -> None:
    starts = {int((frozen_frames(16, 50, np.random.default_rng(seed)) != range(16)).argmax()) for seed in range(100)}
    assert starts == set(range(9))


@pytest.mark.parametrize("kind", ["drop-frames", "freeze-frames"])
@pytest.mark.parametrize(("percent", "lost"), [(30, 5), (50, 8), (75, 12), (1, 0), (99, 15)])
def test_lost_of_sixteen(kind: str, percent: int, lost: int) -> None:
    frames_THWC = pictures(16, 32, 32)
    shown_THWC = changed(frames_THWC, f"{kind}-{percent}")
    assert sum(not np.array_equal(a, b) for a, b in zip(shown_THWC, frames_THWC, strict=True)) == lost


# Blur


@pytest.mark.parametrize("sigma_px", [1, 4, 20, 50])
def test_gaussian_blur_is_scipys(sigma_px: int) -> None:
    frames_THWC = textured(2, 96, 80)
    expected = scipy.ndimage.gaussian_filter(frames_THWC.astype(float), (0, sigma_px, sigma_px, 0), mode="mirror")
    deviation = np.abs(changed(frames_THWC, f"blur-gaussian-{sigma_px}px") - expected)
    assert deviation.mean() < 0.6
    assert deviation.max() < 2.5


@pytest.mark.parametrize("kind", ["blur-gaussian", "blur-motion"])
def test_more_blur_leaves_less_detail(kind: str) -> None:
    frames_THWC = textured(1)
    detail = [
        np.abs(np.diff(changed(frames_THWC, f"{kind}-{px}px").astype(int), axis=2)).sum() for px in (2, 5, 15, 40)
    ]
    assert detail == sorted(detail, reverse=True)
    assert detail[-1] < 0.5 * detail[0]


@given(st.integers(2, 100), st.floats(0, np.pi))
@settings(deadline=None)
def test_a_motion_kernel_is_a_straight_line_of_its_length(length_px: int, angle: float) -> None:
    kernel_KK = motion_kernel(length_px, angle).astype(float)
    reach = len(kernel_KK) // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    assert kernel_KK.sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(kernel_KK, kernel_KK[::-1, ::-1], atol=1e-2)
    assert np.abs(across[kernel_KK > 0]).max() <= 2**-0.5 + 0.01
    # As wide as a line of that length, to within a pixel at its ends.
    spread = np.sqrt((kernel_KK * along**2).sum() * 12)
    assert abs(spread - length_px) < 1


def test_motion_kernels_along_rows_and_columns() -> None:
    np.testing.assert_allclose(motion_kernel(5, 0)[2], np.full(5, 0.2), rtol=1e-3)
    np.testing.assert_allclose(motion_kernel(4, np.pi / 2)[:, 2], np.array([1, 2, 2, 2, 1]) / 8, rtol=1e-3)


def test_motion_smears_a_point_at_the_same_angle_in_all_frames() -> None:
    points_THWC = np.zeros((3, 41, 41, 3), np.uint8)
    points_THWC[:, 20, 20] = 255
    smeared = changed(points_THWC, "blur-motion-15px")
    assert (smeared == smeared[0]).all()
    rows, columns = np.nonzero(smeared[0, :, :, 0])
    assert abs(np.hypot(np.ptp(rows), np.ptp(columns)) - 15) <= 2
    assert abs(int(smeared[0, :, :, 0].sum()) - 255) <= 8


# Light and noise


@given(st.integers(1, 99))
@settings(deadline=None)
def test_low_light_leaves_its_share_of_the_light(percent: int) -> None:
    """A plain power of 2.2 follows the sRGB curve to within a few grey levels."""
    grey_THWC = np.repeat(np.arange(256, dtype=np.uint8)[None, None, :, None], 3, axis=-1)
    dark_THWC = changed(grey_THWC, f"light-low-{percent}")
    assert np.abs(dark_THWC - grey_THWC * (percent / 100) ** (1 / 2.2)).max() < 11
    assert (np.diff(dark_THWC[0, 0, :, 0].astype(int)) >= 0).all()
    assert (dark_THWC <= grey_THWC).all()


@pytest.mark.parametrize(("percent", "level"), [(50, 188), (25, 137), (18, 118), (99, 254)])
def test_white_in_low_light_is_srgbs(percent: int, level: int) -> None:
    """Half of the light is 188 of 255, and a grey card, which gives back 18 %, is 118."""
    assert (changed(np.full((1, 1, 1, 3), 255, np.uint8), f"light-low-{percent}") == level).all()


@given(st.integers(1, 15), st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_pixel_noise_has_its_deviation_and_is_new_in_every_frame_and_channel(percent: int, seed: int) -> None:
    grey_THWC = np.full((2, 64, 64, 3), 127, np.uint8)
    noise_THWC = changed(grey_THWC, f"noise-pixel-{percent}", seed=seed) - 127.0
    # Rounding adds a twelfth of a grey level to the variance.
    assert noise_THWC.std() == pytest.approx(np.hypot(2.55 * percent, 12**-0.5), rel=0.03)
    assert abs(noise_THWC.mean()) < 0.05 * 2.55 * percent + 0.05
    signals = np.concatenate([noise_THWC[0].reshape(-1, 3).T, noise_THWC[1].reshape(-1, 3).T])
    assert np.abs(np.corrcoef(signals) - np.eye(6)).max() < 0.08


@pytest.mark.parametrize("level", [0, 255])
def test_noise_stops_at_black_and_white(level: int) -> None:
    """A wrapped grey level would land at the other end of the scale."""
    noisy = changed(np.full((1, 64, 64, 3), level, np.uint8), "noise-pixel-10")
    assert abs(int(noisy.max() if level == 0 else noisy.min()) - level) < 160
    assert 0.45 < (noisy == level).mean() < 0.55


# Codec


def test_the_fewer_bits_the_worse_the_picture_and_never_more_bits_than_asked_for() -> None:
    frames_THWC = textured(16, 112, 112)
    frames_THWC[:] = frames_THWC[..., :1]  # grey: colour is lost at any bit rate
    errors = []
    for kbps in (10, 40, 160):
        spent = 8 * sum(packet.size for packet in encoded(frames_THWC, kbps)) / CLIP_SECONDS / 1000
        assert 0.5 * kbps < spent < 1.1 * kbps
        errors.append(squared_error(changed(frames_THWC, f"codec-h264-{kbps}kbps"), frames_THWC))
    assert errors[0] > 1.2 * errors[1] > 1.44 * errors[2]


def test_coded_frames_do_not_depend_on_what_was_in_memory() -> None:
    """x264 by itself does; glibc fills fresh memory with what it is told to."""
    program = (
        "import zlib; from extract.corrupt.picture.codec import through_h264;"
        "from tests.extract.corrupt.test_picture import textured;"
        "print(zlib.crc32(through_h264(textured(6, 224, 224), 30).tobytes()))"
    )
    environment = {**os.environ, "MALLOC_PERTURB_": "1"}
    told = subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, check=True)
    here = zlib.crc32(changed(textured(6, 224, 224), "codec-h264-30kbps").tobytes())
    assert int(told.stdout) == here


@pytest.mark.parametrize("count", [1, 2, 16, 32])
def test_coded_frames_keep_their_order(count: int) -> None:
    """Each is nearer to its own original than to any other."""
    frames_THWC = pictures(count, 64, 64)
    coded = changed(frames_THWC, "codec-h264-2000kbps")
    for index, frame in enumerate(coded):
        assert index == min(range(count), key=lambda other: squared_error(frame, frames_THWC[other]))


def test_a_shifted_picture_is_the_picture_elsewhere() -> None:
    frames_THWC = textured(3, 32, 48)
    inner = frames_THWC[:, 4:-4, 4:-4]
    found = set()
    for clip in range(20):
        shown = changed(frames_THWC, "shift-picture-4px", clip_id=str(clip))
        places = {(0, 4): "up", (8, 4): "down", (4, 0): "left", (4, 8): "right"}
        (place,) = [
            words
            for (top, left), words in places.items()
            if np.array_equal(shown[:, top : top + 24, left : left + 40], inner)
        ]
        found.add(place)
        # What comes in is the edge, repeated: no black that a detector of faces or of damage would see.
        edge = {"up": shown[:, -5:], "down": shown[:, :5], "left": shown[:, :, -5:], "right": shown[:, :, :5]}[place]
        axis = 1 if place in ("up", "down") else 2
        assert not np.ptp(edge, axis=axis).any()
    assert found == {"up", "down", "left", "right"}
