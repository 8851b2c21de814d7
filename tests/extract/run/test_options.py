"""What stage one can be told: layers, pooling, number formats, hashes, media; one rank, in this process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.care.growth import grow
from cache.corpus.clips import read_corpus, write_metadata
from cache.features.layout import DEVIATION_FILE
from cache.features.rows import State
from cache.features.store import open_store
from cache.features.table import load_table
from configs.command.stop import StopRequest
from configs.loader import check
from configs.schema.features import FeaturesConfig
from extract.encoders.audio import SoundPreparer
from extract.encoders.text import TextPreparer
from extract.run.failures import summary
from extract.run.plan import Plan, make_plan, prepare_stores
from extract.run.rank import run_rank
from extract.run.sources import check_sources
from tests.tiny.corpus import write_tiny_corpus, write_tiny_encoders
from tests.tiny.encoders import WRITERS
from tests.tiny.media import PictureTrack, SoundTrack, write_media

AUDIO, VIDEO, TEXT = "audio/wav2vec2", "video/videomae", "text/roberta"
Run = Callable[..., Plan]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("options")
    write_tiny_corpus(root / "corpus", ["1", "2"], ["calm", "angry"], takes=2)
    write_tiny_encoders(root / "encoders")
    return root


def run(site: Path, features: str, **settings: Any) -> Plan:
    names = {"audio": "wav2vec2", "video": "videomae", "text": "roberta"}
    tree = {
        "corpus": f"{site}/corpus/metadata.csv",
        "features_dir": f"{site}/{features}",
        "encoders": {modality: f"{site}/encoders/{name}" for modality, name in names.items()},
        "asr": {"model": None},
        "conditions": ["clean"],
        **settings,
    }
    tree["media"] = {"size": 32, **settings.get("media", {})}
    plan = make_plan(check(FeaturesConfig, tree, "test"))
    prepare_stores(plan)
    run_rank(plan, 0, 1, StopRequest().check, site / f"{features}.decodes")
    return plan


def hidden(plan: Plan, path: str) -> np.ndarray:
    store = open_store(plan.features_dir / "clean.zarr")
    return np.stack([store.read_layer(path, layer) for layer in range(store.shape(path)[1])], axis=1)


@pytest.fixture(scope="module")
def usual(site: Path) -> Plan:
    return run(site, "usual")


def test_every_clip_is_decoded_once_for_all_conditions(site: Path) -> None:
    run(site, "counted", conditions=["noise-pink-0db", "reverb-room-300ms", "occlude-eyes", "freeze-frames-50"])
    assert (site / "counted.decodes").stat().st_size == 8
    run(site, "counted", conditions=["codec-mp3-16kbps", "blur-gaussian-4px"])
    assert (site / "counted.decodes").stat().st_size == 8


def test_chosen_layers_are_those_of_all_layers(site: Path, usual: Plan) -> None:
    last = run(site, "last", layers="last")
    np.testing.assert_array_equal(hidden(last, AUDIO)[:, 0], hidden(usual, AUDIO)[:, 1])
    clips = read_corpus(site / "corpus/metadata.csv").clips
    rows = load_table(last.features_dir, clips, ["audio"], layers=1).features["audio"]
    np.testing.assert_array_equal(rows, hidden(usual, AUDIO)[:, 1])
    with pytest.raises(ValueError, match=r"layers"):
        load_table(last.features_dir, clips, ["audio"], layers=0)


def test_mean_and_deviation_stand_side_by_side(site: Path, usual: Plan) -> None:
    both = hidden(run(site, "mean_std", pooling="mean_std"), VIDEO)
    assert both.shape[2] == 2 * hidden(usual, VIDEO).shape[2]
    np.testing.assert_allclose(both[:, :, :16], hidden(usual, VIDEO), rtol=0, atol=1e-6)
    assert (both[:, :, 16:] > 0).all()


def test_a_pooling_that_an_encoder_lacks_is_refused_before_a_store_is_made(site: Path) -> None:
    with pytest.raises(ValueError, match=r"pooling=cls does not exist for wav2vec2"):
        run(site, "refused", pooling="cls")
    with pytest.raises(ValueError, match=r"layers=\[5\]: name layers of wav2vec2, 0 to 1"):
        run(site, "refused", layers=[5])
    assert not (site / "refused").exists()


def test_long_clips_are_encoded_in_windows_and_the_others_as_before(site: Path, usual: Plan) -> None:
    """Of clips of 0.6 to 0.8 s, those of 0.6 s fit one window."""
    plan = run(site, "windows", window_seconds=0.65, hop_seconds=0.1)
    store, plain = (open_store(one.features_dir / "clean.zarr") for one in (plan, usual))
    with plan.media.open_unit(0) as media:
        lengths = [len(sound) for row in range(8) if (sound := media.waveform(row)) is not None]
    assert store.reasons(AUDIO) == ["" if one <= 10_400 else f"{1 - (10_400 - one) // 1600} windows" for one in lengths]
    is_long = np.array(lengths) > 10_400
    assert 0 < is_long.sum() < 8
    changed = (hidden(plan, AUDIO) != hidden(usual, AUDIO)).any(axis=(1, 2))
    np.testing.assert_array_equal(changed, is_long)
    assert store.provenance(AUDIO)["windows"] == {"seconds": 0.65, "hop_seconds": 0.1}
    # Nothing but sound is cut, and without the setting nothing is said: stores that are there stay as they are.
    for path in (VIDEO, TEXT):
        assert store.provenance(path) == plain.provenance(path)
    assert "windows" not in plain.provenance(AUDIO)
    with pytest.raises(ValueError, match=r"windows\.seconds was not recorded, is 0\.65"):
        run(site, "usual", window_seconds=0.65)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hop_seconds": 1}, r"hop_seconds=1 with window_seconds=null: set window_seconds to that or more"),
        ({"hop_seconds": 3, "window_seconds": 2}, r"hop_seconds=3 with window_seconds=2: set window_seconds to that"),
        ({"window_seconds": 0}, r"window_seconds"),
    ],
)
def test_windows_that_would_leave_sound_out_are_refused(site: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(site, "refused", **settings)


@pytest.fixture(scope="module")
def long(site: Path) -> dict[str, Any]:
    """A corpus of two clips, the first of which is longer than what Whisper and RoBERTa take."""
    write_media(site / "corpus/clips/long.wav", None, [SoundTrack(300.0, "pcm_s16le", seconds=7.0)])
    clips = read_corpus(site / "corpus/metadata.csv").clips[:2]
    first = replace(clips[0], path="clips/long.wav", statement="dogs are talking by the door " * 30)
    write_metadata([first, clips[1]], site / "corpus/long.csv")
    write_metadata([first, *clips[1:]], site / "corpus/longer.csv")
    whisper = WRITERS["whisper"][1](site / "encoders/whisper")
    encoders = {"audio": str(whisper), "video": None, "text": f"{site}/encoders/roberta"}
    return {"corpus": f"{site}/corpus/long.csv", "encoders": encoders}


def test_an_encoder_with_a_limit_takes_long_clips_by_itself(site: Path, long: dict[str, Any]) -> None:
    """A clip of more than Whisper's 30 s, here 3, was a failed clip, and a text lost its end without a word."""
    plan = run(site, "long", **long)
    store = open_store(plan.features_dir / "clean.zarr")
    for path in ("audio/whisper", TEXT):
        assert store.states(path).tolist() == [State.DONE, State.DONE]
    assert store.reasons("audio/whisper") == ["3 windows", ""]
    assert store.reasons(TEXT)[0].endswith(" windows")
    with pytest.raises(ValueError, match=r"window_seconds=4: whisper takes 3 s of sound at a time; set window_secon"):
        run(site, "refused", **long, window_seconds=4)
    assert not (site / "refused").exists()


