"""Patterns of file names: what is put together from parts is taken apart into them, or refused, never guessed."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from extract.corpora.pattern import read_pattern

# Names of files hold no "/"; a dot would make a suffix of what follows it.
letters = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/.{}*")
texts = st.text(letters, min_size=1, max_size=6)
separators = st.sampled_from(["_", "-", "__", "/", " - ", "@"])


def parse(pattern: str, name: str) -> dict[str, str] | None:
    return read_pattern(pattern).match(PurePosixPath(name))


@given(st.lists(texts, min_size=1, max_size=4), st.lists(separators, min_size=3, max_size=3), st.booleans())
def test_a_name_built_from_parts_gives_the_parts(parts: list[str], between: list[str], folder: bool) -> None:
    used = set("".join(between[: len(parts) - 1]))
    assume(not any(letter in part for part in parts for letter in used if not letter.isalnum()))
    assume(all(part.strip(".") for part in parts))
    names = [f"part{number}" for number in range(len(parts))]
    written = "".join(f"{{{name}}}{gap}" for name, gap in zip(names, [*between[: len(parts) - 1], ""], strict=True))
    name = "".join(f"{part}{gap}" for part, gap in zip(parts, [*between[: len(parts) - 1], ""], strict=True))
    path = f"{'x/y/' if folder else ''}{name}.wav"
    assert parse(written, path) == dict(zip(names, parts, strict=True))


@given(st.lists(texts, min_size=1, max_size=4))
def test_parts_of_a_length_need_nothing_between_them(parts: list[str]) -> None:
    written = "".join(f"{{part{number}:{len(part)}}}" for number, part in enumerate(parts))
    expected = {f"part{number}": part for number, part in enumerate(parts)}
    assert parse(written, f"{''.join(parts)}.mp4") == expected


@given(
    st.text(letters, max_size=12), st.sampled_from(["{a}_{b}", "*_{a}", "{a}_*", "x{a}y{b}z", "{a:2}{b}", "*{a:1}*"])
)
def test_any_name_is_parsed_to_parts_that_stand_in_it_or_refused(name: str, written: str) -> None:
    assume(name.strip("."))
    parts = parts_or_error(written, f"{name}.wav")
    if isinstance(parts, str):
        assert "in two ways" in parts
    else:
        assert parts is None or all(part and part in name for part in parts.values())


def parts_or_error(written: str, name: str) -> dict[str, str] | str | None:
    try:
        return parse(written, name)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize(
    ("pattern", "path", "parts"),
    [
        (
            "{speaker}_{statement}_{label}_*",
            "AudioWAV/1001_DFA_ANG_XX.wav",
            {"speaker": "1001", "statement": "DFA", "label": "ANG"},
        ),
        ("{speaker}_{label}_*", "1_happy_take_2.wav", {"speaker": "1", "label": "happy"}),
        ("{label}/*", "a/b/happy/x.wav", {"label": "happy"}),
        ("{label}/*", "x.wav", None),
        ("{label}_*.wav", "happy_1.WAV", {"label": "happy"}),
        ("{label}_*.wav", "happy_1.mp4", None),
        ("dia{talk}_utt{turn}", "dia10_utt3.mp4", {"talk": "10", "turn": "3"}),
        ("{speaker}.{label}", "anna.sad.wav", {"speaker": "anna", "label": "sad"}),
        ("{speaker:2}{label:1}*", "03Wa.wav", {"speaker": "03", "label": "W"}),
        ("{speaker:2}{label:1}*", "03.wav", None),
        ("*_{label}", "a_b_c.wav", {"label": "c"}),
    ],
)
def test_names_of_people(pattern: str, path: str, parts: dict[str, str] | None) -> None:
    assert parse(pattern, path) == parts


def test_a_name_that_can_be_read_in_two_ways_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fits a_b_c_d\.wav in two ways: label=b, or label=c; give a part its length"):
        parse("*_{label}_*", "a_b_c_d.wav")
    assert parse("*_{label}_*", "a_b_b_d.wav") == {"label": "b"}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "has no named part"),
        ("*.wav", "has no named part; write it like {speaker}_{label}"),
        ("{label", "a brace does not close"),
        ("label}_{x}", "a brace does not close or open"),
        ("{}_x", r"\{\} needs a name of letters"),
        ("{label:}", "needs a length in characters"),
        ("{label:0}", "needs a length in characters"),
        ("{label:[a-z]}", "needs a length in characters"),
        ("{a}{b}", r"nothing stands between \{a\} and \{b\}"),
        ("{a}*", r"nothing stands between \{a\} and \*"),
        ("{a}_{a}", r"\{a\} stands twice"),
    ],
)
def test_a_pattern_that_is_none_is_one_line(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_pattern(pattern)
    assert "\n" not in str(caught.value)
