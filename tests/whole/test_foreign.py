"""A corpus in another language, as a user takes it from a folder to tables: every command as it is typed.

Seven German labels, speakers and files with spaces and letters outside ASCII, two recordings of more than 30 s, three
stretches of another, and a clip that nobody transcribed.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cache.features.rows import State
from cache.features.store import open_store
from tests.tiny.corpus import pictures, tone, write_mp4, write_tiny_encoders, write_tiny_mp4
from tests.tiny.encoders import whisper
from tests.tiny.places import ROOT

LABELS = ("Freude", "Ärger", "Überraschung", "Angst", "Ekel", "Trauer", "gleichgültig")
SPEAKERS = ("Anna Weiß", "Björn", "Çiğdem", "Jürgen O'Neill", "ნინო", "Žofie")
SENTENCES = ("Die Straße ist gesperrt.", "Übermorgen grünt's; „wirklich“!")
CLIPS = "Aufnahmen (2024) aus Köln"
LONG, UNHEARD, TALK = "lang (1).mp4", "lang, ohne Text.mp4", "Gespräch #2.mp4"
LONG_SECONDS = 33.0
NEW = "neue Aufnahme Nr. 1.mp4"


@dataclass(frozen=True)
class Line:
    """Of the table that the clips come with, as a German spreadsheet writes it."""

    file: str
    speaker: str
    label: str
    sentence: str
    start: str = ""
    end: str = ""


def write_corpus(root: Path) -> list[Line]:
    """Clips and their table in `root`: 84 short ones, two long ones and three stretches."""
    lines = list[Line]()
    for speaker in SPEAKERS:
        for number, (label, sentence) in enumerate((la, se) for la in LABELS for se in SENTENCES):
            name = f"{speaker}/{label} {number + 1:02d}.mp4"
            write_tiny_mp4(root / name, 0.5, seed=len(lines))
            lines.append(Line(name, speaker, label, sentence))
    for seed, name in enumerate((LONG, UNHEARD, TALK)):
        write_mp4(root / name, tone(LONG_SECONDS, seed=seed), pictures(round(5 * LONG_SECONDS), seed=seed), fps=5)
    lines.append(Line(LONG, SPEAKERS[0], LABELS[1], " ".join(SENTENCES * 10)))
    lines.append(Line(UNHEARD, SPEAKERS[1], LABELS[2], ""))
    for start, speaker, label in zip((0, 10, 20), SPEAKERS[2:], LABELS, strict=False):
        lines += [Line(TALK, speaker, label, SENTENCES[0], f"{start}.25", f"{start + 2}")]
    with (root / "Übersicht.csv").open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file, delimiter=";")
        table.writerow(["Datei", "Sprecher:in", "Gefühl", "Wortlaut", "von", "bis"])
        table.writerows([one.file, one.speaker, one.label, one.sentence, one.start, one.end] for one in lines)
    return lines


def typed(line: str, folder: Path, *further: str) -> str:
    """What a command prints that is typed in `folder`; `further` overrides put small encoders in place of its own."""
    dry = ["make", "-n", "--no-print-directory", "-C", str(ROOT), *shlex.split(line)[1:]]
    told = subprocess.run(dry, capture_output=True, text=True, check=False)
    assert told.returncode == 0, f"{line}: {told.stderr}"
    _, _, module, _, config, *overrides = shlex.split(told.stdout.strip().splitlines()[-1])
    command = [sys.executable, "-m", module, "--config", str(ROOT / config), *overrides, *further]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RANKS": "2"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Way:
    """The folder that a user ended with, and what each command printed."""

    folder: Path
    lines: list[Line]
    printed: dict[str, str]


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    folder = tmp_path_factory.mktemp("foreign")
    lines = write_corpus(folder / CLIPS)
    write_tiny_encoders(folder / "Modelle")
    whisper(folder / "Modelle/whisper")
    shutil.copy(folder / CLIPS / LONG, folder / NEW)
    named = "columns.path=Datei columns.statement=Wortlaut columns.start=von columns.end=bis"
    corpus = f'make corpus ROOT="{CLIPS}" OUT=data/metadata.csv CSV=Übersicht.csv LABEL=Gefühl SPEAKER=Sprecher:in'
    printed = {"corpus": typed(f'{corpus} SET="{named}"', folder)}
    features, train = re.findall(r"^  (make .*)$", printed["corpus"], re.MULTILINE)
    names = {"audio": "whisper", "video": "videomae", "text": "roberta"}
    small = [f"encoders.{modality}=Modelle/{name}" for modality, name in names.items()]
    printed["features"] = typed(features, folder, *small, "asr.model=null", "media.size=32")
    printed["train"] = typed(train, folder)
    printed["predict"] = typed(f'make predict CLIP="{NEW}"', folder)
    printed["folder"] = typed(f'make predict CLIP="{CLIPS}/{SPEAKERS[-2]}" SET="csv=true"', folder)
    printed["robustness"] = typed("make robustness-table", folder)
    printed["report"] = typed("make report RUN=outputs/fusion", folder)
    return Way(folder, lines, printed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_clip_comes_through_long_ones_and_stretches_too(way: Way) -> None:
    store = open_store(way.folder / "features/clean.zarr")
    assert len(store.clip_ids) == len(way.lines)
    states = {path: list(store.states(path)) for path in ("audio/whisper", "video/videomae", "text/roberta")}
    assert set(states["audio/whisper"]) == set(states["video/videomae"]) == {State.DONE}
    absent = [store.clip_ids[row] for row, state in enumerate(states["text/roberta"]) if state == State.ABSENT]
    assert absent == ["lang, ohne Text"]
    reasons = dict(zip(store.clip_ids, store.reasons("audio/whisper"), strict=True))
    # The encoder takes 3 s, and the coded sound is a little longer than what it is of.
    assert {clip_id: reason for clip_id, reason in reasons.items() if reason} == dict.fromkeys(
        ("lang (1)", absent[0]), "12 windows"
    )
    sounds = store.read_layer("audio/whisper", 1)[[row for row, name in enumerate(store.clip_ids) if "#2-" in name]]
    assert len(np.unique(sounds.round(5), axis=0)) == 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_knows_labels_and_speakers_by_their_names(way: Way) -> None:
    metrics = json.loads((way.folder / "outputs/fusion/metrics.json").read_text(encoding="utf-8"))
    assert sorted(metrics["labels"]) == sorted(LABELS)
    assert (metrics["test"]["clips"], metrics["test"]["speakers"]) == (len(way.lines), len(SPEAKERS))
    assert all(
        label in (way.folder / "outputs/fusion/classification_report.txt").read_text("utf-8") for label in LABELS
    )
    first = way.printed["predict"].partition(f"{NEW}: ")[2]
    assert first.startswith(LABELS)
    rows = list(csv.DictReader(way.printed["folder"].splitlines()))
    assert len(rows) == sum(line.speaker == SPEAKERS[-2] and line.file.startswith(line.speaker) for line in way.lines)
    assert all(f"p_{label}" in rows[0] for label in LABELS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_table_and_the_page_speak_of_them(way: Way) -> None:
    table = (way.folder / "outputs/robustness/robustness_table.md").read_text(encoding="utf-8")
    assert "chance is 14.3 %" in table
    assert all(speaker in table for speaker in SPEAKERS)
    assert (way.folder / "outputs/robustness/robustness_table.png").stat().st_size > 10_000
    page = (way.folder / "outputs/fusion/report.html").read_text(encoding="utf-8")
    assert all(label in page for label in LABELS)
