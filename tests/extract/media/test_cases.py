"""Files of other people's cameras, recorders and converters: each kind as it was reported, and one made here.

Before, decord's frames by index were others, a header's promise was taken for what is there, and a second decode went
by another track than the first.
"""

from __future__ import annotations

import itertools
import shutil
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cache.media import Failure, Media
from extract.media.decode import decode, decode_all
from tests.tiny.media import (
    PictureTrack,
    SoundTrack,
    cut_out,
    greys,
    pitch_of,
    set_display_matrix,
    set_edit,
    sine,
    with_empty_packets,
    write_media,
)
from tests.tiny.places import SHARED

CASES = SHARED / "cases"
TOLERANCE = 3  # grey levels
needs_cases = pytest.mark.skipif(not (CASES / "video").is_dir(), reason="no awkward inputs in $SHARED/cases")

B_FRAMES = {"g": "12", "bf": "2"}
OPEN_GROUPS = {"x264-params": "open-gop=1:keyint=12:bframes=3:log-level=none"}


def levels(media: Media) -> list[int]:
    assert media.frames_THWC is not None
    return [round(float(frame_HWC.mean())) for frame_HWC in media.frames_THWC]


def sound_of(media: Media) -> npt.NDArray[np.float32]:
    assert media.waveform_T is not None
    return media.waveform_T


def case(name: str) -> Path:
    path = CASES / name
    if not path.exists():
        pytest.skip(f"no {name} in $SHARED/cases")
    return path


# Frames


MADE: dict[str, Callable[[Path], Path]] = {
    "h264 in avi": lambda d: write_media(d / "x.avi", PictureTrack(options=B_FRAMES), [SoundTrack(codec="pcm_s16le")]),
    "xvid": lambda d: write_media(
        d / "x.mp4", PictureTrack("mpeg4", options={"g": "12", "b": "900k"}, bframes=2), [SoundTrack()]
    ),
    "wmv": lambda d: write_media(
        d / "x.wmv",
        PictureTrack("wmv2", options={"b": "900k"}),
        [SoundTrack(codec="wmav2", rate_hz=44_100, bit_rate=64_000)],
        "asf",
    ),
    "hevc": lambda d: write_media(
        d / "x.mp4",
        PictureTrack("libx265", options={"x265-params": "keyint=12:open-gop=1:log-level=none"}),
        [SoundTrack()],
    ),
    "open groups": lambda d: write_media(d / "x.mp4", PictureTrack(options=OPEN_GROUPS), [SoundTrack()]),
    "av1": lambda d: write_media(
        d / "x.mp4", PictureTrack("libsvtav1", options={"preset": "12", "svtav1-params": "keyint=12"}), [SoundTrack()]
    ),
    "h264": lambda d: write_media(d / "x.mp4", PictureTrack(options=B_FRAMES), [SoundTrack()]),
}


@needs_cases
@pytest.mark.parametrize(
    "name",
    [
        "h264.avi",
        "xvid.mp4",
        "old.wmv",
        "hevc.mp4",
        "h264_open_gop.mp4",
        "av1.mp4",
        "control_h264.mp4",
        "control_closed_gop.mp4",
    ],
)
@pytest.mark.parametrize("reader", ["auto", "av", "decord"])
def test_the_sixteen_frames_that_are_asked_for(name: str, reader: str) -> None:
    media = decode(case(f"video/{name}"), 16, 32, reader=reader)
    assert np.abs(np.subtract(levels(media), greys(50))).max() <= TOLERANCE
    assert name == "old.wmv" or pitch_of(sound_of(media)) == pytest.approx(220, abs=1)
    assert media.overruled == (reader == "decord" and "control" not in name)


@pytest.mark.parametrize("kind", list(MADE))
@pytest.mark.parametrize("reader", ["auto", "decord"])
def test_the_frames_of_a_file_made_here(tmp_path: Path, kind: str, reader: str) -> None:
    media = decode(MADE[kind](tmp_path), 16, 32, reader=reader)
    assert np.abs(np.subtract(levels(media), greys(50))).max() <= TOLERANCE
    assert pitch_of(sound_of(media)) == pytest.approx(220, abs=1)


def test_decord_is_believed_where_it_is_right(tmp_path: Path) -> None:
    path = MADE["h264"](tmp_path)
    strict, by_decord = decode(path, 16, 32, reader="av"), decode(path, 16, 32, reader="decord")
    assert not by_decord.overruled
    assert strict.frames_THWC is not None
    np.testing.assert_array_equal(by_decord.frames_THWC, strict.frames_THWC)


