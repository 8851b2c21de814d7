"""The face is found, covered and cut out; where there is none, the centre is cut and the clip says so."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import numpy.typing as npt
import pytest
from cv2.data import haarcascades
from hypothesis import given
from hypothesis import strategies as st

from cache.media import Failure, Media, MediaStore, Source
from extract.corpora.synthetic.face import draw_look, perform
from extract.corrupt.picture.effects import occlude_eyes, occlude_mouth
from extract.media.cut import Cut
from extract.media.decode import decode, decode_all
from extract.media.face import CENTRED_FACE, EYES, MARGIN, MOUTH, Box, crop_to_face, face_square, find_face
from extract.media.frames import even_indices, resize_and_crop
from tests.tiny.corpus import pictures, tone, write_mp4
from tests.tiny.places import SHARED

Frames = npt.NDArray[np.uint8]
MOVING_MP4 = SHARED / "media/01-01-08-02-01-01-19.mp4"
needs_moving_face = pytest.mark.skipif(not MOVING_MP4.is_file(), reason="no moving face in $SHARED")


@pytest.fixture(scope="module")
def drawn() -> Frames:
    """A speaker of the demo corpus, (8, 264, 352, 3)."""
    closed_F = np.zeros(8)
    look = draw_look("male", 7, np.random.default_rng(7))
    return perform(look, "angry", closed_F, closed_F, np.random.default_rng(1))


@pytest.fixture(scope="module")
def moving() -> Frames:
    """A real face, (16, 224, 224, 3)."""
    frames_THWC = decode(MOVING_MP4, 16, 224).frames_THWC
    assert frames_THWC is not None
    return frames_THWC


def moved(face_THWC: Frames, left: int, width: int = 800) -> Frames:
    """The face at `left` in a wide grey picture."""
    wide_THWC = np.full((len(face_THWC), face_THWC.shape[1], width, 3), 90, np.uint8)
    wide_THWC[:, :, left : left + face_THWC.shape[2]] = face_THWC
    return wide_THWC


def contains(outer: Box, inner: Box, slack: float = 0.0) -> bool:
    return (
        outer.left - slack <= inner.left
        and outer.top - slack <= inner.top
        and inner.left + inner.width <= outer.left + outer.width + slack
        and inner.top + inner.height <= outer.top + outer.height + slack
    )


# Finding


def test_a_drawn_face_is_found_wherever_it_is(drawn: Frames) -> None:
    centred = find_face(drawn)
    assert centred is not None
    assert contains(centred, Box(0.45, 0.45, 0.1, 0.1))
    for left in (0, 448):
        face = find_face(moved(drawn, left))
        assert face is not None
        assert face.left * 800 == pytest.approx(left + 352 * centred.left, abs=12)
        assert face.top == pytest.approx(centred.top, abs=0.05)


def test_of_two_faces_the_larger_is_taken(drawn: Frames) -> None:
    both_THWC = moved(drawn, 448)
    both_THWC[:, :132, :176] = drawn[:, ::2, ::2]
    face = find_face(both_THWC)
    assert face is not None
    assert face.left > 0.5


def test_size_does_not_matter(drawn: Frames) -> None:
    small, large = find_face(drawn), find_face(drawn.repeat(3, axis=1).repeat(3, axis=2))
    assert small is not None
    assert large is not None
    np.testing.assert_allclose(small, large, atol=0.03)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_clips(drawn: Frames, count: int) -> None:
    assert find_face(drawn[:count]) is not None


def test_nothing_is_found_where_nothing_is() -> None:
    rng = np.random.default_rng(0)
    for frames_THWC in (np.zeros((3, 64, 64, 3), np.uint8), rng.integers(0, 256, (3, 224, 224, 3), np.uint8)):
        assert find_face(frames_THWC) is None
    assert find_face(np.zeros((1, 5, 3, 3), np.uint8)) is None


def test_a_face_in_a_few_frames_is_a_mistake_of_the_detector(drawn: Frames) -> None:
    """Five frames are looked at: two of them are not enough, three are."""
    blank_THWC = np.zeros_like(drawn)
    looked_at = even_indices(len(drawn), 5)
    for shown, found in ((2, False), (3, True)):
        mixed_THWC = blank_THWC.copy()
        mixed_THWC[looked_at[:shown]] = drawn[looked_at[:shown]]
        assert (find_face(mixed_THWC) is not None) == found


@needs_moving_face
def test_the_real_face_is_where_the_fallback_expects_it(moving: Frames) -> None:
    face = find_face(moving)
    assert face is not None
    np.testing.assert_allclose(face, CENTRED_FACE, atol=0.05)


# Eyes and mouth


def black(before_THWC: Frames, after_THWC: Frames) -> Box:
    """The changed box, as a share of the picture; it is the same in every frame."""
    rows, columns = np.nonzero((before_THWC != after_THWC).any(axis=(0, -1)))
    height, width = before_THWC.shape[1:3]
    assert not after_THWC[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].any()
    box = Box(columns.min() / width, rows.min() / height, np.ptp(columns) / width, np.ptp(rows) / height)
    return Box(*map(float, box))


@needs_moving_face
def test_eyes_and_mouth_of_the_real_face_are_covered(moving: Frames) -> None:
    """Judged by OpenCV's cascades for eyes and for mouths, in the frames where they find one."""
    face, rng = find_face(moving), np.random.default_rng(0)
    assert face is not None
    eyes, mouth = black(moving, occlude_eyes(moving, 0, rng)), black(moving, occlude_mouth(moving, 0, rng))
    assert contains(face, eyes, 0.01)
    assert contains(face, mouth, 0.01)
    assert eyes.top + eyes.height < mouth.top
    seen_eyes = [spot for frame in moving[1::3] for spot in spots(frame, "eye", 20, 8) if spot[1] < 0.55]
    seen_mouths = [spot for frame in moving[1::3] for spot in spots(frame, "smile", 30, 30) if spot[1] > 0.55]
    assert len(seen_eyes) >= 8
    assert len(seen_mouths) >= 4
    assert np.mean([contains(eyes, Box(x, y, 0, 0)) for x, y in seen_eyes]) > 0.9
    # The cascade of smiles also takes to the chin, so the usual place decides.
    x, y = np.median(seen_mouths, axis=0).tolist()
    assert contains(mouth, Box(x, y, 0, 0))
    assert {x < 0.5 for x, _ in seen_eyes} == {True, False}


