"""The grammar of conditions: names are canonical, mistakes are named, draws follow the seed and the clip."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.conditions import KINDS, parse_condition, parse_joint, stored_conditions
from tests.tiny.places import ROOT

kinds = st.sampled_from(sorted(KINDS))


@st.composite
def names(draw: st.DrawFn) -> str:
    kind = draw(kinds)
    rule = KINDS[kind]
    levels = st.sampled_from(rule.allowed) if rule.allowed else st.integers(*(rule.levels or (0, 0)))
    return kind + rule.level_name(draw(levels))


@given(names())
def test_a_name_says_everything(name: str) -> None:
    condition = parse_condition(name)
    assert condition.name == name
    assert condition.kind + KINDS[condition.kind].level_name(condition.level) == name
    assert condition.modality == KINDS[condition.kind].modality


@pytest.mark.parametrize(
    ("name", "modality", "kind", "level", "changes"),
    [
        ("clean", "", "clean", 0, ("audio", "video", "text")),
        ("noise-white-10db", "audio", "noise-white", 10, ("audio", "text")),
        ("noise-white-0db", "audio", "noise-white", 0, ("audio", "text")),
        ("noise-white-minus5db", "audio", "noise-white", -5, ("audio", "text")),
        ("noise-file-minus40db", "audio", "noise-file", -40, ("audio", "text")),
        ("reverb-room-600ms", "audio", "reverb-room", 600, ("audio", "text")),
        ("reverb-room-1200ms", "audio", "reverb-room", 1200, ("audio", "text")),
        ("clip-peak-25", "audio", "clip-peak", 25, ("audio", "text")),
        ("band-telephone", "audio", "band-telephone", 0, ("audio", "text")),
        ("codec-mp3-16kbps", "audio", "codec-mp3", 16, ("audio", "text")),
        ("codec-aac-9kbps", "audio", "codec-aac", 9, ("audio", "text")),
        ("silence-track", "audio", "silence-track", 0, ("audio", "text")),
        ("occlude-block-50", "video", "occlude-block", 50, ("video",)),
        ("occlude-eyes", "video", "occlude-eyes", 0, ("video",)),
        ("blur-gaussian-4px", "video", "blur-gaussian", 4, ("video",)),
        ("codec-h264-30kbps", "video", "codec-h264", 30, ("video",)),
        ("black-screen", "video", "black-screen", 0, ("video",)),
        ("drop-frames-30", "video", "drop-frames", 30, ("video",)),
    ],
)
def test_known_names(name: str, modality: str, kind: str, level: int, changes: tuple[str, ...]) -> None:
    condition = parse_condition(name)
    assert (condition.modality, condition.kind, condition.level, condition.changes) == (modality, kind, level, changes)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("noise-white-10bd", "spelt noise-white-10db"),
        ("noise-wite-10db", "did you mean noise-white-10db?"),
        ("oclude-block-50", "did you mean occlude-block-50?"),
        ("Clean", "did you mean clean?"),
        ("rain-on-roof", "known kinds: clean, noise-white-10db, noise-pink-10db, "),
        ("noise-grey-10db", "occlude-eyes, occlude-mouth, "),
        ("reverb-room-600s", "spelt reverb-room-600ms"),
        ("reverb-room-600", "spelt reverb-room-600ms"),
        ("reverb-room", "spelt reverb-room-600ms"),
        ("reverb-room-minus600ms", "the level must lie in 50 to 5000"),
        ("reverb-room-49ms", "the level must lie in 50 to 5000"),
        ("reverb-room-60000ms", "unknown condition"),
        ("codec-mp3-20kbps", "the level must be one of 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160"),
        ("codec-mp3-16kb", "spelt codec-mp3-16kbps"),
        ("codec-aac-65kbps", "the level must lie in 8 to 64"),
        ("codec-acc-16kbps", "did you mean codec-aac-16kbps?"),
        ("band-telephone-10db", "spelt band-telephone"),
        ("band-telephone-0", "spelt band-telephone"),
        ("silence-tracks", "did you mean silence-track?"),
        ("occlude-eye", "did you mean occlude-eyes?"),
        ("occlude-eyes-", "did you mean occlude-eyes?"),
        ("noise-white-10", "spelt noise-white-10db"),
        ("noise-white-010db", "spelt noise-white-10db"),
        ("noise-white-minus0db", "spelt noise-white-0db"),
        ("noise-white--5db", "unknown condition"),
        ("occlude-block-50db", "spelt occlude-block-50"),
        ("occlude-block-0", "the level must lie in 1 to 100"),
        ("occlude-block-101", "the level must lie in 1 to 100"),
        ("occlude-block-minus5", "the level must lie in 1 to 100"),
        ("drop-frames-100", "the level must lie in 1 to 99"),
        ("noise-white-61db", "the level must lie in -40 to 60"),
        ("noise-white-minus41db", "the level must lie in -40 to 60"),
        ("noise-white-10db\n", "unknown condition"),
        ("noise-white-\u0661\u0660db", "spelt noise-white-10db"),
        ("", "unknown condition ''"),
        ("../clean", "unknown condition"),
    ],
)
def test_mistakes_are_named(name: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r"condition") as error:
        parse_condition(name)
    assert expected in str(error.value)


def test_the_page_describes_every_kind_with_an_example() -> None:
    page = (ROOT / "docs/conditions.md").read_text()
    rows = [line.split("|")[1:4] for line in page.splitlines() if line.startswith("| `")]
    described = {kind for row in rows for kind in re.findall(r"`([^`]+)`", row[0])}
    examples = [name for row in rows for name in re.findall(r"`([^`]+)`", row[1])]
    assert described == set(KINDS)
    assert all(parse_condition(name).name == name for name in examples)
    for row in rows:
        rule = KINDS[re.findall(r"`([^`]+)`", row[0])[0]]
        bounds = re.search(r"(-?\d+) to (\d+)", row[2])
        if bounds:
            assert (int(bounds[1]), int(bounds[2])) == rule.levels
        else:
            assert rule.allowed or not rule.levels or row[2].strip() == "the same"


@pytest.mark.parametrize(
    "from_mild_to_severe",
    [
        *(["noise-white-20db", "noise-white-0db", "noise-white-minus5db"], ["codec-mp3-16kbps", "codec-mp3-8kbps"]),
        *(["light-low-50", "light-low-25"], ["clip-peak-50", "clip-peak-25"], ["occlude-block-25", "occlude-block-50"]),
        *(["reverb-room-600ms", "reverb-room-1200ms"], ["gain-track-minus1db", "gain-track-3db"]),
    ],
)
def test_levels_are_ordered_by_what_they_change(from_mild_to_severe: list[str]) -> None:
    conditions = [parse_condition(name) for name in from_mild_to_severe]
    severities = [KINDS[one.kind].severity(one.level) for one in conditions]
    assert severities == sorted(severities)
    assert len(set(severities)) == len(severities)


def test_examples_and_suggestions_are_conditions() -> None:
    """What an error message offers must be accepted."""
    for kind, rule in KINDS.items():
        assert parse_condition(kind + rule.level_name(rule.example)).kind == kind
        with pytest.raises(ValueError, match=r"did you mean") as error:
            parse_condition(f"{kind}x{rule.level_name(20)}")
        parse_condition(str(error.value).partition("did you mean ")[2].partition("?")[0])


@given(st.text(max_size=30))
def test_nothing_but_the_grammar_is_accepted(text: str) -> None:
    try:
        condition = parse_condition(text)
    except ValueError:
        return
    assert condition.name == text


def test_joint_conditions_name_different_modalities() -> None:
    joint = parse_joint("noise-white-0db+occlude-block-50")
    assert [part.name for part in joint.parts] == ["noise-white-0db", "occlude-block-50"]
    assert str(joint) == joint.name == "noise-white-0db+occlude-block-50"


@pytest.mark.parametrize(
    "name",
    ["clean+clean", "clean+noise-white-0db", "noise-white-0db+noise-white-5db", "occlude-block-50+drop-frames-30"],
)
def test_joint_conditions_of_one_modality_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"must name one condition of each of several modalities"):
        parse_joint(name)


@pytest.mark.parametrize("name", ["+", "clean+", "noise-white-0db+", "noise-white-0db+nothing"])
def test_joint_conditions_need_known_parts(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown condition"):
        parse_joint(name)


def test_stores_hold_clean_first_then_each_part_once() -> None:
    wanted = ["occlude-block-50", "noise-white-0db+occlude-block-50", "clean", "drop-frames-30"]
    stored = [condition.name for condition in stored_conditions([parse_joint(name) for name in wanted])]
    assert stored == ["clean", "occlude-block-50", "noise-white-0db", "drop-frames-30"]
    assert [condition.name for condition in stored_conditions([])] == ["clean"]


ids = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


@given(ids, ids, st.integers(0, 5))
def test_draws_follow_the_seed_and_the_clip_id(first: str, second: str, seed: int) -> None:
    def draw(clip_id: str, seed: int) -> list[int]:
        return list(parse_condition("noise-white-0db", seed).rng(clip_id).integers(0, 2**62, 4))

    assert draw(first, seed) == draw(first, seed)
    assert (draw(first, seed) == draw(second, seed)) == (first == second)
    assert draw(first, seed) != draw(first, seed + 1)


def test_draws_stay_what_they_are() -> None:
    """Other numbers here would make every stored noisy feature stale without anyone noticing."""
    drawn = parse_condition("noise-white-0db").rng("03-01-01-01-01-01-01").standard_normal(3)
    np.testing.assert_allclose(
        drawn, [-0.6552497489481313, -0.3832761389525781, -2.090383366263319], rtol=0, atol=1e-12
    )
