"""Recorded noise: who is heard in babble, which stretch of which file is drawn, and what is said when none can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.conditions import parse_condition
from cache.corpus.clips import Clip, Corpus
from cache.media import Failure, Media, Source
from configs.schema.features import NoiseSettings
from extract.corrupt.apply import corrupt
from extract.corrupt.noise import babble
from extract.corrupt.noise.babble import POOL_CLIPS, TALKERS, Babble, babble_pool, training_speakers
from extract.corrupt.noise.excerpt import RecordingError, excerpt, seamless
from extract.corrupt.noise.files import NoiseFiles
from extract.corrupt.noise.sources import RECORDED, NoiseSources, noise_sources
from extract.corrupt.sound.level import Waveform, active_speech_power
from tests.tiny.corpus import tone
from tests.tiny.places import SHARED


def write_sound(path: Path, waveform_T: Waveform) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform_T, 16_000, subtype="FLOAT" if path.suffix == ".wav" else None)


def voice(number: int) -> Waveform:
    """A speaker's own tone, which tells the babble they are in."""
    seconds = np.arange(8000) / 16_000
    return (0.05 * (1 + number % 3) * np.sin(2 * np.pi * pitch_hz(number) * seconds)).astype(np.float32)


def pitch_hz(number: int) -> int:
    return 200 + 100 * number


def write_corpus(root: Path, speakers: Sequence[str], takes: int = 1, splits: Sequence[str] = ()) -> Corpus:
    """Wav clips of the speakers' own tones; `splits`: of each speaker."""
    clips = []
    for number, speaker in enumerate(speakers):
        for take in range(takes):
            clip = Clip(f"c{speaker}-{take}", f"{speaker}-{take}.wav", "happy", speaker)
            clips.append(replace(clip, split=splits[number] if splits else ""))
            write_sound(root / clip.path, voice(number))
    return Corpus(root, tuple(clips), ("happy", "sad"))


def speakers_in(noise_T: Waveform, count: int) -> set[int]:
    """Numbers of the speakers whose tone is in the noise."""
    power = np.abs(np.fft.rfft(noise_T * np.hanning(len(noise_T)))) ** 2
    hertz = np.fft.rfftfreq(len(noise_T), 1 / 16_000)
    bins = [int(np.argmin(np.abs(hertz - pitch_hz(number)))) for number in range(count)]
    return {number for number, index in enumerate(bins) if power[index] > 0.01 * power.max()}


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Babble]:
    """Twelve speakers, three clips each: 1 to 10 train, 11 and 12 test. Decoded once for all tests."""
    splits = ["train"] * 10 + ["test"] * 2
    corpus = write_corpus(tmp_path_factory.mktemp("corpus"), [str(n) for n in range(1, 13)], 3, splits)
    return corpus, Babble(babble_pool(corpus, training_speakers(corpus, None)), corpus)


def draw(source: Any, clip_id: str, length: int = 16_000) -> Waveform:
    noise_T: Waveform = source.draw(length, np.random.default_rng([*clip_id.encode()]), clip_id)
    return noise_T


# Excerpts


