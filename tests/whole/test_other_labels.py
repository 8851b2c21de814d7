"""A corpus of three labels in another alphabet, with names and speakers of its own, goes through every stage."""

from __future__ import annotations

import csv
import json
import signal
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from matplotlib.figure import Figure

from cache.conditions import parse_joint
from cache.corpus.clips import Clip, read_corpus, write_metadata
from cache.features.units import unit_count, unit_rows
from cache.media import SAMPLE_RATE_HZ, Media, Source
from configs.command.stop import StopRequest
from configs.schema.features import Asr, Encoders, FeaturesConfig, MediaSettings
from configs.schema.finetune import FinetuneConfig, FinetuneOptim
from configs.schema.fusion import FusionConfig, Optim
from configs.schema.studies import ReportConfig, RobustnessConfig
from configs.schema.sweep import SweepConfig
from extract.run.plan import make_plan, prepare_stores
from extract.run.rank import run_rank
from fuse.finetune.load import load
from fuse.finetune.plan import plan_finetune
from fuse.finetune.rank import finetune
from fuse.finetune.training.stepper import World
from fuse.robustness.__main__ import run as robustness
from fuse.runs.checkpoint import read_checkpoint
from fuse.runs.folder import STAGING
from fuse.studies.report.__main__ import run as report
from fuse.sweep.__main__ import run as sweep
from fuse.sweep.rank import work
from fuse.train import run as train
from tests.tiny.corpus import write_tiny_encoders

# Not in the order of their code points.
LABELS = ("სიხარული", "ბრაზი", "სევდა")
SPEAKERS = ("ნინო", "გიორგი", "მარიამ", "ლუკა", "ანა", "დავით")
NOISE = "noise-white-0db"


