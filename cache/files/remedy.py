"""The command that makes features which are missing: with the settings that made those which are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cache.files.commands import make_command, setting

CONFIG = "config.yaml"


def features_command(
    features_dir: Path, conditions: Sequence[str] = (), settings: Iterable[str] = (), corpus: str | None = None
) -> str:
    """`make features ...`, whole.

    Args:
        features_dir: where stage one keeps its configuration; without one, what is known here is said instead.
        conditions: what to make; empty: what the configuration says.
        settings: further words, `key=value`.
        corpus: its metadata, where it is known.
    """
    wanted = [setting("conditions", conditions)] if conditions else []
    kept = features_dir / CONFIG
    if kept.is_file():
        return make_command("features", [*wanted, *settings], kept)
    known = [setting("corpus", corpus)] if corpus else []
    return make_command("features", [*known, setting("features_dir", features_dir), *wanted, *settings])