@given(st.integers(1, 3000), st.integers(0, 5000), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_an_excerpt_has_its_length(available: int, length: int, seed: int) -> None:
    recording_T = np.random.default_rng(seed).standard_normal(available).astype(np.float32)
    before_T = recording_T.copy()
    taken_T = excerpt(recording_T, length, np.random.default_rng(seed))
    assert taken_T.shape == (length,)
    assert taken_T.dtype == np.float32
    np.testing.assert_array_equal(recording_T, before_T)


def test_excerpts_of_a_long_recording_come_from_anywhere_in_it() -> None:
    recording_T = np.arange(1000, dtype=np.float32)
    starts = [int(excerpt(recording_T, 990, np.random.default_rng(seed))[0]) for seed in range(200)]
    assert set(starts) == set(range(11))
    np.testing.assert_array_equal(excerpt(recording_T, 1000, np.random.default_rng(0)), recording_T)


def test_a_short_recording_is_repeated_without_a_click() -> None:
    """A tone whose last sample and first sample differ: cut and repeated plainly it would jump."""
    recording_T = np.sin(2 * np.pi * 5.25 * np.arange(4000) / 4000).astype(np.float32)
    assert abs(recording_T[-1] - recording_T[0]) > 0.9
    looped_T = excerpt(recording_T, 20_000, np.random.default_rng(0))
    assert np.abs(np.diff(looped_T)).max() < 0.02


def test_a_loop_of_noise_keeps_its_level_at_the_seam() -> None:
    noise_T = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    assert np.mean(seamless(noise_T)[:800] ** 2) == pytest.approx(1, abs=0.15)


# Babble


def test_babble_is_of_eight_training_speakers_and_never_of_the_clips_own(twelve: tuple[Corpus, Babble]) -> None:
    corpus, source = twelve
    heard: set[int] = set()
    for clip in corpus.clips:
        speakers = speakers_in(draw(source, clip.clip_id), 12)
        assert len(speakers) == TALKERS == 8
        assert int(clip.speaker) - 1 not in speakers
        heard |= speakers
    assert heard == set(range(10))


def test_voices_are_equally_loud_however_loud_they_were_recorded(twelve: tuple[Corpus, Babble]) -> None:
    _, source = twelve
    peaks = [np.abs(voice.waveform_T).max() for voice in source.voices]
    assert max(peaks) < 1.01 * min(peaks)
    assert all(active_speech_power(voice.waveform_T) == pytest.approx(1, rel=1e-4) for voice in source.voices)


def test_few_speakers_babble_with_two_clips_each(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, ["1", "2", "3"], takes=3)
    source = Babble(babble_pool(corpus, {"1", "2", "3"}), corpus)
    assert speakers_in(draw(source, "c2-0"), 3) == {0, 2}
    assert np.mean(draw(source, "c2-0", 160_000) ** 2) == pytest.approx(4, rel=0.7)


def test_the_pool_is_small_and_follows_from_the_ids_alone(tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(30)]
    corpus = write_corpus(tmp_path, names, takes=3)
    pool = babble_pool(corpus, set(names))
    assert len(pool) == len(set(pool)) == POOL_CLIPS
    assert len({clip.speaker for clip in pool}) == 30
    assert babble_pool(replace(corpus, clips=corpus.clips[::-1]), set(names)) == pool
    few = babble_pool(corpus, {"s1", "s2"})
    assert sorted(clip.speaker for clip in few) == ["s1", "s1", "s2", "s2"]
    # Not simply the first clips of each speaker.
    assert {clip.clip_id.rpartition("-")[2] for clip in pool} == {"0", "1", "2"}


def test_clips_without_sound_are_no_voices(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, ["1", "2"], takes=3)
    expected = [clip for clip in babble_pool(corpus, {"1", "2"}) if clip.speaker == "2"]
    (tmp_path / expected[0].path).write_bytes(b"<html>not found</html>")
    pool = babble_pool(corpus, {"1", "2"})
    assert len([clip for clip in pool if clip.speaker == "2"]) == 2
    assert expected[0] not in pool


@pytest.mark.parametrize(
    ("speakers", "splits", "named", "expected"),
    [
        (["1", "2", "3"], ["train", "train", "test"], None, {"1", "2"}),
        (["1", "2", "3"], ["train", "validation", "test"], None, {"1"}),
        (["1", "2", "23"], [], None, {"1", "2"}),
        (["1", "2", "23"], ["train", "test", "train"], ["02", "1"], {"1", "2"}),
        (["anna", "ben"], [], None, set()),
        (["anna", "ben"], [], ["ben"], {"ben"}),
    ],
)
def test_who_may_be_heard(
    tmp_path: Path, speakers: list[str], splits: list[str], named: list[str] | None, expected: set[str]
) -> None:
    assert training_speakers(write_corpus(tmp_path, speakers, 1, splits), named) == expected


def test_a_speaker_who_is_tested_as_well_is_never_heard(tmp_path: Path) -> None:
    clips = write_corpus(tmp_path, ["1", "2"], 1, ["train", "train"]).clips
    clips += write_corpus(tmp_path, ["2"], 2, ["test"]).clips[1:]
    assert training_speakers(Corpus(tmp_path, clips, ()), None) == {"1"}


@pytest.mark.parametrize("named", [["7"], ["1", "anna"], []])
def test_named_speakers_must_be_there(tmp_path: Path, named: list[str]) -> None:
    with pytest.raises(ValueError, match=r"noise.babble_speakers names .*: the corpus has 1, 2"):
        training_speakers(write_corpus(tmp_path, ["1", "2"]), named)


@pytest.mark.parametrize(("speakers", "found"), [({"1"}, "only speaker 1"), (set(), "none")])
def test_babble_needs_two_training_speakers(tmp_path: Path, speakers: set[str], found: str) -> None:
    corpus = write_corpus(tmp_path, ["1", "2"])
    with pytest.raises(ValueError, match=rf"two training speakers, the corpus has {found}; .*noise.babble_speakers"):
        babble_pool(corpus, speakers)


def fake_decoding(monkeypatch: pytest.MonkeyPatch, *decoded: Media | Failure) -> list[list[Path]]:
    calls: list[list[Path]] = []

    def decode_all(paths: list[Path], **_: object) -> list[tuple[Media | Failure, Source]]:
        calls.append(paths)
        return [(media, Source("", 0, 0, 0, 0)) for media in decoded]

    monkeypatch.setattr(babble, "decode_all", decode_all)
    return calls


def test_the_pool_is_decoded_once_and_not_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_decoding(monkeypatch, Media(voice(0), None), Media(voice(1), None))
    corpus = write_corpus(tmp_path, ["1", "2"])
    source = Babble(babble_pool(corpus, {"1", "2"}), corpus)
    assert calls == []
    for clip in (*corpus.clips, *corpus.clips):
        draw(source, clip.clip_id)
    assert len(calls) == 1


def test_silent_voices_are_left_out_and_leave_nobody_at_worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_corpus(tmp_path, ["1", "2"])
    pool = babble_pool(corpus, {"1", "2"})
    fake_decoding(monkeypatch, Media(voice(0), None), Media(np.zeros(100, np.float32), None))
    source = Babble(pool, corpus)
    assert [voice.speaker for voice in source.voices] == [pool[0].speaker]
    with pytest.raises(ValueError, match=r"no training speaker but . can be heard"):
        draw(source, pool[0].clip_id)
    assert draw(source, pool[1].clip_id).any()


def test_a_voice_that_cannot_be_decoded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_corpus(tmp_path, ["1", "2"])
    pool = babble_pool(corpus, {"1", "2"})
    fake_decoding(monkeypatch, Media(voice(0), None), Failure("the decoder crashed"))
    with pytest.raises(ValueError, match=rf"{pool[1].clip_id}.* cannot be decoded \(the decoder crashed\)"):
        draw(Babble(pool, corpus), "c1-0")


def test_babbles_provenance_is_its_clips_and_their_bytes(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, ["1", "2"])
    source = Babble(babble_pool(corpus, {"1", "2"}), corpus)
    before = source.provenance()
    assert (before["talkers"], sorted(before["pool"])) == (8, ["c1-0", "c2-0"])
    assert source.provenance() == before
    write_sound(tmp_path / "2-0.wav", voice(5))
    assert source.provenance()["pool_sha256"] != before["pool_sha256"]


# Files


@pytest.fixture
def musan(tmp_path: Path) -> Path:
    """Noise files laid out like MUSAN's."""
    root = tmp_path / "musan"
    for number in range(3):
        write_sound(root / "noise/free-sound" / f"noise-free-sound-{number}.wav", voice(number))
    write_sound(root / "music/fma/music-0.flac", voice(3))
    (root / "noise/free-sound/LICENSE").write_text("CC BY 4.0")
    (root / "README").write_text("MUSAN")
    return root


def test_files_are_found_below_and_each_is_drawn(musan: Path) -> None:
    source = NoiseFiles.of_folder(str(musan))
    assert source.names == (
        "music/fma/music-0.flac",
        *(f"noise/free-sound/noise-free-sound-{number}.wav" for number in range(3)),
    )
    drawn = [speakers_in(draw(source, f"clip {number}"), 4) for number in range(40)]
    assert {number for one in drawn for number in one} == {0, 1, 2, 3}
    assert all(len(one) == 1 for one in drawn)


def test_a_draw_follows_from_the_clip_alone(musan: Path) -> None:
    first = {name: draw(NoiseFiles.of_folder(str(musan)), name) for name in ("a", "b", "c")}
    source = NoiseFiles.of_folder(str(musan))
    for name in ("c", "a", "b", "a"):
        np.testing.assert_array_equal(draw(source, name), first[name])


@pytest.mark.parametrize(
    ("folder", "expected"),
    [(None, "set noise.folder"), ("missing", "is not a folder"), (".", r"holds no sound files \(.wav, ")],
)
def test_a_folder_must_be_there_and_hold_sound(tmp_path: Path, folder: str | None, expected: str) -> None:
    (tmp_path / "notes.txt").write_text("nothing to hear")
    with pytest.raises(ValueError, match=rf"noise.folder.*{expected}|{expected}"):
        NoiseFiles.of_folder(None if folder is None else str(tmp_path / folder))


def test_what_a_mac_leaves_beside_sound_is_no_sound(musan: Path) -> None:
    """Two thirds of the clips failed on files of 224 bytes that are named like recordings."""
    names = NoiseFiles.of_folder(str(musan)).names
    (musan / "__MACOSX/rain").mkdir(parents=True)
    for path in (musan / "._rain.wav", musan / "__MACOSX/rain.wav", musan / "__MACOSX/rain/._rain.wav"):
        path.write_bytes(b"\0\5\x16\7" + bytes(220))
    source = NoiseFiles.of_folder(str(musan))
    assert source.names == names
    assert np.any(draw(source, "clip"))


@pytest.mark.skipif(not (SHARED / "cases/noise").is_dir(), reason="no awkward inputs in $SHARED/cases")
def test_the_noise_folder_of_the_cases() -> None:
    source = NoiseFiles.of_folder(str(SHARED / "cases/noise"))
    assert source.names == tuple(f"rain{number}.wav" for number in range(4))
    assert all(np.any(draw(source, f"clip {number}")) for number in range(12))


def test_a_folder_that_cannot_be_listed_is_named(musan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied", "noise")

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(ValueError, match=r"noise.folder .*musan cannot be read: .*Permission denied"):
        NoiseFiles.of_folder(str(musan))


@pytest.mark.parametrize("content", [b"", b"<html>", b"RIFF\xff\x00\x00\x00WAVEfmt "])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"noise.folder: broken.wav cannot be decoded \(.+\); take it out"):
        draw(NoiseFiles.of_folder(str(tmp_path)), "clip")
    with pytest.raises(RecordingError, match=r"noise.folder: broken.wav cannot be decoded \(.+\); take it out"):
        NoiseFiles.of_folder(str(tmp_path)).provenance()


def test_the_provenance_of_files_is_their_names_and_bytes(musan: Path) -> None:
    before = NoiseFiles.of_folder(str(musan)).provenance()
    assert before["files"] == 4
    moved = musan.rename(musan.with_name("elsewhere"))
    assert NoiseFiles.of_folder(str(moved)).provenance() == before
    write_sound(moved / "music/fma/music-0.flac", voice(7))
    changed = NoiseFiles.of_folder(str(moved)).provenance()
    assert changed != before
    (moved / "README").unlink()
    assert NoiseFiles.of_folder(str(moved)).provenance() == changed


# Both


def test_silent_stretches_are_drawn_again(tmp_path: Path) -> None:
    recording_T = np.zeros(40_000, np.float32)
    recording_T[-8000:] = voice(0)
    write_sound(tmp_path / "mostly-silent.wav", recording_T)
    sources = NoiseSources({"noise-file": NoiseFiles.of_folder(str(tmp_path))})
    for seed in range(10):
        assert sources.draw("noise-file", 1600, np.random.default_rng(seed), "clip").any()


@pytest.mark.parametrize("level", [0, 5e-5])
def test_silence_is_never_raised_to_noise(tmp_path: Path, level: float) -> None:
    write_sound(tmp_path / "silent.wav", np.full(4000, level, np.float32))
    sources = NoiseSources({"noise-file": NoiseFiles.of_folder(str(tmp_path))})
    with pytest.raises(ValueError, match=r"noise-file: 20 stretches drawn in a row were silent"):
        sources.draw("noise-file", 1000, np.random.default_rng(0), "clip")


def test_only_what_is_wanted_is_looked_for(tmp_path: Path) -> None:
    nothing = NoiseSettings()
    corpus = write_corpus(tmp_path, ["anna"])
    assert not noise_sources(nothing, corpus, ["clean", "noise-white", "drop-frames"]).by_kind
    with pytest.raises(ValueError, match=r"noise-file needs .*noise.folder"):
        noise_sources(nothing, corpus, ["noise-file"])
    with pytest.raises(ValueError, match=r"noise-babble needs .*two training speakers"):
        noise_sources(nothing, corpus, ["noise-babble"])
    assert set(RECORDED) == {"noise-babble", "noise-file"}


def test_sources_of_a_run(tmp_path: Path, musan: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", ["1", "2"])
    sources = noise_sources(NoiseSettings(str(musan)), corpus, ["noise-file", "noise-babble", "clean"])
    assert sources.provenance("noise-file")["files"] == 4
    assert sources.provenance("noise-babble")["talkers"] == 8
    assert sources.provenance("noise-white") == {}


@pytest.mark.parametrize("name", ["noise-babble-0db", "noise-file-minus5db"])
def test_without_recordings_the_way_out_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} mixes in recordings.*take noise-white or noise-pink"):
        corrupt(Media(tone(0.2), None), parse_condition(name), "clip")


@pytest.mark.parametrize("kind", ["noise-babble", "noise-file"])
def test_recorded_noise_is_mixed_at_its_ratio(kind: str, twelve: tuple[Corpus, Babble], musan: Path) -> None:
    sources = NoiseSources({"noise-babble": twelve[1], "noise-file": NoiseFiles.of_folder(str(musan))})
    clean_T = 0.05 * tone(1.0)
    mixes = [
        corrupt(Media(clean_T, None), parse_condition(f"{kind}-{level}"), clip_id, sources).waveform_T
        for level, clip_id in (("10db", "c1-0"), ("10db", "c1-0"), ("20db", "c1-0"), ("10db", "c2-0"))
    ]
    first, again, quieter, other = (mix_T - clean_T for mix_T in mixes if mix_T is not None)
    np.testing.assert_array_equal(first, again)
    assert 10 * np.log10(active_speech_power(clean_T) / np.mean(first**2)) == pytest.approx(10, abs=0.1)
    assert np.sqrt(np.mean(first**2) / np.mean(quieter**2)) == pytest.approx(10**0.5, rel=1e-3)
    assert not np.allclose(first, other, atol=1e-4)


@pytest.mark.parametrize("count", [1, 7, 400])
def test_the_shortest_clips_get_noise(count: int, twelve: tuple[Corpus, Babble], musan: Path) -> None:
    sources = NoiseSources({"noise-babble": twelve[1], "noise-file": NoiseFiles.of_folder(str(musan))})
    for kind in sources.by_kind:
        mix_T = corrupt(
            Media(tone(1.0)[:count] + 0.1, None), parse_condition(f"{kind}-0db"), "c1-0", sources
        ).waveform_T
        assert mix_T is not None
        assert np.isfinite(mix_T).all()
        assert len(mix_T) == count
