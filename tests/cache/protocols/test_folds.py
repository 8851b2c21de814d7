"""Protocols over speakers: apart whatever the corpus, and the numbers in use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from itertools import chain, combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.corpus.clips import Clip
from cache.protocols.folds import PARTS, CyclicGroups, FixedFold, Fold, LeaveOneSpeakerOut, Protocol
from configs.schema import protocols
from configs.schema.protocols import load_protocol, protocol_names

ACTORS = tuple(str(actor) for actor in range(1, 25))
SHIPPED = ("chumachenko", "emobox6", "hicmae6", "holdout", "leave-one-speaker-out", "luna5")
BY_CLIP = ("random-clips", "sentence-held-out", "split-column")  # see test_protocols.py
speakers = st.one_of(st.integers(1, 40).map(str), st.text(min_size=1, max_size=3))
# The actors less a few, and a few strangers: near what the protocols name, so that not all are refused.
corpora = st.builds(
    lambda missing, strangers: (frozenset(ACTORS) - missing) | strangers,
    st.frozensets(st.sampled_from(ACTORS)),
    st.frozensets(speakers, max_size=3),
)
known_protocol = cache(load_protocol)


def clips_of(speakers: Iterable[str], takes: int = 1) -> list[Clip]:
    return [Clip(f"{speaker}/{take}", "", "happy", speaker) for speaker in speakers for take in range(takes)]


def as_ints(names: tuple[str, ...]) -> list[int]:
    return [int(name) for name in names]


def assert_apart(fold: Fold) -> None:
    for one, other in combinations((fold.train, fold.validation, fold.test), 2):
        assert not set(one) & set(other)
    for part in (fold.train, fold.validation, fold.test):
        assert part
        assert len(set(part)) == len(part)


def test_every_shipped_protocol_is_listed() -> None:
    assert protocol_names() == tuple(sorted(SHIPPED + BY_CLIP))


@pytest.mark.parametrize("name", SHIPPED)
def test_on_the_whole_corpus_every_speaker_has_a_part_in_every_fold(name: str) -> None:
    for fold in load_protocol(name).folds(clips_of(ACTORS)):
        assert_apart(fold)
        assert sorted(chain(fold.train, fold.validation, fold.test)) == sorted(ACTORS)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in ("holdout", "chumachenko")])
def test_cyclic_protocols_test_each_speaker_once_and_validate_on_the_next_group(name: str) -> None:
    folds = load_protocol(name).folds(clips_of(ACTORS))
    assert sorted(chain.from_iterable(fold.test for fold in folds)) == sorted(ACTORS)
    assert [fold.number for fold in folds] == list(range(1, len(folds) + 1))
    if name != "leave-one-speaker-out":
        for fold, following in zip(folds, (*folds[1:], folds[0]), strict=True):
            assert fold.validation == following.test


@pytest.mark.parametrize(
    ("name", "tests"),
    [
        (
            "luna5",
            [[2, 5, 14, 15, 16], [3, 6, 7, 13, 18], [10, 11, 12, 19, 20], [8, 17, 21, 23, 24], [1, 4, 9, 22]],
        ),
        (
            "emobox6",
            [[1, 11, 20, 21], [4, 10, 12, 14], [8, 9, 19, 23], [3, 5, 7, 24], [2, 15, 16, 18], [6, 13, 17, 22]],
        ),
        ("hicmae6", [[4 * k + 1, 4 * k + 2, 4 * k + 3, 4 * k + 4] for k in range(6)]),
        ("chumachenko", [[5, 10, 16, 19]]),
        ("holdout", [[23, 24]]),
        ("leave-one-speaker-out", [[k] for k in range(1, 25)]),
    ],
)
def test_the_test_speakers_in_use(name: str, tests: list[list[int]]) -> None:
    assert [as_ints(fold.test) for fold in load_protocol(name).folds(clips_of(ACTORS))] == tests


def test_the_validation_speakers_of_the_fixed_folds() -> None:
    assert load_protocol("chumachenko").folds(clips_of(ACTORS))[0].validation == ("11", "13", "18", "22")
    assert load_protocol("holdout").folds(clips_of(ACTORS))[0].validation == ("21", "22")


def test_leave_one_speaker_out_validates_on_the_next_two_in_numeric_order() -> None:
    folds = load_protocol("leave-one-speaker-out").folds(clips_of(["10", "9", "2", "1"]))
    assert [fold.test + fold.validation for fold in folds] == [
        ("1", "2", "9"),
        ("2", "9", "10"),
        ("9", "1", "10"),
        ("10", "1", "2"),
    ]
    assert [fold.train for fold in folds] == [("10",), ("1",), ("2",), ("9",)]


@given(corpora, st.sampled_from(SHIPPED))
def test_on_any_corpus_parts_are_apart_and_present_or_it_is_refused(present: frozenset[str], name: str) -> None:
    protocol = known_protocol(name)
    clips = clips_of(present)
    left_out = set(protocol.left_out(clips))
    named = [fold for fold in protocol.rule.divide(clips) if fold.train and fold.validation and fold.test]
    if not named or len(named) < len(protocol.rule.divide(clips)):
        with pytest.raises(ValueError, match=f"^protocol {name}: .*speakers"):
            protocol.folds(clips)
        return
    for fold in protocol.folds(clips):
        assert_apart(fold)
        assert {*fold.train, *fold.validation, *fold.test} == present - left_out


@given(st.lists(st.frozensets(speakers, min_size=1), min_size=3, max_size=6))
def test_groups_that_overlap_are_refused_and_others_divide(groups: list[frozenset[str]]) -> None:
    everyone = frozenset().union(*groups)
    written = tuple(tuple(group) for group in groups)
    if len(everyone) < sum(map(len, groups)):
        with pytest.raises(ValueError, match="stands twice"):
            CyclicGroups(written)
        return
    folds = Protocol("mine", CyclicGroups(written)).folds(clips_of(everyone))
    for fold in folds:
        assert_apart(fold)
    assert sorted(chain.from_iterable(fold.test for fold in folds)) == sorted(everyone)


@given(st.frozensets(speakers, min_size=4, max_size=12))
def test_folds_do_not_depend_on_the_order_of_the_speakers(present: frozenset[str]) -> None:
    protocol = Protocol("loso", LeaveOneSpeakerOut())
    assert protocol.folds(clips_of(sorted(present))) == protocol.folds(clips_of(sorted(present, reverse=True)))


def test_a_subset_keeps_only_its_speakers() -> None:
    (fold,) = load_protocol("holdout").folds(clips_of(str(actor) for actor in range(17, 25)))
    assert fold == Fold(1, ("17", "18", "19", "20"), ("21", "22"), ("23", "24"))


def test_speakers_that_a_protocol_does_not_name_are_left_out_and_can_be_asked_for() -> None:
    corpus = clips_of([*ACTORS, "25", "anna", "100"])
    protocol = load_protocol("luna5")
    assert protocol.left_out(corpus) == ("25", "100", "anna")
    assert protocol.folds(corpus) == protocol.folds(clips_of(ACTORS))
    assert not any("anna" in (*fold.train, *fold.validation, *fold.test) for fold in protocol.folds(corpus))
    assert load_protocol("leave-one-speaker-out").left_out(corpus) == ()


@pytest.mark.parametrize(
    ("name", "present", "message"),
    [
        (
            "luna5",
            range(17, 25),
            "protocol luna5: fold 1 has no test speakers in this corpus .it has 8 clips of 17, 18, 19",
        ),
        ("holdout", range(1, 21), "protocol holdout: fold 1 has no validation and no test speakers"),
        ("holdout", range(21, 25), "fold 1 has no train speakers"),
        ("holdout", range(23, 25), "has no train and no validation speakers"),
        ("leave-one-speaker-out", range(1, 4), "leave-one-speaker-out: fold 1 has no train speakers"),
        ("leave-one-speaker-out", range(0), "the corpus has no speakers"),
        ("emobox6", range(0), "fold 1 has no train and no validation and no test speakers"),
    ],
)
def test_an_empty_part_is_refused(name: str, present: range, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_protocol(name).folds(clips_of(str(actor) for actor in present))


def test_a_part_is_every_clip_of_its_speakers_in_the_order_of_the_clips() -> None:
    fold = Fold(1, ("1", "2"), ("3",), ("4",))
    clips = clips_of(["4", "2", "9", "3", "1"], takes=2)
    assert fold.clip_ids("train", clips) == ("2/0", "2/1", "1/0", "1/1")
    assert fold.clip_ids("validation", reversed(clips)) == ("3/1", "3/0")
    assert fold.clip_ids("test", clips) == ("4/0", "4/1")


def test_listed_clips_are_a_part_and_nothing_else_of_their_speakers() -> None:
    fold = Fold(2, ("1",), ("2",), ("3",), listed=(("1/1", "gone"), ("2/0",), ("3/1", "3/0")))
    clips = clips_of("321", takes=2)
    assert [fold.clip_ids(part, clips) for part in PARTS] == [("1/1",), ("2/0",), ("3/0", "3/1")]


@pytest.mark.parametrize(
    "fold",
    [
        Fold(4, ("1", "2"), ("3",), ("4",)),
        Fold(2, ("1",), ("1",), ("1",), listed=(("a",), ("b",), ("c",)), leaks_speakers=True),
    ],
)
def test_a_fold_is_made_again_from_plain_values(fold: Fold) -> None:
    assert Fold(**asdict(fold)) == fold


@pytest.mark.parametrize("leaks", [False, True])
def test_a_clip_in_two_parts_is_always_refused(leaks: bool) -> None:
    with pytest.raises(ValueError, match="clip a stands twice in fold 1"):
        Fold(1, ("1",), ("2",), ("3",), listed=(("a",), ("b",), ("c", "a")), leaks_speakers=leaks)


def test_rules_refuse_what_would_leak() -> None:
    with pytest.raises(ValueError, match="speaker 1 stands twice in fold 3"):
        Fold(3, ("1", "2"), ("3",), ("1",))
    with pytest.raises(ValueError, match="speaker 1 stands twice in fold 3"):
        Fold(3, ("1", "2"), ("3",), ("1",), listed=(("a",), ("b",), ("c",)))
    with pytest.raises(ValueError, match="speaker 2 stands twice"):
        FixedFold(("1",), ("2",), ("2",))
    with pytest.raises(ValueError, match="at least 3"):
        CyclicGroups((("1",), ("2",)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("luna", "unknown protocol 'luna' \\(did you mean luna5\\?\\); known: chumachenko, emobox6"),
        ("", "unknown protocol ''"),
        ("../ravdess/data", "unknown protocol"),
        ("holdout.yaml", r"no protocol file holdout.yaml \(did you mean holdout\?\)"),
        (
            "speaker-folds",
            r"did you mean speaker-folds-5\?\); known: .*speaker-folds-K\[-seed-S\], cross-corpus, auto, or the path",
        ),
        ("speaker-folds-2", "protocol speaker-folds-2: folds must be at least 3"),
        ("speaker-folds-05", "unknown protocol"),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_protocol(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("protocol: {kind: cyclic-groups, groups: [[1], [2], [1]]}", "mine.yaml: speaker 1 stands twice"),
        ("protocol: {kind: cyclic-groups, groups: [[1], [], [2]]}", "mine.yaml: protocol.*groups"),
        ("protocol: {kind: sideways}", "mine.yaml: protocol"),
        ("protocol: {kind: fixed-fold, train: [1], test: [2]}", "validation is required"),
        ("protocol: {kind: sentence-held-out, groups: [[1], [2]]}", "mine.yaml: groups must be at least 3"),
        ("protocol: {kind: random-clips, folds: 2, seed: 0}", "mine.yaml: protocol.*folds"),
        ("protocol: {kind: random-clips, folds: 5}", "seed is required"),
        ("protocol: {kind: speaker-folds, folds: 2, seed: 0}", "mine.yaml: protocol.*folds"),
        ("protocol: {kind: split-column, leaks: true}", "mine.yaml: unknown key protocol.*leaks"),
        ("groups: []", "mine.yaml: "),
    ],
)
def test_a_wrong_file_is_named(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr(protocols, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=message):
        load_protocol("mine")


def test_a_file_may_name_speakers_by_text_and_numbers_with_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text("protocol: {kind: cyclic-groups, groups: [[anna], ['07'], [8, Ses01F]]}")
    monkeypatch.setattr(protocols, "FOLDER", tmp_path)
    folds = load_protocol("mine").folds(clips_of(["anna", "7", "8", "Ses01F"]))
    assert [fold.test for fold in folds] == [("anna",), ("7",), ("8", "Ses01F")]


@pytest.mark.parametrize("name", SHIPPED + BY_CLIP)
def test_each_file_opens_with_its_source(name: str) -> None:
    first = (protocols.FOLDER / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith("# ")