def media_of(row: int, clip: Clip) -> Media:
    """A tone that tells the label, and flicker."""
    time = np.arange(round(0.4 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tone_T = 0.2 * np.sin(2 * np.pi * 150 * (1 + LABELS.index(clip.label)) * time)
    rng = np.random.default_rng(row)
    waveform_T = (tone_T + 0.01 * rng.standard_normal(len(time))).astype(np.float32)
    return Media(waveform_T, rng.integers(0, 255, (16, 32, 32, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """metadata.csv and labels.txt, encoders/, features/ and fusion/."""
    folder = tmp_path_factory.mktemp("georgian")
    clips = [
        Clip(f"{speaker}-{label}-{take}", f"{speaker}/{label}{take}.mp4", label, speaker, statement=f"{label} {take}")
        for speaker in SPEAKERS
        for label in LABELS
        for take in range(2)
    ]
    write_metadata(clips, folder / "metadata.csv")
    (folder / "labels.txt").write_text("\n".join(LABELS), encoding="utf-8")
    write_tiny_encoders(folder / "encoders")
    stage_one(folder, clips)
    train(fusion_of(folder))
    return folder


def encoders_of(root: Path) -> Encoders:
    return Encoders(*(str(root / "encoders" / name) for name in ("wav2vec2", "videomae", "roberta")))


def stage_one(root: Path, clips: list[Clip]) -> None:
    """In this process, and from media that no decoder has seen."""
    config = FeaturesConfig(
        corpus=str(root / "metadata.csv"),
        features_dir=str(root / "features"),
        encoders=encoders_of(root),
        asr=Asr(model=None),
        conditions=(parse_joint("clean"), parse_joint(NOISE)),
        media=MediaSettings(size=32),
    )
    plan = make_plan(config)
    prepare_stores(plan)
    for unit in range(unit_count(len(clips))):
        rows = unit_rows(len(clips), unit)
        plan.media.write_unit(unit, iter([(media_of(row, clips[row]), Source("", 0, 0, 0, 0)) for row in rows]))
    run_rank(plan, 0, 1, StopRequest().check, root / "decodes")


def fusion_of(root: Path) -> FusionConfig:
    return FusionConfig(
        corpus=str(root / "metadata.csv"),
        features_dir=str(root / "features"),
        protocol="speaker-folds-3",
        optim=Optim(epochs=3, lr=1e-2),
        output_dir=str(root / "fusion"),
    )


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[World]:
    """A process group of one; what fine-tuning does to signals is undone."""
    before = signal.getsignal(signal.SIGTERM)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield World(0, 1, torch.device("cpu"))
    dist.destroy_process_group()
    signal.signal(signal.SIGTERM, before)


def header_of(predictions: Path) -> list[str]:
    with predictions.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file))


def test_a_run_is_as_wide_as_its_labels_and_names_them(root: Path) -> None:
    assert read_corpus(root / "metadata.csv").labels == LABELS
    assert header_of(root / "fusion/predictions.csv")[5:8] == [f"p_{label}" for label in LABELS]
    metrics = json.loads((root / "fusion/metrics.json").read_text())
    assert metrics["labels"] == list(LABELS)
    assert metrics["test"]["clips"] == len(SPEAKERS) * len(LABELS) * 2
    checkpoint = read_checkpoint(root / "fusion/fold-2/seed-0/best_model.pth")
    assert checkpoint.label_names == LABELS
    rows = {name: torch.zeros(1, width) for name, width in checkpoint.settings.widths.items()}
    assert checkpoint.head()(rows).shape == (1, 3)
    named = (root / "fusion/classification_report.txt").read_text(encoding="utf-8")
    assert all(label in named for label in LABELS)


def test_a_confusion_matrix_has_the_labels_on_its_axes(root: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a letter that the font lacks
        train(replace(fusion_of(root), output_dir=str(tmp_path), optim=Optim(epochs=2)))
    matrix, curves = drawn[-2:]
    assert [text.get_text() for text in matrix.axes[0].get_yticklabels()] == list(LABELS)
    chance = next(line for line in curves.axes[1].lines if line.get_label() == "chance")
    assert list(np.asarray(chance.get_ydata())) == [1 / 3, 1 / 3]


def test_a_sweep(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuse.sweep.__main__._launch", lambda out, *_: work(out, 0, 1))
    shared: dict[str, Any] = {
        "corpus": str(root / "metadata.csv"),
        "features_dir": str(root / "features"),
        "optim": {"epochs": 2},
    }
    shared["protocol"] = "speaker-folds-3-seed-1"
    assert sweep(SweepConfig(run=shared, grid={"optim.lr": [1e-2, 1e-3]}, output_dir=str(tmp_path))) == 0
    assert "chance is 33.3 %" in (tmp_path / "sweep.md").read_text(encoding="utf-8")
    assert header_of(tmp_path / "runs/0/predictions.csv")[5:8] == [f"p_{label}" for label in LABELS]
    assert (tmp_path / "sweep.png").is_file()


def test_fine_tuning(root: Path, tmp_path: Path, alone: World) -> None:
    config = FinetuneConfig(
        corpus=str(root / "metadata.csv"),
        features_dir=str(root / "features"),
        encoders=encoders_of(root),
        init=str(root / "fusion/fold-1/seed-0"),
        audio_seconds=0.4,
        optim=FinetuneOptim(epochs=1, batch_size=4),
        output_dir=str(tmp_path / "tuned"),
    )
    plan = plan_finetune(config)
    finetune(plan, *load(plan, alone.device), alone, StopRequest())
    written = tmp_path / "tuned" / STAGING
    assert header_of(written / "predictions.csv")[5:8] == [f"p_{label}" for label in LABELS]
    assert read_checkpoint(written / "best_model.pth").label_names == LABELS


def test_the_robustness_table(root: Path, tmp_path: Path) -> None:
    runs, out = (str(root / "fusion"),), str(tmp_path)
    assert (
        robustness(
            RobustnessConfig(runs=runs, conditions=(parse_joint(NOISE),), modalities=(("audio",),), output_dir=out)
        )
        == 0
    )
    assert "chance is 33.3 %" in (tmp_path / "robustness_table.md").read_text(encoding="utf-8")
    assert header_of(tmp_path / "predictions.csv")[5:8] == [f"p_{label}" for label in LABELS]


def test_the_report(root: Path, drawn: list[Figure]) -> None:
    assert report(ReportConfig(run=(str(root / "fusion"),))) == 0
    words = {text.get_text() for figure in drawn for legend in figure.legends for text in legend.get_texts()}
    assert set(LABELS) <= words


def test_a_run_refuses_a_corpus_that_counts_its_labels_otherwise(root: Path, tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes((root / "metadata.csv").read_bytes())
    runs, corpus, out = (str(root / "fusion"),), str(tmp_path / "metadata.csv"), str(tmp_path / "out")
    with pytest.raises(ValueError, match="the order: label 1 is სიხარული in one and ბრაზი in the other"):
        robustness(RobustnessConfig(runs=runs, conditions=(), corpus=corpus, output_dir=out))