def spots(frame_HWC: Frames, what: str, smallest: int, neighbours: int) -> list[tuple[float, float]]:
    """Middles of what a cascade finds, in shares of the picture."""
    cascade = cv2.CascadeClassifier(f"{haarcascades}/haarcascade_{what}.xml")
    grey_HW = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)
    found = cascade.detectMultiScale(grey_HW, 1.05, neighbours, minSize=(smallest, smallest))
    height, width = grey_HW.shape
    return [((x + w / 2) / width, (y + h / 2) / height) for x, y, w, h in found]


def test_the_boxes_follow_the_face(drawn: Frames) -> None:
    rng = np.random.default_rng(0)
    wide_THWC = moved(drawn, 448)
    for occlude in (occlude_eyes, occlude_mouth):
        box, moved_box = black(drawn, occlude(drawn, 0, rng)), black(wide_THWC, occlude(wide_THWC, 0, rng))
        assert moved_box.left * 800 == pytest.approx(448 + box.left * 352, abs=15)
        assert moved_box.top == pytest.approx(box.top, abs=0.05)


def test_proportions_lie_inside_the_face() -> None:
    assert contains(Box(0, 0, 1, 1), EYES)
    assert contains(Box(0, 0, 1, 1), MOUTH, 1e-9)
    assert EYES.top + EYES.height < MOUTH.top


shares = st.floats(0, 1)


@given(st.tuples(shares, shares, shares, shares), st.integers(1, 50), st.integers(1, 50))
def test_pixels_of_a_box_are_inside_the_picture(values: tuple[float, ...], height: int, width: int) -> None:
    for pixels, extent in zip(Box(*values).pixels(height, width), (height, width), strict=True):
        assert 0 <= pixels.start < pixels.stop <= extent


def test_a_box_within_a_box() -> None:
    assert Box(0.5, 0.5, 0.5, 0.5).inside(Box(0.2, 0.4, 0.4, 0.2)) == pytest.approx((0.4, 0.5, 0.2, 0.1))
    assert Box(0.25, 0.5, 0.5, 0.25).pixels(100, 200) == (slice(50, 75), slice(50, 150))


# Cropping


@given(st.tuples(shares, shares, st.floats(0.01, 1), st.floats(0.01, 1)), st.integers(8, 99), st.integers(8, 99))
def test_a_face_square_is_one_inside_the_picture_and_holds_the_face(
    values: tuple[float, ...], height: int, width: int
) -> None:
    left, top, wide, high = values
    face = Box(left, top, wide * (1 - left), high * (1 - top))
    rows, columns = face_square(face, height, width)
    side = rows.stop - rows.start
    assert side == columns.stop - columns.start > 0 or max(face.width * width, face.height * height) < 1
    for pixels, extent, start, size in (
        (rows, height, face.top * height, face.height * height),
        (columns, width, face.left * width, face.width * width),
    ):
        assert 0 <= pixels.start <= pixels.stop <= extent
        if size <= side:
            assert pixels.start <= start + 1
            assert pixels.stop >= start + size - 1


def test_the_margin_is_that_share_of_the_face_on_each_side() -> None:
    rows, columns = face_square(Box(0.4, 0.4, 0.2, 0.2), 500, 500)
    assert (rows, columns) == (slice(180, 320), slice(180, 320))
    assert MARGIN == 0.2


