"""Fine-tuning: against accelerate's plain loop on the same model and clips, and where its time goes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from cache.conditions import UNCHANGED
from cache.corpus.clips import Clip, write_metadata
from cache.features.units import unit_count, unit_rows
from cache.media import SAMPLE_RATE_HZ, Media, Source
from configs.command.progress import Progress
from configs.command.stop import StopRequest
from configs.loader import dump_config, load_config
from configs.schema.demo import RandomEncodersConfig
from configs.schema.features import Asr, Encoders, FeaturesConfig, MediaSettings
from configs.schema.finetune import FinetuneConfig, FinetuneOptim
from configs.schema.fusion import FusionConfig, Optim
from extract.corpora.synthetic.encoders import write_random_encoders
from extract.run.plan import make_plan, prepare_stores
from extract.run.rank import run_rank
from fuse import train
from fuse.finetune.inputs.batches import Batch
from fuse.finetune.load import clips_of, load
from fuse.finetune.plan import plan_finetune
from fuse.finetune.training import loop
from fuse.finetune.training.loop import Training, Watch
from fuse.finetune.training.state import Keeper
from fuse.finetune.training.stepper import World, weights_that_learn
from tests.benchmarks.baselines.accelerate_loop import AccelerateLoop
from tests.benchmarks.stopwatch import interleaved
from tests.tiny.places import ROOT

SPEAKERS, LABELS, TAKES = ("1", "2", "3", "4", "21", "23"), ("happy", "sad"), 4
# Of a single one its features would not vary, and logits would be so large that gradients are denormal, which are slow.
SAID = ("Kids are talking by the door", "Dogs are sitting", "Kids sit by the door", "Dogs are talking by the kids")
SECONDS, SIZE, WIDTH, BLOCKS = 2.0, 64, 128, 4
BATCH, ROUNDS = 8, 5
OURS, THEIRS = "ours", "accelerate"
CPU = torch.device("cpu")


def run(folder: Path) -> list[str]:
    """One rank and two, both loops in turns; then each alone, for its memory."""
    config = _write_corpus(folder)
    one, two = (_ranks(config, ranks, f"{OURS},{THEIRS}") for ranks in (1, 2))
    peaks = {name: _ranks(config, 1, name)["peak"] for name in (OURS, THEIRS)}
    return [
        *_lines("1 rank", one),
        *_lines("2 ranks", two),
        f"clips a second, 2 ranks over 1: {two['clips_per_second'] / one['clips_per_second']:.2f}x",
        f"peak memory of a rank: {peaks[OURS]:.0f} MiB, accelerate's {peaks[THEIRS]:.0f} MiB",
        f"a checkpoint ({one['kept_mib']:.0f} MiB): {one['kept_seconds']:.2f} s, once in 10 minutes "
        f"{100 * one['kept_seconds'] / 600:.2f} % of the time",
    ]


def _lines(ranks: str, found: Mapping[str, Any]) -> list[str]:
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in found["shares"].items())
    return [
        f"{ranks}: {found['clips_per_second']:.1f} clips/s; "
        f"accelerate's plain loop over ours: {found['ratio']:.2f}x wall",
        f"  {shares}",
    ]


def _write_corpus(folder: Path) -> Path:
    """Clips, features and a run of stage two to start from; returns the configuration of a fine-tune."""
    clips = [
        Clip(f"{speaker}-{label}-{take}", f"{speaker}{label}{take}.mp4", label, speaker, statement=SAID[take])
        for speaker in SPEAKERS
        for label in LABELS
        for take in range(TAKES)
    ]
    write_metadata(clips, folder / "metadata.csv")
    sizes = RandomEncodersConfig(out=str(folder / "encoders"), width=WIDTH, blocks=BLOCKS, size=SIZE)
    encoders = Encoders(**{name: str(path) for name, path in write_random_encoders(sizes).items()})
    shared: dict[str, Any] = {"corpus": str(folder / "metadata.csv"), "features_dir": str(folder / "features")}
    plan = make_plan(
        FeaturesConfig(
            **shared,
            encoders=encoders,
            asr=Asr(model=None),
            conditions=(UNCHANGED,),
            media=MediaSettings(size=SIZE),
        )
    )
    prepare_stores(plan)
    for unit in range(unit_count(len(clips))):
        rows = unit_rows(len(clips), unit)
        plan.media.write_unit(unit, iter([(_media(row), Source("", 0, 0, 0, 0)) for row in rows]))
    run_rank(plan, 0, 1, StopRequest().check, folder / "decodes")
    train.run(FusionConfig(**shared, protocol="holdout", optim=Optim(epochs=1), output_dir=str(folder / "fusion")))
    optim = FinetuneOptim(epochs=3 * ROUNDS, batch_size=BATCH)
    config = FinetuneConfig(
        **shared, encoders=encoders, init=str(folder / "fusion"), audio_seconds=SECONDS, optim=optim, loader_workers=1
    )
    (folder / "finetune.yaml").write_text(dump_config(config))
    return folder / "finetune.yaml"


def _media(row: int) -> Media:
    rng = np.random.default_rng(row)
    sound_T = (0.1 * rng.standard_normal(round(SECONDS * SAMPLE_RATE_HZ))).astype(np.float32)
    return Media(sound_T, rng.integers(0, 255, (16, SIZE, SIZE, 3), dtype=np.uint8))


def _ranks(config: Path, ranks: int, contenders: str) -> dict[str, Any]:
    """What rank 0 measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    out = config.with_name(f"{ranks}-{contenders}.json")
    command = [sys.executable, "-m", "tests.benchmarks.bench_finetune", str(config), str(out), contenders]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **shared, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    started = [
        subprocess.Popen(command, env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(ranks)
    ]
    assert [process.wait() for process in started] == [0] * ranks
    found: dict[str, Any] = json.loads(out.read_text())
    return found


class Ours:
    """Our loop, epoch by epoch, and what its parts take."""

    def __init__(self, config: FinetuneConfig, world: World) -> None:
        """A training that has not begun."""
        plan = plan_finetune(config)
        self.model, loaders = load(plan, CPU)
        clips, validation = clips_of(plan, "train"), clips_of(plan, "validation")
        watch = Watch(StopRequest(), Progress("bench", 1, "clips", shown=False))
        self.training = Training(self.model, clips, validation, loaders, config.optim, world, watch)
        drawn = loaders.drawn(clips, self.training.order.from_there(0, 0, config.optim.epochs))
        self.passes, self.number, self.taken = self._timed(iter(drawn)), 0, dict.fromkeys(PARTS, 0.0)

    def epoch(self) -> None:
        """All clips once."""
        self.training._epoch(self.number, 0, self.passes)
        self.number += 1

    def shares(self) -> dict[str, float]:
        """Of one epoch's time. Ranks sum gradients and wait for it here, where else they go on: so it can be timed."""
        stepper, taken = self.training.stepper, self.taken
        clock = dict.fromkeys(PARTS, 0.0)

        def before(name: str) -> Any:
            return lambda *_: clock.update({name: time.perf_counter()})

        def after(name: str) -> Any:
            return lambda *_: taken.update({name: taken[name] + time.perf_counter() - clock[name]})

        stepper.parallel.register_forward_pre_hook(before("forward"))
        stepper.parallel.register_forward_hook(after("forward"))
        stepper.adamw.register_step_pre_hook(before("AdamW"))
        stepper.adamw.register_step_post_hook(after("AdamW"))
        stepper.parallel.register_comm_hook(None, lambda _, bucket: self._communicate(bucket))
        plain = loop._summed

        def summed(world: World, *values: float) -> list[float]:
            start = time.perf_counter()
            sums = plain(world, *values)
            taken["communication"] += time.perf_counter() - start
            return sums

        loop._summed = summed
        taken.update(dict.fromkeys(PARTS, 0.0))
        start = time.perf_counter()
        self.epoch()
        whole = time.perf_counter() - start
        loop._summed = plain
        rest = {"backward and the rest": whole - sum(taken.values())}
        return {name: seconds / whole for name, seconds in {**taken, **rest}.items()}

    def kept(self, folder: Path) -> tuple[float, float]:
        """Seconds and MiB of a checkpoint."""
        training = self.training
        logits_NC = np.zeros((len(training.validation), 2), np.float32)
        training.before, training.best_NC, training.best = (logits_NC,), logits_NC, weights_that_learn(self.model)
        training.keeper, seconds = Keeper(folder, 60), []
        for step in range(3):
            start = time.perf_counter()
            training._keep(0, step)
            seconds.append(time.perf_counter() - start)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        training.keeper = None
        return median(seconds), size / 2**20

    def _timed(self, passes: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            start = time.perf_counter()
            batch = next(passes)
            self.taken["waiting for data"] += time.perf_counter() - start
            yield batch

    def _communicate(self, bucket: Any) -> torch.futures.Future[torch.Tensor]:
        start = time.perf_counter()
        values = bucket.buffer().div_(dist.get_world_size())
        dist.all_reduce(values)
        self.taken["communication"] += time.perf_counter() - start
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(values)
        return done


PARTS = ("waiting for data", "forward", "communication", "AdamW")


def measure(config_file: Path, out: Path, names: list[str]) -> None:
    """As one rank: the contenders in turns; rank 0 writes what it found."""
    from accelerate import Accelerator  # type: ignore[import-untyped]

    torch.set_num_threads(1)
    config = load_config(FinetuneConfig, config_file)
    accelerator = Accelerator(cpu=True, device_placement=False)
    world = World(accelerator.process_index, accelerator.num_processes, CPU)
    if not dist.is_initialized():
        dist.init_process_group("gloo", init_method=f"file://{out}.store", rank=0, world_size=1)
    contenders: dict[str, Any] = {}
    if OURS in names:
        ours = Ours(config, world)
        contenders[OURS] = ours.epoch
    if THEIRS in names:
        plan = plan_finetune(config)
        model, loaders = load(plan, CPU)
        clips = clips_of(plan, "train")
        contenders[THEIRS] = AccelerateLoop(accelerator, model, clips, loaders.collator, config.optim, 1).epoch
    for contender in contenders.values():
        contender()  # kernels that are chosen at first use, loader processes that start: nobody's time
    times = interleaved({name: _together(one) for name, one in contenders.items()}, ROUNDS)
    found: dict[str, Any] = {"peak": _peak_mib()}
    if OURS in names and THEIRS in names:
        seconds, size = ours.kept(out.with_suffix(f".kept-{world.rank}")) if world.size == 1 else (0.0, 0.0)
        trained = len(ours.training.train)
        found |= {
            "clips_per_second": trained / times[OURS].wall_seconds,
            # Not processor time: their loader processes end with an epoch and are counted, ours live on and are not.
            "ratio": times[THEIRS].wall_seconds / times[OURS].wall_seconds,
            "shares": ours.shares(),
            "kept_seconds": seconds,
            "kept_mib": size,
        }
    if world.rank == 0:
        out.write_text(json.dumps(found))
    dist.barrier()


def _together(contender: Any) -> Any:
    """Ranks start together."""

    def turn() -> None:
        dist.barrier()
        contender()

    return turn


def _peak_mib() -> float:
    # Not getrusage: its maximum is inherited from the process that started this one.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    measure(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(","))
