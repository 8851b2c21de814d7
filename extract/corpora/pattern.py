"""Names of files with named parts: `{speaker}_{statement}_{label}_*`, without regular expressions.

- `{label}` is a part of one character or more. It holds no "/", nor the separator beside it in the pattern: in
  `{speaker}_{label}` neither part holds "_". (A letter or a digit beside it is no separator: `dia{talk}_utt{turn}`.)
- `{speaker:2}` is a part of exactly two characters, whatever they are.
- `*` is any characters or none, but no "/".
- Anything else stands for itself.

A pattern is compared with the file's name, or with as many folders before it as it has slashes. The suffix does not
matter unless the pattern ends in one. A name that can be read in two ways is refused: a guess would be a wrong label.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from extract.corpora.files import KINDS

PIECE = re.compile(r"\{(?P<name>[^{}:]*)(?::(?P<width>[^{}]*))?\}|(?P<star>\*)|(?P<text>[^{}*]+)|(?P<stray>[{}])")


@dataclass(frozen=True)
class Text:
    """Characters that stand for themselves."""

    characters: str

    def ends(self, text: str) -> Iterator[int]:
        """Where in the text this piece may end."""
        if text.startswith(self.characters):
            yield len(self.characters)


@dataclass(frozen=True)
class Part:
    """A named part, or with "" for its name the characters of a star.

    Attributes:
        width: exactly so many characters; None: at least `fewest`.
        barred: characters that it does not hold.
    """

    name: str
    width: int | None
    fewest: int
    barred: str = "/"

    def ends(self, text: str) -> Iterator[int]:
        """Where in the text this piece may end."""
        longest = next((place for place, letter in enumerate(text) if letter in self.barred), len(text))
        if self.width is None:
            yield from range(self.fewest, longest + 1)
        elif self.width <= longest:
            yield self.width


Piece = Text | Part
Way = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Pattern:
    """A pattern that was read; `pieces` follow each other without a gap."""

    written: str
    pieces: tuple[Piece, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The named parts, from left to right."""
        return tuple(piece.name for piece in self.pieces if isinstance(piece, Part) and piece.name)

    def match(self, path: PurePosixPath) -> dict[str, str] | None:
        """The parts of a file's name; None: it does not fit.

        Raises:
            ValueError: one line: the name can be read in two ways.
        """
        ways = _ways(self.pieces, self._compared(path))
        first = next(ways, None)
        other = next((way for way in ways if way != first), None)
        if first is not None and other is not None:
            raise ValueError(
                f"pattern {self.written} fits {path} in two ways: {_shown(first)}, or {_shown(other)}; "
                "give a part its length, e.g. {label:3}"
            )
        return None if first is None else dict(first)

    def identity(self, path: PurePosixPath) -> str:
        """What of a path the pattern looks at, without a suffix: names a clip."""
        folders = self.written.count("/")
        return "-".join((*path.parent.parts[len(path.parent.parts) - folders :], path.stem))

    def _compared(self, path: PurePosixPath) -> str:
        parts = path.parts[-(self.written.count("/") + 1) :]
        suffix = PurePosixPath(self.written).suffix
        if suffix.lower() in KINDS:
            same = path.suffix.lower() == suffix.lower()
            return "/".join((*parts[:-1], path.stem + (suffix if same else path.suffix)))
        return "/".join((*parts[:-1], path.stem))


def read_pattern(written: str) -> Pattern:
    """Read a pattern.

    Raises:
        ValueError: one line: braces that do not close, a part without a name or with one that stands twice, two parts
            with nothing between them.
    """
    pieces = [_piece(written, found) for found in PIECE.finditer(written)]
    names = [piece.name for piece in pieces if isinstance(piece, Part) and piece.name]
    if not names:
        raise ValueError(f"pattern {written!r} has no named part; write it like {{speaker}}_{{label}}_*")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"pattern {written}: {{{twice}}} stands twice; name one of them otherwise, or write *")
    for left, right in itertools.pairwise(pieces):
        if _open(left) and _open(right):
            raise ValueError(
                f"pattern {written}: nothing stands between {_written(left)} and {_written(right)}; "
                "say how long one of them is, e.g. {label:3}"
            )
    return Pattern(written, tuple(_kept_apart(pieces)))


def _piece(written: str, found: re.Match[str]) -> Piece:
    if found["stray"]:
        raise ValueError(f"pattern {written}: a brace does not close or open; a part is written like {{label}}")
    if found["text"]:
        return Text(found["text"])
    if found["star"]:
        return Part("", None, fewest=0)
    name, width = found["name"], found["width"]
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ValueError(
            f"pattern {written}: {found[0]} needs a name of letters, e.g. {{label}}; * stands for any text"
        )
    if width is not None and not re.fullmatch(r"[1-9][0-9]?", width):
        raise ValueError(f"pattern {written}: {found[0]} needs a length in characters, e.g. {{{name}:2}}")
    return Part(name, int(width) if width else None, fewest=1)


def _open(piece: Piece) -> bool:
    return isinstance(piece, Part) and piece.width is None


def _written(piece: Piece) -> str:
    return f"{{{piece.name}}}" if isinstance(piece, Part) and piece.name else "*"


def _kept_apart(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Parts of any length, with the separators beside them barred."""
    for place, piece in enumerate(pieces):
        if isinstance(piece, Text) or piece.width is not None or not piece.name:
            yield piece
            continue
        before, after = pieces[place - 1] if place else None, pieces[place + 1] if place + 1 < len(pieces) else None
        beside = (before.characters[-1] if isinstance(before, Text) else "") + (
            after.characters[0] if isinstance(after, Text) else ""
        )
        barred = "/" + "".join(letter for letter in beside if not letter.isalnum())
        yield Part(piece.name, None, piece.fewest, barred)


def _ways(pieces: Sequence[Piece], text: str) -> Iterator[Way]:
    """Every way in which pieces make up a text, as the named parts with their characters."""
    if not pieces:
        if not text:
            yield ()
        return
    piece = pieces[0]
    for end in piece.ends(text):
        own = ((piece.name, text[:end]),) if isinstance(piece, Part) and piece.name else ()
        for others in _ways(pieces[1:], text[end:]):
            yield own + others


def _shown(way: Way) -> str:
    return " ".join(f"{name}={characters}" for name, characters in way)
