"""RAVDESS names: every field, every code, and what is not a name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.corpus.clips import Clip
from cache.corpus.ravdess import HOLDOUT, LABELS, VALUES, RavdessName, is_ravdess_id, parse_ravdess_name
from configs.schema.protocols import load_protocol

names = (
    st.fixed_dictionaries({field: st.sampled_from(values) for field, values in VALUES.items()})
    .filter(lambda values: (values["emotion"], values["intensity"]) != ("neutral", "strong"))
    .map(lambda values: RavdessName(**values))
)


def test_the_example_of_the_paper() -> None:
    name = parse_ravdess_name("somewhere/Actor_12/03-01-06-01-02-01-12.wav")
    assert name == RavdessName("audio-only", "speech", "fearful", "normal", "Dogs are sitting by the door", "1", "12")
    assert Clip(path="Actor_12/03-01-06-01-02-01-12.wav", **name.metadata) == Clip(
        clip_id="03-01-06-01-02-01-12",
        path="Actor_12/03-01-06-01-02-01-12.wav",
        label="fearful",
        speaker="12",
        statement="Dogs are sitting by the door",
        intensity="normal",
        repetition="1",
        sex="female",
        split="train",
    )


def test_emotion_codes_follow_the_order_of_the_labels() -> None:
    labels = [parse_ravdess_name(f"01-01-{code:02d}-01-01-01-01.mp4").emotion for code in range(1, 9)]
    assert tuple(labels) == LABELS


@pytest.mark.parametrize(("actor", "sex"), [("01", "male"), ("02", "female"), ("23", "male"), ("24", "female")])
def test_sex_follows_the_parity_of_the_actor(actor: str, sex: str) -> None:
    assert parse_ravdess_name(f"01-01-01-01-01-01-{actor}.mp4").sex == sex


@pytest.mark.parametrize("file", ["{}.mp4", "{}.FLAC", "{}", "a b/c.d/{}.wav"])
@given(name=names)
def test_every_name_survives_the_round_trip(file: str, name: RavdessName) -> None:
    assert parse_ravdess_name(file.format(name.stem)) == name
    assert is_ravdess_id(name.stem)
    assert name.metadata["clip_id"] == name.stem
    assert name.metadata["speaker"] == str(int(name.stem[-2:]))


@given(names, names)
def test_utterances_are_told_apart_by_all_but_the_modality(one: RavdessName, other: RavdessName) -> None:
    assert (one.utterance == other.utterance) == (one.stem[2:] == other.stem[2:])


@pytest.mark.parametrize(
    ("stem", "message"),
    [
        ("04-01-01-01-01-01-01", r"unknown modality code 04; allowed: 01 \(audio-video\)"),
        ("01-03-01-01-01-01-01", r"unknown channel code 03; allowed: 01 \(speech\), 02 \(song\)"),
        ("01-01-09-01-01-01-01", r"unknown emotion code 09; allowed: 01 \(neutral\), .*08 \(surprised\)"),
        ("01-01-00-01-01-01-01", r"unknown emotion code 00"),
        ("01-01-03-03-01-01-01", r"unknown intensity code 03"),
        ("01-01-03-01-03-01-01", r"unknown statement code 03; allowed: 01 \(Kids are talking by the door\)"),
        ("01-01-03-01-01-03-01", r"unknown repetition code 03"),
        ("01-01-03-01-01-01-25", r"unknown actor code 25; allowed: 01 to 24"),
        ("01-01-01-02-01-01-01", r"intensity 02 \(strong\) does not exist for neutral"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(stem: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_ravdess_name(Path("Actor_01") / f"{stem}.mp4")
    assert f"Actor_01/{stem}.mp4" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "file",
    [
        "",
        "clip.mp4",
        "01-01-01-01-01-01.mp4",
        "01-01-01-01-01-01-01-01.mp4",
        "1-1-1-1-1-1-1.mp4",
        "01-01-01-01-01-01-01_croppad.wav",
        "01-01-01-01-01-01-0x.mp4",
        "01-01-01-01-01-01-\u0660\u0661.mp4",
        "01-01-01-01-01-01-01\n.mp4",
        "._01-01-01-01-01-01-01.mp4",
    ],
)
def test_other_names_are_refused(file: str) -> None:
    with pytest.raises(ValueError, match="is not a RAVDESS name"):
        parse_ravdess_name(file)


@given(st.text())
def test_any_text_is_a_name_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert parse_ravdess_name(text).stem in text


def test_words_that_no_name_can_say_are_refused() -> None:
    with pytest.raises(ValueError, match="emotion 'bored' is not one of neutral, calm"):
        RavdessName("audio-only", "speech", "bored", "normal", VALUES["statement"][0], "1", "1")


def test_the_split_column_is_the_holdout_protocol() -> None:
    clips = [Clip(actor, "x", "happy", str(int(actor))) for actor in VALUES["actor"]]
    (fold,) = load_protocol("holdout").folds(clips)
    for part, actors in HOLDOUT.items():
        assert getattr(fold, part) == tuple(map(str, actors))
    for actor in VALUES["actor"]:
        name = RavdessName("audio-video", "speech", "happy", "strong", VALUES["statement"][0], "2", actor)
        assert actor in getattr(fold, name.metadata["split"])