@needs_cases
def test_an_edit_list_hides_the_start() -> None:
    """The header counts 75 frames, of which 42 are shown: that was taken for damage."""
    media = decode(case("video/trimmed.mp4"), 42, 32)
    assert levels(media)[0] == pytest.approx(114, abs=TOLERANCE)
    assert levels(media)[-1] == pytest.approx(236, abs=TOLERANCE)
    assert len(set(levels(media))) > 38
    np.testing.assert_array_equal(levels(decode(case("video/whole.mp4"), 75, 32))[-42:], levels(media))


@pytest.mark.parametrize("hidden", [1, 13, 30])
def test_an_edit_list_made_here(tmp_path: Path, hidden: int) -> None:
    path = write_media(tmp_path / "x.mp4", PictureTrack(options={**B_FRAMES, "bf": "0"}), [SoundTrack()])
    set_edit(path, hidden * 512, (50 - hidden) / 25)
    shown = decode(path, 50 - hidden, 32)
    assert np.abs(np.subtract(levels(shown), greys(50, 50)[hidden:])).max() <= TOLERANCE


CUT_OUT = {
    "h264": PictureTrack(options=OPEN_GROUPS),
    "hevc": PictureTrack("libx265", options={"x265-params": "keyint=12:open-gop=1:bframes=4:log-level=none"}),
    "mpeg2": PictureTrack("mpeg2video", options={"g": "12", "b": "2000k"}, bframes=2),
    "closed": PictureTrack(options={"x264-params": "keyint=12:bframes=3:log-level=none"}),
}


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
@pytest.mark.parametrize("codec", list(CUT_OUT))
def test_a_film_cut_out_of_a_longer_one_at_an_open_group(tmp_path: Path, codec: str, extension: str) -> None:
    """Its first packets to be shown lean on frames that are gone; no player shows them, and they are no damage."""
    whole = write_media(tmp_path / "whole.mp4", CUT_OUT[codec])
    path = cut_out(whole, tmp_path / f"x.{extension}", 1.0, "matroska" if extension == "mkv" else None)
    shown, every = levels(decode(path, 20, 32)), greys(50, 50)
    assert shown == sorted(shown)
    assert shown[-1] == pytest.approx(every[-1], abs=TOLERANCE)
    assert any(abs(shown[0] - level) <= TOLERANCE for level in every[24:29])


@needs_cases
def test_an_empty_packet_stands_for_the_frame_before() -> None:
    """50 packets with content and 10 without were "only 50 of 60 frames"."""
    shown = levels(decode(case("video/stalls.avi"), 60, 32))
    repeated = [index for index, (before, after) in enumerate(itertools.pairwise(shown)) if before == after]
    assert len(repeated) >= 10
    assert (shown[0], shown[-1]) == pytest.approx((16, 236), abs=TOLERANCE)


def test_empty_packets_put_into_an_avi_here(tmp_path: Path) -> None:
    sound = [SoundTrack(codec="pcm_s16le")]
    path = write_media(tmp_path / "x.avi", PictureTrack("mjpeg", pixels="yuvj420p"), sound)
    with_empty_packets(path, {0: 1, 9: 4, 49: 2})
    expected = np.repeat(greys(50, 50), [{0: 2, 9: 5, 49: 3}.get(index, 1) for index in range(50)])
    shown = levels(decode(path, len(expected), 32))
    assert np.abs(shown - expected).max() <= TOLERANCE


# Upright


def corners(count: int = 12) -> npt.NDArray[np.uint8]:
    """Red on top, green below on the left, grey below on the right."""
    frame_HWC = np.zeros((64, 96, 3), np.uint8)
    frame_HWC[:32], frame_HWC[32:, :48], frame_HWC[32:, 48:] = (230, 40, 40), (40, 230, 40), (90, 90, 90)
    return np.repeat(frame_HWC[None], count, axis=0)


@needs_cases
def test_a_mirrored_selfie_is_upright() -> None:
    media, plain = decode(case("video/mirrored.mp4"), 4, 96), decode(case("video/plain.mp4"), 4, 96)
    assert media.frames_THWC is not None
    assert plain.frames_THWC is not None
    np.testing.assert_array_equal(media.frames_THWC, np.flip(plain.frames_THWC, axis=2))
    assert (media.frames_THWC[:, :20, ..., 0] > 180).all()


