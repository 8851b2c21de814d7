"""Training heads: stacks against four usual ways of training one head after the other, and against the machine."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from cache.corpus.ravdess import LABELS
from configs.loader import dump_config
from configs.schema.sweep import SweepConfig
from fuse.model.fusion import ModelSettings
from fuse.scores.predictions import Predictions, write_predictions
from fuse.stack.job import Job
from fuse.stack.rows import CachedRows
from fuse.stack.stack import Schedule, fit_stack
from fuse.stack.width import fit_jobs, measure, width_of
from tests.benchmarks.baselines.machine import Roofs
from tests.benchmarks.baselines.single_heads import BATCH, DROPOUT, LOOPS, LR, Task
from tests.benchmarks.stopwatch import interleaved
from tests.tiny.features import tiny_clips, write_tiny_features

MODALITIES, WIDTH, ROWS, HELD_OUT = ("audio", "video", "text"), 768, 1200, 240
CLASSES = 8
HEADS, ONE_BY_ONE, EPOCHS, ROUNDS, OVERHEAD_ROUNDS, GPU_HEADS = 16, 4, 3, 3, 5, 128
SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(MODALITIES, size)]


def run(folder: Path) -> list[str]:
    """Every subset and hidden width; the roofs; what a run costs beside training; the sweep of 175 heads."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    lines = [
        f"{HEADS} heads against {ONE_BY_ONE} one by one, {ROWS} rows to train on, batches of {BATCH}, {EPOCHS} epochs; "
        "one thread:"
    ]
    loops = {name: loop for name, loop in LOOPS.items() if _is_there(name)}
    lines += [f"  {name}: not installed, left out" for name in LOOPS if name not in loops]
    with threadpool_limits(1), ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        _warm_up(loops, pool)
        found = [_compare(subset, hidden, loops, pool) for hidden in (256, 512) for subset in SUBSETS]
    lines += [line for one in found for line in one.lines]
    for name in loops:
        ratios = sorted(one.ratios[name] for one in found)
        middle, least, most = statistics.median(ratios), ratios[0], ratios[-1]
        lines.append(f"{name}: {middle:.2f}x processor time in the median, {least:.2f} to {most:.2f}x")
    return [*lines, *_roofs(), *_overhead(folder), *_sweep(folder / "sweep"), *_gpu()]


def train_stacked(widths: Mapping[str, int], hidden: int, heads: int) -> None:
    """Ours: all heads, in stacks of a measured width."""
    settings, cached, jobs, schedule = _settings(widths, hidden), _cached(widths), _jobs(heads), Schedule(EPOCHS, BATCH)
    width = width_of(settings, cached, jobs, schedule, "auto")
    fit_jobs(settings, cached, jobs, schedule, width, lambda _: None)


def train_one_by_one(name: str, widths: Mapping[str, int], hidden: int, heads: int) -> None:
    """Theirs: one head after the other."""
    torch.set_num_threads(1)
    cached = _cached(widths)
    part = cached.rows_ND[:ROWS], cached.labels_N[:ROWS], cached.rows_ND[ROWS:], cached.labels_N[ROWS:]
    with threadpool_limits(1):
        for seed in range(heads):
            LOOPS[name](Task(*part, hidden, EPOCHS), seed)


def _warm_up(loops: Iterable[str], pool: Executor) -> None:
    """Imports, kernels that are chosen at first use: nobody's time."""
    narrow = {"audio": 8}
    train_stacked(narrow, 8, 1)
    _both(pool, train_stacked, narrow, 8, 1)
    for name in loops:
        train_one_by_one(name, narrow, 8, 1)
        _both(pool, train_one_by_one, name, narrow, 8, 1)


@dataclass(frozen=True)
class Compared:
    """One subset and width: what to print, and how many times our processor time each loop takes."""

    lines: list[str]
    ratios: Mapping[str, float]


