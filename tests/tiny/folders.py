"""Folders of empty files for `make corpus`, which looks at names alone."""

from __future__ import annotations

from pathlib import Path

from configs.command.entry import main
from configs.schema.corpora import CorpusConfig
from extract.corpora.command import run
from tests.tiny.places import ROOT

CONFIG = ROOT / "configs" / "ravdess" / "corpus.yaml"


def touch(folder: Path, *names: str) -> None:
    """Make empty files, and the folders above them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def make_corpus(*overrides: str, config: Path = CONFIG) -> int:
    """The exit code of `make corpus` with these overrides."""
    return main(CorpusConfig, run, "test", ["--config", str(config), *overrides])
