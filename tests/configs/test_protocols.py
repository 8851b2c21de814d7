"""What every shipped protocol promises on any corpus, and the two that look at more than the speaker."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import chain, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.corpus.clips import Clip
from cache.corpus.ravdess import ACTORS, LABELS, STATEMENTS, RavdessName
from cache.protocols.clip_rules import RandomClips, SentenceHeldOut, spoken_words
from cache.protocols.folds import LEAKS_SPEAKERS, PARTS, CyclicGroups, Fold, Protocol
from cache.protocols.leakage import refuse_leaks
from cache.protocols.speaker_folds import SpeakerFolds
from configs.schema.protocols import load_protocol, protocol_names

known_protocol = cache(load_protocol)
EVERY = (*protocol_names(), "speaker-folds-5", "speaker-folds-3-seed-2")
APART = tuple(name for name in EVERY if name != "random-clips")
SPEAKERS = (*map(str, ACTORS), "anna", "25")
THREE = CyclicGroups((("1",), ("2",), ("3", "4")))


def ravdess(emotions: tuple[str, ...] = ("happy", "sad")) -> list[Clip]:
    said = product(emotions, STATEMENTS, "12", map(str, ACTORS))
    names = [RavdessName("audio-only", "speech", *said[:1], "normal", *said[1:]) for said in said]
    return [Clip(path=f"{name.stem}.wav", **name.metadata) for name in names]


@st.composite
def corpora(draw: st.DrawFn) -> list[Clip]:
    """Most actors, some strangers; every speaker a few clips of any label and statement, in any order."""
    present = set(SPEAKERS) - draw(st.sets(st.sampled_from(SPEAKERS), max_size=5))
    statements = st.sampled_from(["Kids talk.", "Dogs sit.", "dogs  SIT", "It is late!"])
    count = draw(st.integers(1, 4))
    split = {speaker: draw(st.sampled_from(PARTS)) for speaker in sorted(present)}
    clips = [
        Clip(f"{speaker}-{take}", "", draw(st.sampled_from(LABELS)), speaker, draw(statements), split=split[speaker])
        for speaker in sorted(present)
        for take in range(count)
    ]
    return draw(st.permutations(clips))


def parts_of(fold: Fold, clips: list[Clip]) -> dict[str, list[Clip]]:
    by_id = {clip.clip_id: clip for clip in clips}
    return {part: [by_id[clip_id] for clip_id in fold.clip_ids(part, clips)] for part in PARTS}


def folds_or_refusal(name: str, clips: list[Clip]) -> tuple[Fold, ...]:
    try:
        return known_protocol(name).folds(clips)
    except ValueError as error:
        refusal = str(error)
    assert refusal.startswith(f"protocol {name}: ")
    assert "\n" not in refusal
    return ()


@given(corpora(), st.sampled_from(APART))
def test_nobody_is_validated_on_or_tested_on_who_was_trained_on(clips: list[Clip], name: str) -> None:
    assert not known_protocol(name).leaks_speakers
    for fold in folds_or_refusal(name, clips):
        assert not fold.leaks_speakers
        parts = parts_of(fold, clips)
        heard = {part: {clip.speaker for clip in parts[part]} for part in PARTS}
        assert all(heard.values())
        assert sum(map(len, heard.values())) == len(set().union(*heard.values()))
        assert all(heard[part] <= set(getattr(fold, part)) for part in PARTS)


@given(corpora(), st.sampled_from(EVERY))
def test_a_clip_has_one_part_and_is_tested_at_most_once(clips: list[Clip], name: str) -> None:
    tested: Counter[str] = Counter()
    for number, fold in enumerate(folds_or_refusal(name, clips), start=1):
        placed = Counter(chain.from_iterable(fold.clip_ids(part, clips) for part in PARTS))
        assert set(placed.values()) == {1}
        assert fold.number == number
        tested.update(fold.clip_ids("test", clips))
    assert set(tested.values()) <= {1}


@given(corpora(), st.sampled_from(EVERY))
def test_folds_do_not_depend_on_the_order_of_the_clips(clips: list[Clip], name: str) -> None:
    forward, backward = folds_or_refusal(name, clips), folds_or_refusal(name, clips[::-1])
    assert len(forward) == len(backward)
    for one, other in zip(forward, backward, strict=True):
        for part in PARTS:
            assert one.clip_ids(part, clips) == other.clip_ids(part, clips)


@given(corpora())
def test_no_statement_of_a_test_is_trained_or_validated_on_and_every_clip_is_tested_once(clips: list[Clip]) -> None:
    folds = folds_or_refusal("sentence-held-out", clips)
    for fold in folds:
        said = {part: {spoken_words(clip.statement) for clip in found} for part, found in parts_of(fold, clips).items()}
        assert len(said["test"]) == 1
        assert not said["test"] & (said["train"] | said["validation"])
    if folds:
        named = {clip.clip_id for clip in clips if clip.speaker not in known_protocol("luna5").left_out(clips)}
        assert set(chain.from_iterable(fold.clip_ids("test", clips) for fold in folds)) == named


def test_on_ravdess_ten_folds_cross_luna5_with_the_sentence() -> None:
    clips = ravdess()
    luna5, crossed = load_protocol("luna5").folds(clips), load_protocol("sentence-held-out").folds(clips)
    assert [fold.number for fold in crossed] == list(range(1, 11))
    for fold, speakers in zip(crossed, luna5 * 2, strict=True):
        kids, dogs = STATEMENTS
        held_out = dogs if fold.number <= 5 else kids
        assert [fold.train, fold.validation, fold.test] == [speakers.train, speakers.validation, speakers.test]
        for part, found in parts_of(fold, clips).items():
            wanted = {held_out} if part == "test" else {kids, dogs} - {held_out}
            assert {clip.statement for clip in found} == wanted
            assert len(found) == len(speakers.clip_ids(part, clips)) / 2


def test_each_of_several_statements_is_held_out_in_turn() -> None:
    clips = [Clip(f"{who}{said}", "", "sad", who, said) for who in "1234" for said in "cab"]
    folds = Protocol("mine", SentenceHeldOut(THREE)).folds(clips)
    assert [fold.clip_ids("test", clips) for fold in folds] == [
        *[("1a",), ("2a",), ("3a", "4a")],
        *[("1b",), ("2b",), ("3b", "4b")],
        *[("1c",), ("2c",), ("3c", "4c")],
    ]
    assert folds[0].clip_ids("train", clips) == ("3c", "3b", "4c", "4b")
    assert folds[0].clip_ids("validation", clips) == ("2c", "2b")


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["Dogs sit."] * 4, "at least 2, the speakers it names say only 'dogs sit'"),
        (["Dogs sit.", "dogs sit", " DOGS  sit!", "Dogs: sit"], "say only 'dogs sit'"),
        (["Dogs sit.", "Kids talk.", "", "..."], "2 clips have no statement, first c2; fill in the column statement"),
        (["Dogs sit.", "Kids talk.", "Dogs sit.", "Dogs sit."], "fold 1 has no train clips in this corpus"),
    ],
)
def test_a_corpus_without_two_known_statements_is_refused(statements: list[str], message: str) -> None:
    clips = [Clip(f"c{k}", "", "sad", str(k + 1), said) for k, said in enumerate(statements)]
    with pytest.raises(ValueError, match=f"^protocol mine: .*{message}"):
        Protocol("mine", SentenceHeldOut(THREE)).folds(clips)


def test_speakers_that_no_group_names_need_no_statement_and_are_left_out() -> None:
    clips = [*ravdess(), Clip("stranger", "", "sad", "anna")]
    protocol = load_protocol("sentence-held-out")
    assert protocol.left_out(clips) == ("anna",)
    assert protocol.folds(clips) == protocol.folds(ravdess())
    with pytest.raises(ValueError, match="the speakers it names say nothing"):
        protocol.folds(clips[-1:])


def test_the_sentence_protocol_has_the_groups_of_luna5() -> None:
    rule = load_protocol("sentence-held-out").rule
    assert isinstance(rule, SentenceHeldOut)
    assert rule.groups == load_protocol("luna5").rule


@given(st.text(), st.sampled_from(" .,!?-\n"))
def test_what_is_not_heard_makes_no_other_statement(statement: str, mark: str) -> None:
    assert spoken_words(f"{mark}{statement}{mark}") == spoken_words(statement)
    assert spoken_words(spoken_words(statement)) == spoken_words(statement)


def test_composed_and_decomposed_letters_are_one_statement() -> None:
    assert spoken_words("Caf\N{LATIN SMALL LETTER E WITH ACUTE}") == spoken_words("cafe\N{COMBINING ACUTE ACCENT}")
    assert spoken_words("cafe") != spoken_words("Caf\N{LATIN SMALL LETTER E WITH ACUTE}")


def test_random_clips_leak_every_speaker_and_say_so() -> None:
    clips = ravdess(LABELS)
    protocol = load_protocol("random-clips")
    assert protocol.leaks_speakers
    assert LEAKS_SPEAKERS == "leaks speakers"
    for fold in protocol.folds(clips):
        assert fold.leaks_speakers
        assert set(fold.test) <= set(fold.train) == set(map(str, ACTORS))
    assert protocol.left_out([*clips, Clip("stranger", "", "sad", "anna")]) == ()


@given(corpora(), st.integers(3, 7), st.integers(0, 99))
def test_random_clips_deal_every_label_evenly(clips: list[Clip], count: int, seed: int) -> None:
    folds = RandomClips(count, seed).divide(clips)
    tests = [parts_of(fold, clips)["test"] for fold in folds]
    by_label = [Counter(clip.label for clip in test) for test in tests]
    for label in LABELS:
        assert max(found[label] for found in by_label) - min(found[label] for found in by_label) <= 1
    assert max(map(len, tests)) - min(map(len, tests)) <= 1
    for fold, following in zip(folds, (*folds[1:], folds[0]), strict=True):
        assert sorted(fold.listed[1]) == sorted(following.listed[2])
        assert len(list(chain.from_iterable(fold.listed))) == len(clips)


def test_random_clips_follow_the_seed_and_refuse_too_few() -> None:
    clips = ravdess()
    assert RandomClips(5, 1).divide(clips) == RandomClips(5, 1).divide(clips)
    assert RandomClips(5, 1).divide(clips) != RandomClips(5, 2).divide(clips)
    with pytest.raises(ValueError, match=r"^protocol mine: fold 4 has no validation clips .* \(it has 4 clips of"):
        Protocol("mine", RandomClips(5)).folds(clips[:4])
    with pytest.raises(ValueError, match="folds must be at least 3"):
        RandomClips(2)


def test_a_random_fold_refuses_a_clip_that_a_corpus_lists_twice() -> None:
    clips = ravdess()
    with pytest.raises(ValueError, match=f"clip {clips[0].clip_id} stands twice"):
        load_protocol("random-clips").folds([*clips, replace(clips[0], path="other.wav")])


def split_corpus(**splits: str) -> list[Clip]:
    """A clip of a speaker per letter, in the order of the letters: `train="aab"`."""
    said = [(part, speaker) for part, speakers in splits.items() for speaker in speakers]
    return [Clip(f"{n}-{speaker}", "", "sad", speaker, split=part) for n, (part, speaker) in enumerate(said)]


def test_the_split_column_is_a_fold() -> None:
    clips = split_corpus(train="aab", validation="cc", test="d")
    assert load_protocol("split-column").folds(clips) == (Fold(1, ("a", "b"), ("c",), ("d",)),)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("dev", "the column split of metadata.csv says 'dev' of 1 of 4 clips, first 3-d; it may say train, validation"),
        ("", "says nothing of 1 of 4 clips, first 3-d"),
        ("Train", r"says 'Train' \(did you mean train\?\) of 1 of 4"),
    ],
)
def test_a_split_that_is_none_is_named_with_its_clips(split: str, message: str) -> None:
    clips = split_corpus(train="a", validation="b", test="cd")
    clips[3] = replace(clips[3], split=split)
    with pytest.raises(ValueError, match=f"^protocol split-column: .*{message}"):
        load_protocol("split-column").folds(clips)


def test_a_split_without_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match="split-column: fold 1 has no validation speakers"):
        load_protocol("split-column").folds(split_corpus(train="ab", test="c"))


def test_a_split_that_shares_speakers_is_the_leak_that_it_is_elsewhere(tmp_path: Path) -> None:
    """Refused in the words of `refuse_leaks`, unless a file of the user's owns up to it: then it is marked."""
    clips = split_corpus(train="abc", validation="d", test="aec")
    message = r"fold 1: speaker a stands in train and test \(2 speakers in all\); give each speaker one part"
    with pytest.raises(ValueError, match=message):
        load_protocol("split-column").folds(clips)
    own = tmp_path / "own.yaml"
    own.write_text("protocol: {kind: split-column, leaks_speakers: true}")
    protocol = load_protocol(str(own))
    assert protocol.leaks_speakers
    folds = protocol.folds(clips)
    assert refuse_leaks(folds, clips, {clip.clip_id: clip.clip_id for clip in clips}) == [
        "fold 1 leaks speakers: 2 of 5 speakers stand in several parts"
    ]
    assert folds[0].clip_ids("test", clips) == ("4-a", "5-e", "6-c")


def test_a_protocol_may_be_a_file_of_the_users(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("protocol: {kind: fixed-fold, train: [anna], validation: [ben], test: [carla]}")
    protocol = load_protocol(str(path))
    assert protocol.name == str(path)
    clips = [Clip(name, "", "sad", name) for name in ("anna", "ben", "carla")]
    assert protocol.folds(clips) == (Fold(1, ("anna",), ("ben",), ("carla",)),)
    path.write_text("protocol: {kind: speaker-folds, folds: 3, seed: 1}")
    assert load_protocol(str(path)).rule == SpeakerFolds(3, 1)
    path.write_text("protocol: {kind: sideways}")
    with pytest.raises(ValueError, match=r"own\.yaml: protocol"):
        load_protocol(str(path))
    with pytest.raises(ValueError, match=r"no protocol file .*gone\.yaml"):
        load_protocol(str(tmp_path / "gone.yaml"))