def test_the_crop_is_one_square_for_all_frames_around_the_face(drawn: Frames) -> None:
    wide_THWC = moved(drawn, 448)
    cut_THWC, found = crop_to_face(wide_THWC)
    assert found
    assert cut_THWC.shape[1] == cut_THWC.shape[2] < 264
    assert cut_THWC.shape[0] == len(drawn)
    again = find_face(cut_THWC)
    assert again is not None
    assert again.left + again.width / 2 == pytest.approx(0.5, abs=0.05)
    assert again.width == pytest.approx(1 / (1 + 2 * MARGIN), abs=0.08)


def test_no_face_leaves_the_frames_alone() -> None:
    frames_THWC = pictures(4)
    cut_THWC, found = crop_to_face(frames_THWC)
    assert cut_THWC is frames_THWC
    assert not found


# In decoding and in the store


@pytest.fixture(scope="module")
def clips(drawn: Frames, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A face at the right border, no face, and no picture."""
    folder = tmp_path_factory.mktemp("faces")
    return {
        "face": write_mp4(folder / "face.mp4", tone(0.3), moved(drawn, 448)),
        "no face": write_mp4(folder / "none.mp4", None, pictures(8, 352, 264)),
        "no picture": write_mp4(folder / "sound.mp4", tone(0.3), None),
    }


def test_decoding_cuts_around_the_face(clips: dict[str, Path]) -> None:
    plain, cut = decode(clips["face"], 16, 112), decode(clips["face"], 16, 112, Cut(face=True))
    assert (plain.face_found, cut.face_found) == (None, True)
    assert plain.frames_THWC is not None
    assert cut.frames_THWC is not None
    assert cut.frames_THWC.shape == plain.frames_THWC.shape
    assert find_face(plain.frames_THWC) is None
    assert find_face(cut.frames_THWC) is not None


def test_without_a_face_the_centre_is_cut(clips: dict[str, Path]) -> None:
    plain, cut = decode(clips["no face"], 16, 112), decode(clips["no face"], 16, 112, Cut(face=True))
    assert cut.face_found is False
    assert plain.frames_THWC is not None
    np.testing.assert_array_equal(cut.frames_THWC, plain.frames_THWC)


@pytest.mark.parametrize("frames", [0, 16])
def test_no_face_is_looked_for_where_no_picture_is_kept(clips: dict[str, Path], frames: int) -> None:
    assert decode(clips["no picture"], frames, 112, Cut(face=True)).face_found is None
    assert decode(clips["face"], 0, 112, Cut(face=True)).face_found is None


def test_workers_cut_around_the_face_and_the_store_remembers(clips: dict[str, Path], tmp_path: Path) -> None:
    decoded = decode_all(
        list(clips.values()), frames=16, size=112, workers=1, timeout_seconds=60, check=lambda: None, cut=Cut(face=True)
    )
    store = MediaStore(tmp_path, {"frames": 16, "size": 112, "face_crop": True})
    store.write_unit(0, decoded)
    with store.open_unit(0) as unit:
        assert [unit.face_found(row) for row in range(3)] == [True, False, None]
        frames_THWC = decode(clips["face"], 16, 112, Cut(face=True)).frames_THWC
        assert frames_THWC is not None
        np.testing.assert_array_equal(unit.frames(0), frames_THWC)
    with h5py.File(store.part(0)) as file:
        assert [file[str(row)].attrs.get("face") for row in range(3)] == ["found", "not found", None]


def test_cut_and_uncut_media_lie_apart(tmp_path: Path) -> None:
    kept = {"frames": 16, "size": 224}
    folders = [MediaStore(tmp_path, {**kept, **more}).folder.name for more in ({}, {"face_crop": False})]
    assert folders == ["frames16-size224"] * 2
    assert MediaStore(tmp_path, {**kept, "face_crop": True}).folder.name == "frames16-size224-face"


def test_media_without_the_question_say_nothing(tmp_path: Path) -> None:
    store = MediaStore(tmp_path, {"frames": 1, "size": 8})
    source = Source("", 0, 0, 0, 0)
    store.write_unit(0, iter([(Media(None, np.zeros((1, 8, 8, 3), np.uint8)), source), (Failure("bad"), source)]))
    with store.open_unit(0) as unit:
        assert [unit.face_found(row) for row in range(2)] == [None, None]


@needs_moving_face
def test_the_real_face_fills_the_crop() -> None:
    plain, cut = decode(MOVING_MP4, 16, 224), decode(MOVING_MP4, 16, 224, Cut(face=True))
    assert cut.face_found
    assert plain.frames_THWC is not None
    assert cut.frames_THWC is not None
    faces = [find_face(frames_THWC) for frames_THWC in (plain.frames_THWC, cut.frames_THWC)]
    assert faces[0] is not None
    assert faces[1] is not None
    assert faces[1].width > 1.1 * faces[0].width
    assert resize_and_crop(cut.frames_THWC, 224).shape == plain.frames_THWC.shape
