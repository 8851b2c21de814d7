"""The synthetic demo corpus: names, streams, determinism, and emotions that can be heard and seen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from cache.corpus.clips import Clip, Corpus, read_corpus
from cache.corpus.ravdess import LABELS, STATEMENTS, parse_ravdess_name
from extract.corpora.synthetic.corpus import corpus_clips, synthesise, write_corpus
from extract.corpora.synthetic.face import FRAMES_PER_SECOND, HEIGHT, WIDTH, draw_look, perform
from extract.corpora.synthetic.voice import CONTROL_HZ, PROSODY, SAMPLE_RATE_HZ, Utterance, draw_voice, speak

ANGRY, SAD = "01-01-05-01-01-01-19", "01-01-04-01-02-01-20"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two emotions of one speaker: 4 clips."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extract.corpora.synthetic.corpus.LABELS", ("sad", "angry"))
        return read_corpus(write_corpus(tmp_path_factory.mktemp("synthetic"), seed=0, speakers=[23], processes=2))


def say(label: str, actor: int, statement: str = STATEMENTS[0], take: int = 0) -> Utterance:
    voice = draw_voice("male" if actor % 2 else "female", np.random.default_rng(actor))
    return speak(statement, label, voice, np.random.default_rng([actor, take, LABELS.index(label)]))


def mean_pitch_hz(label: str) -> float:
    """Over two men and two women, so that one speaker's habits do not decide."""
    return float(np.mean([say(label, actor).pitch_hz_C.mean() for actor in range(17, 21)]))


def level(samples_T: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(samples_T.astype(np.float64) ** 2)))


def brightness_db(label: str) -> float:
    """Power above 1 kHz against below, up to 4 kHz where voice outweighs frication; over four speakers."""
    values = []
    for actor in range(17, 21):
        samples_T = say(label, actor).samples_T
        power = np.abs(np.fft.rfft(samples_T)) ** 2
        rate_hz = np.fft.rfftfreq(len(samples_T), 1 / SAMPLE_RATE_HZ)
        high, low = power[(rate_hz > 1000) & (rate_hz < 4000)].sum(), power[rate_hz < 1000].sum()
        values.append(10 * np.log10(high / low))
    return float(np.mean(values))


def test_metadata_says_what_the_names_say(corpus: Corpus) -> None:
    assert len({(clip.label, clip.statement) for clip in corpus.clips}) == len(corpus.clips) == 4
    for clip in corpus.clips:
        name = parse_ravdess_name(clip.path)
        assert Clip(path=clip.path, **name.metadata) == clip
        assert clip.path == f"Actor_23/{name.stem}.mp4"
        assert (clip.sex, clip.split, clip.intensity) == ("male", "test", "normal")
    files = {path.relative_to(corpus.root).as_posix() for path in corpus.root.rglob("*") if path.is_file()}
    assert files == {"metadata.csv", *(clip.path for clip in corpus.clips)}


@pytest.mark.parametrize("repetitions", [1, 2])
def test_default_corpus_is_balanced_and_reaches_all_parts_of_holdout(repetitions: int) -> None:
    clips = corpus_clips(repetitions=repetitions)
    assert len({clip.clip_id for clip in clips}) == len(clips) == 8 * 8 * 2 * repetitions
    counts = Counter((clip.speaker, clip.label, clip.statement) for clip in clips)
    assert set(counts.values()) == {repetitions}
    speakers = {(clip.split, clip.speaker) for clip in clips}
    assert Counter(split for split, _ in speakers) == {"train": 4, "validation": 2, "test": 2}


def test_clips_hold_h264_and_aac_of_equal_length(corpus: Corpus) -> None:
    seconds = []
    for clip in corpus.clips:
        with av.open(str(corpus.source(clip))) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, video.pix_fmt) == ("h264", "yuv420p")
            assert (video.width, video.height, video.average_rate) == (WIDTH, HEIGHT, FRAMES_PER_SECOND)
            assert (audio.codec_context.name, audio.rate, audio.layout.name) == ("aac", SAMPLE_RATE_HZ, "mono")
            seconds.append(video.frames / FRAMES_PER_SECOND)
            sound_seconds = float(audio.duration * audio.time_base)
        assert sound_seconds == pytest.approx(seconds[-1], abs=0.08)
    assert min(seconds) > 1.3
    assert max(seconds) < 4.0
    assert len(set(seconds)) > 1, "tempo follows emotion and take"


