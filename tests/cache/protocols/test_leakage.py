"""What is looked for before training: speakers, copies and utterances in two kinds, across parts and within one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.corpus.clips import Clip
from cache.corpus.ravdess import parse_ravdess_name
from cache.features.rows import ArraySpec, UnitRows
from cache.features.store import FeatureStore
from cache.files.hashes import sha256_of
from cache.protocols.folds import Fold
from cache.protocols.leakage import recorded_hashes, refuse_leaks
from configs.schema.protocols import load_protocol
from tests.tiny.places import SHARED, needs_audio

FOLD = Fold(1, ("1",), ("2",), ("3",))
LISTED = Fold(2, ("1",), ("2",), ("3",), listed=(("a", "b"), ("c",), ("d",)))
TWINS = ("03-01-03-01-02-01-07", "03-01-03-01-02-02-07")  # one file upstream


def clip(name: str, speaker: str, sha256: str = "", label: str = "sad") -> Clip:
    return Clip(name, f"{name}.wav", label, speaker, sha256=sha256 or f"only-{name}")


CLEAN = [clip("a", "1"), clip("b", "1"), clip("c", "2"), clip("d", "3")]


def test_a_clean_fold_gives_no_cause_to_say_anything() -> None:
    assert refuse_leaks([FOLD, LISTED], CLEAN) == []


@pytest.mark.parametrize("spelling", ["1", "01"])
def test_a_speaker_in_two_parts_is_fatal(spelling: str) -> None:
    clips = [*CLEAN[:3], clip("d", spelling)]
    with pytest.raises(ValueError, match=r"^fold 2: speaker 1 stands in train and test; give each speaker one part$"):
        refuse_leaks([LISTED], clips)


def test_a_fold_that_leaks_on_purpose_says_how_much_and_goes_on() -> None:
    leaky = replace(LISTED, leaks_speakers=True)
    clips = [clip("a", "1", "x"), clip("b", "2"), clip("c", "1"), clip("d", "3", "x")]
    assert refuse_leaks([leaky], clips) == [
        "fold 2 leaks speakers: 1 of 3 speakers stand in several parts",
        "fold 2 leaks speakers: a (train) and d (test) are the same file; leave all but one out",
    ]


@pytest.mark.parametrize(("part", "other"), [("c", "validation"), ("d", "test")])
def test_copies_of_a_file_are_fatal_across_parts(part: str, other: str) -> None:
    clips = [
        replace(one, sha256="AB" if one.clip_id == "b" else "ab") if one.clip_id in "b" + part else one for one in CLEAN
    ]
    message = f"fold 1: b .train. and {part} .{other}. are the same file; leave all but one out$"
    with pytest.raises(ValueError, match=message):
        refuse_leaks([FOLD], clips)


def test_copies_within_a_part_are_a_warning_that_is_said_once() -> None:
    clips = [clip("a", "1", "x"), clip("b", "1", "x"), *CLEAN[2:]]
    assert refuse_leaks([FOLD, LISTED], clips) == ["a and b are the same file: they count more than once"]


def test_copies_that_contradict_each_other_are_named_as_such() -> None:
    clips = [clip("a", "1", "x"), clip("b", "1", "x", "happy"), *CLEAN[2:]]
    assert refuse_leaks([FOLD], clips) == [
        "a and b are the same file, with labels sad, happy: they count more than once"
    ]


def test_copies_of_which_one_has_no_part_are_a_warning() -> None:
    clips = [clip("a", "1", "x"), *CLEAN[1:], clip("e", "9", "x")]
    assert refuse_leaks([FOLD], clips) == ["a and e are the same file, with speakers 1, 9: they count more than once"]


def test_hashes_from_elsewhere_serve_where_a_clip_has_none_and_the_rest_is_said_to_be_unchecked() -> None:
    clips = [replace(one, sha256="") for one in CLEAN]
    unchecked = [
        line
        for line in refuse_leaks([FOLD], clips, {"a": "x", "d": ""})
        if line.startswith("not checked: 3 of 4 clips")
    ]
    assert len(unchecked) == 1
    with pytest.raises(ValueError, match=r"a \(train\) and d \(test\) are the same file"):
        refuse_leaks([FOLD], clips, {"a": "x", "d": "x"})
    own = [replace(one, sha256=one.clip_id) for one in clips]
    assert refuse_leaks([FOLD], own, dict.fromkeys("abcd", "x")) == []


def test_all_fatal_findings_are_counted_in_one_line() -> None:
    clips = [clip("a", "1", "x"), clip("b", "1", "y"), clip("c", "2", "y"), clip("d", "3", "x")]
    with pytest.raises(ValueError, match=r"^fold 1: a .* \(2 such groups in all\); .* \(and 1 findings like it\)$"):
        refuse_leaks([FOLD, replace(FOLD, number=2)], clips)


def test_an_utterance_in_two_kinds_is_a_warning_within_a_part_and_fatal_across() -> None:
    names = ["01-01-04-01-01-01-07", "03-01-04-01-01-01-07", "01-02-04-01-01-01-07", "03-01-04-01-01-02-07"]
    clips = [clip(name, "7") for name in names]
    kinds = (
        "01-01-04-01-01-01-07 and 03-01-04-01-01-01-07 are one utterance in several kinds: they count more than once"
    )
    assert refuse_leaks([Fold(1, ("7",), ("8",), ("9",))], clips) == [kinds]
    clips[1] = replace(clips[1], speaker="9")  # a manifest that is wrong about who speaks
    with pytest.raises(ValueError, match=r"-07 \(train\) and 03-.* \(test\) are one utterance .*; list one kind only"):
        refuse_leaks([Fold(1, ("7",), ("8",), ("9",))], clips)


def test_other_names_than_those_of_ravdess_say_nothing_of_utterances() -> None:
    clips = [clip("01-x", "1"), clip("03-x", "2"), clip("d", "3")]
    assert refuse_leaks([FOLD], clips) == []


@given(st.lists(st.tuples(st.sampled_from("123"), st.sampled_from("uvwxyz")), min_size=1, max_size=8))
def test_a_copy_is_fatal_exactly_where_it_crosses_parts(rows: list[tuple[str, str]]) -> None:
    clips = [clip(f"{number}", speaker, file) for number, (speaker, file) in enumerate(rows)]
    crosses = len({(speaker, file) for speaker, file in rows}) > len({file for _, file in rows})
    if crosses:
        with pytest.raises(ValueError, match="are the same file"):
            refuse_leaks([FOLD], clips)
    else:
        assert bool(refuse_leaks([FOLD], clips)) == (len(set(rows)) < len(rows))


def store_with(folder: Path, clip_ids: list[str], hashes: dict[str, list[str]]) -> Path:
    store = FeatureStore.create(folder / "clean.zarr", clip_ids)
    for encoder, values in hashes.items():
        spec = ArraySpec("audio", encoder, 1, 2, {})
        store.require(spec)
        rows = UnitRows.empty(len(clip_ids), spec)
        for row in range(len(clip_ids)):
            rows.done(row, np.ones((1, 2), np.float32))
        rows.source = values
        store.write_unit(spec, 0, rows)
    return folder


def test_stage_one_recorded_what_it_decoded(tmp_path: Path) -> None:
    features = store_with(tmp_path, ["d", "a", "z"], {"whisper": ["x", "y", "z"], "xlsx": ["", "", ""]})
    clips = [replace(one, sha256="") for one in CLEAN]
    assert recorded_hashes(features, clips) == {"d": "x", "a": "y"}
    assert recorded_hashes(features, []) == {}
    with pytest.raises(ValueError, match="no feature store"):
        recorded_hashes(tmp_path / "nowhere", clips)


@needs_audio
@pytest.mark.parametrize("name", ["luna5", "leave-one-speaker-out", "sentence-held-out", "random-clips"])
def test_real_ravdess_has_one_pair_of_twins_and_they_stop_nothing(name: str) -> None:
    files = sorted((SHARED / "ravdess/audio").glob("Actor_*/*.flac"))
    clips = [Clip(path=str(file), **parse_ravdess_name(file).metadata, sha256=sha256_of(file)) for file in files]
    twins = [line for line in refuse_leaks(load_protocol(name).folds(clips), clips) if "are the same file" in line]
    assert twins
    for line in twins:
        assert all(twin in line for twin in TWINS)
        assert "such groups" not in line
        assert line.endswith("they count more than once") or name == "random-clips"
