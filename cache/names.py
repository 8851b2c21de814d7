"""Names that people give: which known one was meant, and in which order speakers stand."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one; None where none is much like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What to add to a message about a name that is not known: " (did you mean audio?)", or nothing."""
    close = nearest(name, known)
    return f" (did you mean {close}?)" if close else ""


def by_number(names: Iterable[str]) -> tuple[str, ...]:
    """Speakers by number, then those that are no number by their letters: 2 before 10 before Anna."""
    return tuple(sorted(names, key=_order))


def _order(name: str) -> tuple[int, int, str]:
    number = name.isascii() and name.isdigit()
    return (0, int(name), name) if number else (1, 0, name)
