"""What Whisper wrote of one window: tokens of text between tokens of time, and what is made of them.

The rules are those of OpenAI's program: text up to a pair of times is finished, what is not is heard again in the next
window; a window is silent if Whisper says so and is unsure of its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FRAMES_PER_TIME = 2


@dataclass(frozen=True)
class Guard:
    """When a window's text is not believed.

    Whisper's third measure, how well the text compresses, only has it tried again with some chance in it. Neither
    engine does that: a row would depend on chance. So a text that repeats itself is kept by both.

    Attributes:
        no_speech: the window is silent above this probability of no speech,
        log_probability: if the mean over its tokens is not above this.
    """

    no_speech: float = 0.6
    log_probability: float = -1.0

    def refuses(self, no_speech: float, log_probability: float) -> bool:
        """Whether nothing was said."""
        return no_speech > self.no_speech and not log_probability > self.log_probability


@dataclass(frozen=True)
class Segment:
    """Tokens `first` to `end` of a window, `end` not counted, times included."""

    first: int
    end: int


def segments(tokens: Sequence[int], first_time: int, frames: int) -> tuple[list[Segment], int]:
    """The finished parts of a window, and how many frames further the next one begins.

    Args:
        tokens: what was written, without the end of text.
        first_time: number of the token of 0.00 s; those of later times follow it.
        frames: of the window that are the clip's own.
    """
    times = [token >= first_time for token in tokens]
    cuts = [place for place in range(1, len(tokens)) if times[place - 1] and times[place]]
    if not cuts:
        return [Segment(0, len(tokens))], frames
    ends_with_one = times[-2:] == [False, True]
    ends = [*cuts, len(tokens)] if ends_with_one else cuts
    found = [Segment(first, end) for first, end in zip([0, *ends[:-1]], ends, strict=True)]
    advance = frames if ends_with_one else (tokens[cuts[-1] - 1] - first_time) * FRAMES_PER_TIME
    # A time that stands still would be heard for ever.
    return found, max(advance, FRAMES_PER_TIME)