MATRICES: dict[str, tuple[tuple[int, int, int, int], Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]]] = {
    "as it is": ((1, 0, 0, 1), lambda frame: frame),
    "a quarter to the right": ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
    "upside down": ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
    "a quarter to the left": ((0, -1, 1, 0), lambda frame: np.rot90(frame)),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "mirrored upside down": ((1, 0, 0, -1), np.flipud),
    "transposed": ((0, 1, 1, 0), lambda frame: frame.transpose(1, 0, 2)),
    "transposed the other way": ((0, -1, -1, 0), lambda frame: np.rot90(frame, 2).transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", list(MATRICES))
def test_every_display_matrix(tmp_path: Path, name: str) -> None:
    """(1, 0, 0, 1) as the file is coded; decord took every mirrored one for a rotation."""
    numbers, turn = MATRICES[name]
    picture = PictureTrack(frames_THWC=corners(), options={"crf": "5"})
    plain = decode(write_media(tmp_path / "plain.mp4", picture), 1 + 1, 64)
    turned = decode(set_display_matrix(write_media(tmp_path / "turned.mp4", picture), *numbers), 2, 64)
    assert plain.frames_THWC is not None
    assert turned.frames_THWC is not None
    difference = np.abs(turned.frames_THWC[0].astype(int) - turn(plain.frames_THWC[0]))
    assert difference.max() <= 2


# Tracks


@needs_cases
@pytest.mark.parametrize("name", ["same_rate.mkv", "fast_first.mkv"])
def test_the_default_track_is_heard_at_its_own_rate(name: str) -> None:
    waveform_T = sound_of(decode(case(f"video/{name}"), 16, 32))
    assert pitch_of(waveform_T) == pytest.approx(1000, abs=2)
    assert len(waveform_T) / 16_000 == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("default", [0, 1, 2])
def test_default_tracks_made_here(tmp_path: Path, default: int) -> None:
    pitches, rates = (300, 1000, 2500), (48_000, 16_000, 44_100)
    tracks = [
        SoundTrack(pitch, "flac", rate, default=number == default)
        for number, (pitch, rate) in enumerate(zip(pitches, rates, strict=True))
    ]
    waveform_T = sound_of(decode(write_media(tmp_path / "x.mkv", PictureTrack(), tracks), 16, 32))
    assert pitch_of(waveform_T) == pytest.approx(pitches[default], abs=2)
    assert len(waveform_T) == 32_000


@needs_cases
def test_a_track_without_a_packet_is_absent() -> None:
    media = decode(case("video/muted_mono.webm"), 16, 32)
    assert media.waveform_T is None
    assert np.abs(np.subtract(levels(media), greys(50))).max() <= TOLERANCE


def test_an_empty_track_made_here_is_absent_and_another_is_heard(tmp_path: Path) -> None:
    picture = PictureTrack("libvpx", options={"b": "900k", "deadline": "realtime", "cpu-used": "8"})
    empty = SoundTrack(codec="libopus", rate_hz=48_000, seconds=0)
    media = decode(write_media(tmp_path / "x.webm", picture, [empty]), 16, 32)
    assert media.waveform_T is None
    assert np.abs(np.subtract(levels(media), greys(50))).max() <= TOLERANCE
    tracks = [SoundTrack(seconds=0, default=True), SoundTrack(700, default=False)]
    assert pitch_of(sound_of(decode(write_media(tmp_path / "x.mkv", picture, tracks), 16, 32))) == pytest.approx(
        700, abs=1
    )


# Sound files


@needs_cases
@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("sox_pipe.wav", 16_000),
        ("no_pad_byte.wav", 31_999),
        ("died.wav", 16_000),
        ("vbr_no_xing.mp3", 129_600),
        ("vbr_xing_control.mp3", 128_000),
    ],
)
def test_every_sample_of_a_sound_file(name: str, samples: int) -> None:
    waveform_T = sound_of(decode(case(f"sound/{name}"), 0, 32))
    assert len(waveform_T) == samples
    assert pitch_of(waveform_T) == pytest.approx(220 if samples != 31_999 else 110, abs=1)


def write_wav(path: Path, width: int = 2, seconds: float = 1.0) -> bytearray:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(16_000)
        samples_T = sine(440, seconds, 16_000)[0]
        whole_T = (samples_T * 32_767).astype("<i2") if width == 2 else (128 + 127 * samples_T).astype(np.uint8)
        file.writeframes(whole_T.tobytes())
    return bytearray(path.read_bytes())