def _compare(subset: tuple[str, ...], hidden: int, loops: Mapping[str, object], pool: Executor) -> Compared:
    widths = dict.fromkeys(subset, WIDTH)
    contenders: dict[str, Callable[[], object]] = {"ours": lambda: train_stacked(widths, hidden, HEADS)}
    wall: dict[str, Callable[[], object]] = {"ours": lambda: _both(pool, train_stacked, widths, hidden, HEADS // 2)}
    for name in loops:
        contenders[name] = partial(train_one_by_one, name, widths, hidden, ONE_BY_ONE)
        wall[name] = partial(_both, pool, train_one_by_one, name, widths, hidden, ONE_BY_ONE // 2)
    alone, both = interleaved(contenders, ROUNDS), interleaved(wall, 1)
    ours = alone["ours"].cpu_seconds / HEADS
    ratios = {name: alone[name].cpu_seconds / ONE_BY_ONE / ours for name in loops}
    ours_both = both["ours"].wall_seconds / HEADS
    walls = {name: both[name].wall_seconds / ONE_BY_ONE / ours_both for name in loops}
    lines = [
        f"  hidden {hidden}, {'+'.join(subset)}: {1000 * ours / EPOCHS:.1f} ms per head and epoch",
        *(f"    {name}: {ratios[name]:.2f}x processor time, {walls[name]:.2f}x wall on two cores" for name in loops),
    ]
    return Compared(lines, ratios)


def _both(pool: Executor, train: Callable[..., None], *arguments: object) -> None:
    """The same work on both cores, half of the heads each."""
    for future in [pool.submit(train, *arguments) for _ in range(2)]:
        future.result()


def _roofs() -> list[str]:
    """How much of a training step the machine itself could not do faster, and where the rest goes."""
    return [line for hidden in (256, 512) for line in _roof(hidden)]


def _roof(hidden: int) -> list[str]:
    widths, schedule = dict.fromkeys(MODALITIES, WIDTH), Schedule(EPOCHS, BATCH)
    settings, cached = _settings(widths, hidden), _cached(widths)
    width = measure(settings, cached, _jobs(HEADS), schedule).width
    roofs = Roofs.measured()
    taken = interleaved(
        {
            precision: partial(fit_stack, settings, cached, _jobs(width), replace(schedule, precision=precision))
            for precision in ("float32", "bfloat16")
        },
        ROUNDS,
    )
    gain = taken["float32"].cpu_seconds / taken["bfloat16"].cpu_seconds
    weights, batches = len(widths) * WIDTH * hidden, EPOCHS * -(-ROWS // BATCH) * width
    # Forward and gradient of the first layer; AdamW reads four arrays and writes three.
    arithmetic = batches * 4 * BATCH * weights / roofs.flops
    memory = batches * 7 * 4 * weights / roofs.bytes_per_second
    held_out = EPOCHS * width * 2 * HELD_OUT * weights / roofs.flops
    bound = (arithmetic + memory + held_out) / taken["float32"].cpu_seconds
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        fit_stack(settings, cached, _jobs(width), schedule)
    return [
        f"hidden {hidden}, {'+'.join(widths)}, stacks of {width}: products and memory traffic at this machine's roofs "
        f"would take {100 * bound:.0f} % of the time",
        f"  precision=bfloat16: {gain:.2f}x as fast (1 where this processor has no such products)",
        f"  {_shares({event.key: event.self_cpu_time_total for event in profiled.key_averages()})}",
    ]


# Parts of a training step by the operations that do it; what is left is Python, autograd and small operations.
PARTS = {
    "products": ("aten::bmm", "aten::mm"),
    "AdamW": ("aten::_fused_adamw_",),
    "rows fetched and standardised": ("aten::index_select", "aten::sub", "aten::div_"),
    "activation": ("aten::gelu", "aten::gelu_backward"),
    "random numbers and masks": ("aten::uniform_", "aten::ge", "aten::mul", "aten::cat"),
    "copies": ("aten::copy_", "aten::fill_"),
}


def _shares(microseconds: Mapping[str, float]) -> str:
    whole = sum(microseconds.values())
    shares = {part: sum(microseconds.get(name, 0) for name in names) / whole for part, names in PARTS.items()}
    shares["the rest"] = 1 - sum(shares.values())
    return "profiled: " + ", ".join(f"{part} {100 * share:.0f} %" for part, share in shares.items())


def _overhead(folder: Path) -> list[str]:
    """What a run costs beside its epochs: starting weights, AdamW's moments, a finished model; and its file."""
    one = dict.fromkeys(MODALITIES, WIDTH)
    settings, cached, jobs = _settings(one, 256), _cached(one), _jobs(HEADS)
    times = interleaved(
        {
            "no epoch": lambda: fit_stack(settings, cached, jobs, Schedule(0, BATCH)),
            "file": lambda: _write(folder / "predictions.csv"),
        },
        OVERHEAD_ROUNDS,
    )
    beside, file = times["no epoch"].wall_seconds, times["file"].wall_seconds
    return [f"beside its epochs a run costs {1000 * beside / HEADS:.1f} ms, its predictions' file {1000 * file:.1f} ms"]


def _write(path: Path) -> None:
    names = [f"clip-{number}" for number in range(2 * HELD_OUT)]
    labels = [number % CLASSES for number in range(2 * HELD_OUT)]
    chances = torch.rand(2 * HELD_OUT, 8, generator=torch.Generator().manual_seed(0)).double().softmax(1).numpy()
    people = ["1"] * len(names)
    shared = {"protocol": "luna5", "split": "test", "condition": "clean", "modalities": "audio+video+text"}
    write_predictions(
        Predictions.of(names, people, people, labels, chances, fold=1, seed=0, label_names=LABELS, **shared), path
    )


def _sweep(folder: Path) -> list[str]:
    """All 7 subsets, 5 folds, 5 seeds on two ranks, from the command to the table."""
    clips = tiny_clips(per_class=7)
    corpus = write_tiny_features(folder, clips, widths=dict.fromkeys(MODALITIES, WIDTH))
    run_keys = {"corpus": str(corpus), "features_dir": str(folder), "protocol": "luna5", "seeds": [0, 1, 2, 3, 4]}
    grid = {"modalities": [list(subset) for subset in SUBSETS]}
    config = SweepConfig(run=run_keys, grid=grid, output_dir=str(folder / "out"))
    (folder / "sweep.yaml").write_text(dump_config(config))
    environment = {**os.environ, "RANKS": "2", "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    command = [sys.executable, "-m", "fuse.sweep", "--config", str(folder / "sweep.yaml")]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    return [
        f"a sweep of 7 subsets x 5 folds x 5 seeds (175 heads, hidden 256, 20 epochs, {len(clips)} clips) "
        f"on 2 ranks: {seconds:.0f} s from the command to the table"
    ]


def _gpu() -> list[str]:
    """128 heads at once against one after the other, on a GPU."""
    if not torch.cuda.is_available():
        return ["no GPU here: 128 heads at once against one after the other were not measured"]
    one = dict.fromkeys(MODALITIES, WIDTH)
    cached, jobs = _cached(one, "cuda"), _jobs(GPU_HEADS)
    settings, schedule = _settings(one, 256), Schedule(20, BATCH)
    fit_stack(settings, cached, jobs[:1], Schedule(1, BATCH))
    alone = interleaved({"one": lambda: fit_stack(settings, cached, jobs[:1], schedule)}, ROUNDS)["one"]
    together = interleaved({"all": lambda: fit_stack(settings, cached, jobs, schedule)}, ROUNDS)["all"]
    ratio = GPU_HEADS * alone.wall_seconds / together.wall_seconds
    return [f"on {torch.cuda.get_device_name()}: {GPU_HEADS} heads one after the other take {ratio:.0f}x wall"]


def _settings(widths: Mapping[str, int], hidden: int) -> ModelSettings:
    return ModelSettings("mlp", dict(widths), CLASSES, hidden, DROPOUT)


def _jobs(heads: int) -> list[Job]:
    train, held_out = tuple(range(ROWS)), tuple(range(ROWS, ROWS + HELD_OUT))
    return [Job(train, held_out, seed=seed, lr=LR, dropout=DROPOUT) for seed in range(heads)]


def _cached(widths: Mapping[str, int], device: str = "cpu") -> CachedRows:
    rows_ND = _rows()[:, : sum(widths.values())].to(device)
    return CachedRows(dict(widths), rows_ND, None, _labels().to(device), {})


def _rows() -> Tensor:
    return torch.randn(ROWS + HELD_OUT, WIDTH * len(MODALITIES), generator=torch.Generator().manual_seed(0))


def _labels() -> Tensor:
    return torch.arange(ROWS + HELD_OUT) % CLASSES


def _is_there(name: str) -> bool:
    return name != "Lightning" or find_spec("lightning") is not None