@pytest.mark.parametrize("grows", [False, True])
def test_what_was_made_before_there_were_windows_is_made_again(
    site: Path, long: dict[str, Any], monkeypatch: pytest.MonkeyPatch, grows: bool
) -> None:
    """Else cut texts would stand beside whole ones, and nothing would say which is which."""

    def too_long(_: object, signal: Any) -> None:
        if len(signal) > 48_000:
            raise ValueError(f"{len(signal) / 16_000:.2f} s of sound; the window takes up to 3 s")

    with monkeypatch.context() as before:
        before.setattr(SoundPreparer, "windows", too_long)
        before.setattr(TextPreparer, "windows", lambda *_: None)
        before.setattr(TextPreparer, "batch_key", lambda *_: 64)
        plan = run(site, f"before-{grows}", **long)
    store = open_store(plan.features_dir / "clean.zarr")
    assert store.states("audio/whisper").tolist() == [State.FAILED, State.DONE]
    assert (store.states(TEXT).tolist(), store.reasons(TEXT)) == ([State.DONE] * 2, ["", ""])
    if grows:
        long = long | {"corpus": f"{site}/corpus/longer.csv"}
        plan = make_plan(replace(plan.config, corpus=long["corpus"]))
        grow(plan.features_dir, plan.corpus, plan.specs)
        prepare_stores(plan)
    for array in plan.arrays:
        assert check_sources(replace(plan, arrays=(array,))) == 1
        assert check_sources(replace(plan, arrays=(array,))) == 0
    again, fresh = run(site, f"before-{grows}", **long), run(site, f"fresh-{grows}", **long)
    for path in ("audio/whisper", TEXT):
        np.testing.assert_array_equal(hidden(again, path), hidden(fresh, path))
    assert check_sources(again) == 0


