"""From tokens to words, from attention to times, and which part of a window is finished: by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from extract.asr.window.decoded import Guard, Segment, segments
from extract.asr.window.words import split_words, token_starts

TIME = 100  # the first token of time


@pytest.mark.parametrize(
    ("tokens", "expected", "advance"),
    [
        ([100, 1, 2, 150], [(0, 4)], 400),  # one time at the end: nothing more is said
        ([100, 1, 2], [(0, 3)], 400),  # no time at the end
        ([], [(0, 0)], 400),
        ([100, 1, 150, 150, 2, 180], [(0, 3), (3, 6)], 400),
        ([100, 1, 150, 150], [(0, 3)], 100),  # goes on at 1.00 s, 50 times of two frames
        ([100, 1, 150, 150, 2, 3], [(0, 3)], 100),  # what is not finished is heard again
        ([100, 1, 100, 100], [(0, 3)], 2),  # a time that stands still would be heard for ever
    ],
)
def test_finished_segments(tokens: list[int], expected: list[tuple[int, int]], advance: int) -> None:
    assert segments(tokens, TIME, 400) == ([Segment(*pair) for pair in expected], advance)


@pytest.mark.parametrize(("no_speech", "sure", "silent"), [(0.7, -1.2, True), (0.7, -0.9, False), (0.5, -1.2, False)])
def test_silence_is_what_whisper_calls_so_and_is_unsure_of(no_speech: float, sure: float, silent: bool) -> None:
    assert Guard().refuses(no_speech, sure) is silent


# Words

PIECES = [" Kids", " are", " talk", "ing", ",", " by", " the", " door", ".", " -", "\ufffd", "é", " ", "..."]


def decode(tokens: Sequence[int]) -> str:
    """`é` takes two tokens, of which one alone is no character."""
    text = "".join(PIECES[token] for token in tokens)
    return text.replace("\ufffdé", "é")


def words(tokens: Sequence[int], language: str = "en") -> list[tuple[str, int, int, int]]:
    return [(word.text, word.first, word.last, word.spoken) for word in split_words(tokens, decode, language)]


def test_words_keep_their_punctuation_which_takes_no_time() -> None:
    assert words([0, 1, 2, 3, 4, 5, 6, 7, 8]) == [
        ("Kids", 0, 0, 0), ("are", 1, 1, 1), ("talking,", 2, 4, 3), ("by", 5, 5, 5), ("the", 6, 6, 6),
        ("door.", 7, 8, 7),
    ]  # fmt: skip


def test_half_a_character_is_no_word() -> None:
    assert words([0, 10, 11, 1]) == [("Kidsé", 0, 2, 2), ("are", 3, 3, 3)]
    assert words([0, 10], "ja") == [("Kids", 0, 0, 0), ("\ufffd", 1, 1, 1)]


def test_languages_without_spaces_give_a_word_per_character() -> None:
    assert [word[0] for word in words([2, 3, 4], "zh")] == ["talk", "ing,"]
    assert words([]) == []


# Times


def test_tokens_begin_where_attention_moves_on() -> None:
    generator = torch.Generator().manual_seed(0)
    attention_HKN = 0.1 * torch.randn(2, 3, 60, generator=generator)
    for token, (begin, end) in enumerate([(0, 20), (20, 45), (45, 60)]):
        attention_HKN[:, token, begin:end] += 3
    assert token_starts(attention_HKN).tolist() == [0, 20, 45]


def test_every_token_has_a_position_and_more_tokens_than_those_are_spread() -> None:
    same_HKN = torch.zeros(1, 6, 6)
    assert token_starts(same_HKN).tolist() == [0, 1, 2, 3, 4, 5]
    assert np.all(np.diff(token_starts(torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1)))) > 0)
    assert token_starts(torch.zeros(1, 4, 2)).tolist() == [0, 0, 1, 1]