@pytest.mark.parametrize(
    ("riff", "data"),
    [
        (0x7FFF_FFFF, 0x7FFF_FFFF),
        (0x8000_0024, 0x8000_0000),
        (0x7FFF_F024, 0x7FFF_F000),
        (0xFFFF_FFFF, 0xFFFF_FFFF),
        (0xFFFF_FFFF, 0xFFFF_FFDB),
        (0, 0),
        (36, 0),
        (32_044, 32_000),
    ],
    ids=["sox", "arecord", "old sox", "ffmpeg", "ffmpeg data", "died", "died later", "counts its own header"],
)
def test_headers_of_recorders_and_pipes(tmp_path: Path, riff: int, data: int) -> None:
    content = write_wav(tmp_path / "x.wav")
    content[4:8], content[40:44] = riff.to_bytes(4, "little"), data.to_bytes(4, "little")
    (tmp_path / "x.wav").write_bytes(content)
    assert len(sound_of(decode(tmp_path / "x.wav", 0, 32))) == 16_000


@pytest.mark.parametrize("behind", [b"", b"LIST\x04\0\0\0INFO", b"\0"], ids=["nothing", "a list", "a pad byte"])
def test_an_odd_length_with_and_without_its_pad_byte(tmp_path: Path, behind: bytes) -> None:
    content = write_wav(tmp_path / "x.wav", width=1, seconds=15_999 / 16_000)
    content = content[: 44 + 15_999]
    content[4:8] = (36 + 16_000).to_bytes(4, "little")
    (tmp_path / "x.wav").write_bytes(bytes(content) + (b"\0" + behind if behind[:1] == b"L" else behind))
    assert len(sound_of(decode(tmp_path / "x.wav", 0, 32))) == 15_999


@pytest.mark.parametrize("missing", [1, 2, 1000, 31_000])
def test_a_cut_wav_is_still_refused(tmp_path: Path, missing: int) -> None:
    content = write_wav(tmp_path / "x.wav")
    (tmp_path / "x.wav").write_bytes(content[:-missing])
    with pytest.raises(ValueError, match=rf"only {len(content) - missing} of {len(content)} bytes are there"):
        decode(tmp_path / "x.wav", 0, 32)


def test_an_mp3_without_a_length_made_here(tmp_path: Path) -> None:
    sound = SoundTrack(codec="libmp3lame", seconds=6.0, bit_rate=64_000)
    path = write_media(tmp_path / "x.mp3", None, [sound], options={"write_xing": "0", "id3v2_version": "0"})
    waveform_T = sound_of(decode(path, 0, 32))
    assert len(waveform_T) / 16_000 == pytest.approx(6.0, abs=0.15)
    assert pitch_of(waveform_T) == pytest.approx(220, abs=1)


def test_an_mp3_with_a_length_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = write_media(tmp_path / "x.mp3", None, [SoundTrack(codec="libmp3lame", seconds=6.0)])
    assert decode(path, 0, 32).waveform_T is not None
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"only \d+ of \d+ bytes are there"):
        decode(path, 0, 32)


# Names


NAMES = [
    "take #3.wav",
    "Interview: happy.wav",
    "http: not a protocol.wav",
    "100 %d.wav",
    "a  b.wav",
    "#.wav",
    "ä ü.wav",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_a_path(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg takes what stands before a colon for a protocol."""
    folder = tmp_path / "RAVDESS #2: all"
    folder.mkdir()
    write_wav(folder / name)
    monkeypatch.chdir(folder)
    for path in (folder / name, Path(name)):
        assert len(sound_of(decode(path, 0, 32))) == 16_000
    ((media, _),) = decode_all([folder / name], frames=16, size=32, workers=1, timeout_seconds=60, check=lambda: None)
    assert not isinstance(media, Failure)


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile x.wav\n", "#EXTM3U\n#EXTINF:1,\nx.wav\n"])
def test_a_playlist_is_no_clip(tmp_path: Path, text: str) -> None:
    write_wav(tmp_path / "x.wav")
    (tmp_path / "list.m3u8").write_text(text)
    with pytest.raises(ValueError, match=r"list of other files|not a readable media file"):
        decode(tmp_path / "list.m3u8", 0, 32)


@needs_cases
def test_the_names_of_the_cases() -> None:
    for path in sorted(case("names").rglob("*.wav")):
        assert len(sound_of(decode(path, 0, 32))) == 16_000


def test_a_picture_of_decord_has_any_name(tmp_path: Path) -> None:
    path = write_media(tmp_path / "x.mp4", PictureTrack())
    named = tmp_path / "take: #3.mp4"
    shutil.move(path, named)
    assert not decode(named, 16, 32, reader="decord").overruled
