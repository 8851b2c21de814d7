"""What the tests of fine-tuning are made of: eight tiny clips, tiny random encoders, media straight in the store."""

from __future__ import annotations

import os
import subprocess
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist

from cache.conditions import UNCHANGED, JointCondition, parse_joint
from cache.corpus.clips import Clip, write_metadata
from cache.features.units import unit_count, unit_rows
from cache.media import SAMPLE_RATE_HZ, Media, Source
from configs.command.progress import Progress
from configs.command.stop import StopRequest
from configs.schema.demo import RandomEncodersConfig
from configs.schema.features import Asr, Encoders, FeaturesConfig, MediaSettings, NoiseSettings
from configs.schema.finetune import FinetuneConfig, FinetuneOptim
from configs.schema.fusion import FusionConfig, Optim
from extract.corpora.synthetic.encoders import write_random_encoders
from extract.encoders.preparer import Inputs
from extract.run.plan import make_plan, prepare_stores
from extract.run.rank import run_rank
from fuse import train
from fuse.finetune.inputs.batches import Batch
from fuse.finetune.training.loop import Watch
from fuse.finetune.training.state import last_position
from fuse.finetune.training.stepper import World

NOISE = "noise-white-0db"
SPEAKERS = ("1", "2", "21", "23")
SENTENCES = ("Kids are talking by the door", "Dogs are sitting by the door", "")
CPU = torch.device("cpu")


def no_news() -> Watch:
    """Of this process: one is told to stop when the process that started it is gone."""
    return Watch(StopRequest(), Progress("test", 1, "clips", shown=False))


NO_NEWS = no_news()
ALONE = World(0, 1, CPU)


def signal(seconds: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tone = 0.2 * np.sin(2 * np.pi * rng.uniform(100, 300) * time) + 0.01 * rng.standard_normal(len(time))
    return np.asarray(tone, np.float32)


def media_of(row: int) -> Media:
    """Clip 1 of the training speakers has no sound; every clip is of another length."""
    frames = np.random.default_rng(row).integers(0, 255, (16, 32, 32, 3), dtype=np.uint8)
    return Media(None if row == 1 else signal(0.3 + 0.05 * row, row), frames)


def write_corpus(root: Path) -> None:
    """metadata.csv, encoders/, features/ (stage one) and fusion/ (stage two)."""
    clips = [
        # One sentence is longer than the other, and one clip has no text.
        Clip(f"clip-{row}", f"{row}.mp4", label, speaker, statement=SENTENCES[2 if row == 2 else row % 2])
        for row, (speaker, label) in enumerate((s, label) for s in SPEAKERS for label in ("happy", "sad"))
    ]
    write_metadata(clips, root / "metadata.csv")
    write_random_encoders(RandomEncodersConfig(out=str(root / "encoders"), width=16, blocks=2, size=32))
    stage_one(root, len(clips), parse_joint(NOISE))
    train.run(
        FusionConfig(
            corpus=str(root / "metadata.csv"),
            features_dir=str(root / "features"),
            protocol="holdout",
            optim=Optim(epochs=2, lr=1e-3),
            output_dir=str(root / "fusion"),
        )
    )


def stage_one(
    root: Path,
    clips: int,
    condition: JointCondition,
    encoders: Encoders | None = None,
    features: Path | None = None,
    noise: NoiseSettings | None = None,
) -> None:
    """Features of clean clips and under a condition, from media that are written where they are not there."""
    config = FeaturesConfig(
        corpus=str(root / "metadata.csv"),
        features_dir=str(features or root / "features"),
        encoders=encoders or encoders_of(root),
        asr=Asr(model=None),
        noise=noise or NoiseSettings(),
        conditions=(UNCHANGED, condition),
        media=MediaSettings(size=32),
    )
    plan = make_plan(config)
    prepare_stores(plan)
    for unit in range(unit_count(clips)):
        rows = unit_rows(clips, unit)
        if not plan.media.has_unit(unit):
            plan.media.write_unit(unit, iter([(media_of(row), Source("", 0, 0, 0, 0)) for row in rows]))
    run_rank(plan, 0, 1, StopRequest().check, (features or root) / "decodes")


def encoders_of(root: Path) -> Encoders:
    folder = root / "encoders"
    return Encoders(str(folder / "wav2vec2"), str(folder / "videomae"), str(folder / "roberta"))


def config_of(root: Path, **changed: Any) -> FinetuneConfig:
    given: dict[str, Any] = {
        "corpus": str(root / "metadata.csv"),
        "features_dir": str(root / "features"),
        "encoders": encoders_of(root),
        "init": str(root / "fusion"),
        "audio_seconds": 0.4,
        "optim": FinetuneOptim(epochs=1, batch_size=2, lr=1e-3),
    }
    return FinetuneConfig(**{**given, **changed})


def together(batch: Batch, name: str) -> Inputs:
    """A modality's inputs, of clips that share a batch."""
    inputs = batch.inputs[name]
    assert isinstance(inputs, dict)
    return inputs


def fork_ranks(work: Callable[[World], object], ranks: int, store: Path) -> list[int]:
    """Start ranks that do this together; returns their process ids. They share all that is imported: a second each.

    Not within a process group: the forks would take it for theirs. `store`: a file that is not there yet.
    """
    pids = []
    for rank in range(ranks):
        if not (pid := os.fork()):
            code = 1
            try:
                torch.set_num_threads(1)
                dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
                work(World(rank, ranks, CPU))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        pids.append(pid)
    return pids


def await_ranks(pids: Sequence[int]) -> None:
    """They must all end well."""
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * len(pids)


def is_past(resume: Path, before: Path | None) -> bool:
    return last_position(resume) not in (None, before)


def kill_all(launcher: subprocess.Popen[str]) -> None:
    """The launcher, torchrun and the ranks, at once."""
    for process in (*psutil.Process(launcher.pid).children(recursive=True), psutil.Process(launcher.pid)):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    launcher.communicate()