def test_picture_and_sound_survive_the_file(corpus: Corpus) -> None:
    clip = corpus.clips[0]
    samples_T, frames_FHWC = synthesise(clip.clip_id, seed=0)
    with av.open(str(corpus.source(clip))) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(corpus.source(clip))) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(shown) == len(frames_FHWC)
    assert np.abs(shown[20].astype(int) - frames_FHWC[20]).mean() < 4
    assert level(heard) == pytest.approx(level(samples_T), rel=0.1)


def test_a_clip_depends_on_seed_and_name_alone() -> None:
    first, again, other = synthesise(ANGRY, 0), synthesise(ANGRY, 0), synthesise(ANGRY, 1)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    count = min(len(first[0]), len(other[0]))
    assert not np.array_equal(first[0][:count], other[0][:count])
    assert not np.array_equal(first[1][5], other[1][5])


def test_files_do_not_depend_on_the_number_of_processes(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extract.corpora.synthetic.corpus.LABELS", ("angry",))
    alone = read_corpus(write_corpus(tmp_path, speakers=[23], processes=1))
    both = {clip.clip_id: corpus.source(clip).read_bytes() for clip in corpus.clips}
    assert len(alone.clips) == 2
    assert all(alone.source(clip).read_bytes() == both[clip.clip_id] for clip in alone.clips)


def test_unknown_speaker_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="actor '25'"):
        write_corpus(tmp_path / "corpus", speakers=[17, 25])
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("label", LABELS)
def test_samples_are_mono_and_never_clip(label: str) -> None:
    for actor in (17, 18):
        samples_T = say(label, actor).samples_T
        assert samples_T.dtype == np.float32
        assert samples_T.ndim == 1
        assert 0.02 < np.abs(samples_T).max() <= 1.0


def test_speech_stands_between_two_silences() -> None:
    samples_T = say("neutral", 17).samples_T
    edge = SAMPLE_RATE_HZ // 10
    assert level(samples_T[:edge]) < 0.02 * level(samples_T)
    assert level(samples_T[-edge:]) < 0.05 * level(samples_T)


def test_emotions_differ_in_sound_as_the_literature_says() -> None:
    assert set(PROSODY) == set(LABELS)
    angry, sad = say("angry", 17).samples_T, say("sad", 17).samples_T
    assert mean_pitch_hz("angry") > 1.1 * mean_pitch_hz("sad")
    assert mean_pitch_hz("surprised") > 1.2 * mean_pitch_hz("calm")
    assert level(angry) > 3 * level(sad)
    assert brightness_db("angry") > brightness_db("sad") + 2
    assert len(sad) > 1.1 * len(angry)


def test_women_speak_higher_than_men() -> None:
    assert say("neutral", 18).pitch_hz_C.mean() > 1.4 * say("neutral", 17).pitch_hz_C.mean()


def test_mouth_moves_with_speech_and_rests_in_silence() -> None:
    utterance = say("neutral", 17)
    assert len(utterance.opening_C) == len(utterance.rounding_C)
    assert len(utterance.opening_C) / CONTROL_HZ == pytest.approx(len(utterance.samples_T) / SAMPLE_RATE_HZ)
    assert utterance.opening_C[:40].max() < 0.05
    assert utterance.opening_C.max() > 0.5


def still_frame(label: str, opening: float = 0.0) -> npt.NDArray[np.int_]:
    """A frame at the apex, without the randomness that differs between clips."""
    look = draw_look("female", 18, np.random.default_rng(18))
    mouth_F = np.full(40, opening)
    frames_FHWC = perform(look, label, mouth_F, np.zeros(40), np.random.default_rng(3))
    return np.asarray(frames_FHWC[24], dtype=np.int_)


def test_faces_move_with_emotion_and_speech() -> None:
    frames = {label: still_frame(label) for label in LABELS}
    for index, label in enumerate(LABELS):
        for other in LABELS[:index]:
            assert np.abs(frames[label] - frames[other]).mean() > 0.3, (label, other)
    assert np.abs(still_frame("neutral", 1.0) - frames["neutral"]).max() > 100


def test_face_stays_inside_the_centre_square() -> None:
    """What encoders see: the outermost columns of the square show the wall, whatever the pose."""
    _, frames_FHWC = synthesise(SAD, seed=0)
    left = (WIDTH - HEIGHT) // 2
    edge_FHC = frames_FHWC[:, : HEIGHT // 2, left : left + 3].mean(axis=2)
    assert np.ptp(edge_FHC, axis=0).max() < 6
