"""From the tokens of a window to its words, and from the decoder's attention to their times.

Letters: H heads, K tokens, N positions of 20 ms.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

# Written without spaces: every character that its tokens complete is taken for a word.
UNSPACED = ("zh", "ja", "th", "lo", "my", "yue")
# The same marks full-width too, by number: they look like those of ASCII.
FULL_WIDTH = "\uff0c\uff01\uff1f\uff1a"
PUNCTUATION = frozenset(string.punctuation.replace("-", "").replace("'", "") + FULL_WIDTH + "。”、…")
UNFINISHED = "\ufffd"
SMOOTHED_N = 9


@dataclass
class Word:
    """Tokens `first` to `last`, both counted; those after `spoken` are punctuation and take no time."""

    text: str
    first: int
    last: int
    spoken: int


def split_words(tokens: Sequence[int], decode: Callable[[Sequence[int]], str], language: str) -> list[Word]:
    """Words in the order of their tokens, each with the punctuation that follows it.

    Args:
        tokens: text alone.
        decode: tokens to text.
        language: a code such as `en`.
    """
    words: list[Word] = []
    for text, first, last in _characters(tokens, decode):
        bare = text.strip()
        is_punctuation = bool(bare) and set(bare) <= PUNCTUATION
        begins = language in UNSPACED or text.startswith(" ")
        if not words or (begins and not is_punctuation):
            words.append(Word(bare, first, last, last))
            continue
        word = words[-1]
        word.text, word.last = word.text + bare, last
        word.spoken = word.spoken if is_punctuation else last
    return [word for word in words if word.text]


def _characters(tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> Iterator[tuple[str, int, int]]:
    """The fewest tokens that make whole characters, with the first and the last of them."""
    first = 0
    for last in range(len(tokens)):
        text = decode(tokens[first : last + 1])
        if UNFINISHED not in text or last == len(tokens) - 1:
            yield text, first, last
            first = last + 1


def token_starts(attention_HKN: torch.Tensor) -> npt.NDArray[np.int64]:
    """Where each token begins, as the path through the decoder's attention that meets most of it.

    Every position is one token's, in their order, and every token has one at least, unless there are fewer positions
    than tokens: then these are spread evenly. Attention is smoothed over time by a median and standardised over
    tokens, as in OpenAI's program; the path is dynamic time warping (Giorgino 2009) without steps that take no time.

    Args:
        attention_HKN: before its softmax, from the step that chose the token, of the heads that follow speech.

    Returns:
        (K,), positions, strictly rising where there are enough.
    """
    tokens, positions = attention_HKN.shape[1:]
    if positions < tokens:
        return np.linspace(0, positions, tokens, endpoint=False).astype(np.int64)
    weights_HKN = _smoothed(attention_HKN.float().cpu()).softmax(-1)
    spread_HKN = weights_HKN - weights_HKN.mean(1, keepdim=True)
    deviation_H1N = weights_HKN.std(1, keepdim=True, correction=0)
    met_KN = (spread_HKN / deviation_H1N.clamp(min=1e-12)).mean(0).double().numpy()
    return _best_path(met_KN)


def _smoothed(attention_HKN: torch.Tensor) -> torch.Tensor:
    """Median over `SMOOTHED_N` positions; what is shorter stays as it is."""
    margin = SMOOTHED_N // 2
    if attention_HKN.shape[-1] <= margin:
        return attention_HKN
    padded = torch.nn.functional.pad(attention_HKN, (margin, margin), mode="reflect")
    return padded.unfold(-1, SMOOTHED_N, 1).median(-1).values


def _best_path(met_KN: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Starts of the tokens on the path of the highest sum."""
    tokens, positions = met_KN.shape
    sums_K = np.full(tokens, -np.inf)
    sums_K[0] = met_KN[0, 0]
    moved_KN = np.zeros((tokens, positions), dtype=bool)
    for position in range(1, positions):
        before_K = np.concatenate(([-np.inf], sums_K[:-1]))
        moved_KN[:, position] = before_K > sums_K
        sums_K = np.maximum(before_K, sums_K) + met_KN[:, position]
    starts_K = np.zeros(tokens, dtype=np.int64)
    token = tokens - 1
    for position in range(positions - 1, 0, -1):
        if token and moved_KN[token, position]:
            starts_K[token] = position
            token -= 1
    return starts_K
