"""Commands that a message tells the reader to type: whole, and quoted so that make and a shell do not change them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

# A shell leaves these alone (brackets that match no file's name).
PLAIN = re.compile(r"[\w.,:=/+@%\[\]-]+", re.ASCII)


def make_command(target: str, settings: Iterable[str] = (), config: Path | str | None = None) -> str:
    """`make target CONFIG=file SET="a.b=value c=[x,y]"`; `settings` are such words, as `setting` writes them."""
    words = " ".join(map(_word, settings))
    parts = [
        f"make {target}",
        f"CONFIG={_word(str(config))}" if config else "",
        f"SET={_quoted(words)}" if words else "",
    ]
    return " ".join(part for part in parts if part)


def setting(key: str, value: object) -> str:
    """`key=value`, the value as YAML that reads as it."""
    if value is None or value is True:
        return f"{key}={'null' if value is None else 'true'}"
    if isinstance(value, (list, tuple)):
        return f"{key}=[{','.join(map(str, value))}]"
    text = str(value)
    return f"{key}={text if _reads_as(text) == text else json.dumps(text, ensure_ascii=False)}"


def settings_of(values: Mapping[str, object]) -> list[str]:
    """A word for each key."""
    return [setting(key, value) for key, value in values.items()]


def _word(text: str) -> str:
    return text if PLAIN.fullmatch(text) else shlex.quote(text)


def _reads_as(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _quoted(words: str) -> str:
    escaped = re.sub(r'(["\\`])', r"\\\1", words).replace("$", r"\$\$")
    return f'"{escaped}"'