def test_approximate_features_carry_their_deviation(site: Path, usual: Plan) -> None:
    plan = run(site, "half", compute="bfloat16")
    for path in (AUDIO, VIDEO, TEXT):
        exact, rows = hidden(usual, path), hidden(plan, path)
        found = np.abs(rows - exact) / np.maximum(1, np.abs(exact))
        recorded = json.loads((plan.features_dir / "clean.zarr" / path / DEVIATION_FILE).read_text())
        assert 0 < recorded["max"] < 0.1
        # Measured clip by clip; batches of bfloat16 round a little differently.
        assert recorded["max"] == pytest.approx(found.max(), rel=0.5)
        assert recorded["clips"] == 8
    assert not (usual.features_dir / "clean.zarr" / AUDIO / DEVIATION_FILE).exists()
    with pytest.raises(ValueError, match=r"dtype was float32, is bfloat16"):
        run(site, "usual", compute="bfloat16")


def test_a_file_that_is_not_the_corpuss_is_a_failed_clip(site: Path) -> None:
    corpus = read_corpus(site / "corpus/metadata.csv")
    hashes = [hashlib.sha256(corpus.source(clip).read_bytes()).hexdigest() for clip in corpus.clips]
    listed = [replace(clip, sha256=value) for clip, value in zip(corpus.clips, hashes, strict=True)]
    listed[3] = replace(listed[3], sha256="0" * 64)
    write_metadata(listed, site / "corpus/hashed.csv")
    plan = run(site, "hashed", corpus=f"{site}/corpus/hashed.csv")
    store = open_store(plan.features_dir / "clean.zarr")
    states = store.states(AUDIO)
    assert [int(state) for state in states] == [State.FAILED if row == 3 else State.DONE for row in range(8)]
    assert "its sha256 is not the corpus's" in store.reasons(AUDIO)[3]


def test_clips_of_which_decord_gives_other_frames_are_counted(site: Path) -> None:
    clips = read_corpus(site / "corpus/metadata.csv").clips[:2]
    picture = PictureTrack(options={"x264-params": "keyint=12:bframes=2"})
    write_media(site / "corpus/clips/x.avi", picture, [SoundTrack(codec="pcm_s16le")])
    write_metadata([replace(clips[0], path="clips/x.avi"), clips[1]], site / "corpus/avi.csv")
    plans = {
        reader: run(site, reader, corpus=f"{site}/corpus/avi.csv", media={"reader": reader})
        for reader in ("av", "decord")
    }
    assert "decord gave other frames of 1 clips" in summary(plans["decord"], [])
    assert "decord" not in summary(plans["av"], [])
    np.testing.assert_array_equal(hidden(plans["decord"], VIDEO), hidden(plans["av"], VIDEO))
    stored = {reader: open_store(plan.features_dir / "clean.zarr").provenance(VIDEO) for reader, plan in plans.items()}
    # Rows of av are those of before, byte for byte: nothing is said.
    assert stored["av"]["media"] == {"frames": 16, "size": 32}
    assert stored["decord"]["media"] == {"frames": 16, "size": 32, "reader": "decord"}


def test_lost_media_are_decoded_again_on_request_only(site: Path, usual: Plan) -> None:
    usual.media.forget_unit(0)
    again = run(site, "usual")
    assert not again.media.has_unit(0)
    restored = run(site, "usual", restore_media=True)
    assert restored.media.has_unit(0)


def test_a_flipped_bit_in_decoded_media_never_becomes_a_feature(site: Path) -> None:
    plan = run(site, "flipped")
    part = plan.media.part(0)
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    run(site, "flipped", conditions=["noise-white-0db"])
    fresh = run(site, "fresh", conditions=["noise-white-0db"])
    rows = [open_store(p.features_dir / "noise-white-0db.zarr").read_layer(AUDIO, 1) for p in (plan, fresh)]
    np.testing.assert_array_equal(rows[0], rows[1])


def test_the_summary_says_how_often_no_face_was_found(site: Path) -> None:
    plan = run(site, "faces", media={"face_crop": True})
    assert plan.media.folder.name == "frames16-size32-face"
    assert "no face was found in 8 clips: their centre was cut out" in summary(plan, [])
