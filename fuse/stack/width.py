"""How many heads to train at once: measured, for it depends on the head, the widths and the machine's caches.

A timing depends on the load of the machine, and the last bits of a score on the width: whoever measures records what
came out, and a width that is given is used untimed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from configs.schema.fusion import StackWidth
from fuse.model.fusion import ModelSettings, draw_weights
from fuse.model.heads.catalogue import find_head
from fuse.model.heads.layer import Weights
from fuse.stack.job import Fitted, Job
from fuse.stack.rows import CachedRows
from fuse.stack.stack import Schedule, Stack, company, fit_stack

# Where the search begins; fewer small heads are never faster in several stacks. Large ones may be, on a CPU: the
# weights and moments of a few, or of one, stay in its caches from one batch to the next.
FIRST = 8
TIMED_BATCHES = 3
# A wider stack must be worth its memory, and a timing has noise.
WORTH = 0.95
# Of a stack: its weights, two moments, gradients and the best weights so far.
LARGEST_BYTES, COPIES = 2**31, 5
# From this size on a head is large: eight, with what AdamW keeps of them, are more than most caches hold.
LARGE_BYTES = 2**20


def width_of(
    settings: ModelSettings, cached: CachedRows, jobs: Sequence[Job], schedule: Schedule, wanted: StackWidth
) -> int:
    """How many of these jobs to train at once: as many as are wanted, or what `measure` finds."""
    known = _known(settings, jobs, wanted)
    return measure(settings, cached, jobs, schedule).width if known is None else known


def fit_jobs(
    settings: ModelSettings,
    cached: CachedRows,
    jobs: Sequence[Job],
    schedule: Schedule,
    width: int,
    done: Callable[[int], None],
) -> list[Fitted]:
    """Train every job in stacks of a width; `done` is told how many heads each stack had."""
    fitted: dict[int, Fitted] = {}
    for numbers in cut(jobs, width):
        stack = fit_stack(settings, cached, [jobs[number] for number in numbers], schedule)
        fitted |= dict(zip(numbers, stack, strict=True))
        done(len(numbers))
    return [fitted[number] for number in range(len(jobs))]


def cut(jobs: Sequence[Job], width: int) -> Iterator[list[int]]:
    """Numbers of the jobs of each stack: heads of one fold together, no stack much smaller than the others."""
    order = sorted(range(len(jobs)), key=lambda number: company(jobs[number]))
    stacks = -(-len(jobs) // width)
    for stack in range(stacks):
        yield order[stack * len(jobs) // stacks : (stack + 1) * len(jobs) // stacks]


@dataclass(frozen=True)
class Measured:
    """The width that was fastest, and what a head costs there."""

    width: int
    seconds_per_batch: float

    def seconds(self, jobs: Sequence[Job], schedule: Schedule) -> float:
        """What one rank would take for all jobs."""
        batches = sum(-(-len(job.train) // schedule.batch_size) for job in jobs)
        return self.seconds_per_batch * schedule.epochs * batches


def measure(
    settings: ModelSettings, cached: CachedRows, jobs: Sequence[Job], schedule: Schedule, wanted: StackWidth = "auto"
) -> Measured:
    """The width with the least time per head over a few batches each: 8, 32, 128, ...; of large heads 4, 2, 1, or 8.

    Where a number is `wanted`, that width alone is timed, to tell how long the jobs will take.
    """
    if find_head(settings.head, settings.hidden, settings.unimodal).solve:
        return Measured(1, _seconds_to_solve(settings, cached, jobs[0], schedule))
    like = draw_weights(settings, 0)

    def timed(width: int) -> Measured:
        return Measured(width, _seconds_per_head(settings, cached, jobs[:width], schedule, like))

    known = _known(settings, jobs, wanted)
    if known is not None:
        return timed(known)
    widest = min(len(jobs), _widest(settings))
    if not _is_large(settings) or cached.rows_ND.is_cuda:
        return _while_better(timed(min(FIRST, widest)), timed, _wider(FIRST, widest), WORTH)
    first = timed(min(FIRST // 2, widest))
    narrower = _while_better(first, timed, _narrower(first.width), 1.0)
    return narrower if narrower.width < first.width else _while_better(first, timed, {min(FIRST, widest)}, WORTH)


def _while_better(best: Measured, timed: Callable[[int], Measured], widths: Iterable[int], worth: float) -> Measured:
    """The last of these widths that took at most this share of the time before; the first that does not ends it."""
    for width in widths:
        other = timed(width)
        if other.seconds_per_batch > worth * best.seconds_per_batch:
            return best
        best = other
    return best


def _narrower(width: int) -> Iterator[int]:
    while width > 1:
        width //= 2
        yield width


def _wider(width: int, widest: int) -> Iterator[int]:
    while width < widest:
        width = min(4 * width, widest)
        yield width


def _known(settings: ModelSettings, jobs: Sequence[Job], wanted: StackWidth) -> int | None:
    """The width where there is nothing to time: one in closed form, else as wanted, or all of a few small ones."""
    if find_head(settings.head, settings.hidden, settings.unimodal).solve:
        return 1
    if wanted != "auto":
        return min(wanted, len(jobs))
    widest = min(len(jobs), _widest(settings))
    small = widest <= FIRST and not _is_large(settings)
    return widest if small or widest == 1 else None


def _widest(settings: ModelSettings) -> int:
    """How many heads fit into the memory that a stack may take."""
    return max(1, LARGEST_BYTES // (COPIES * _head_bytes(settings)))


def _is_large(settings: ModelSettings) -> bool:
    return _head_bytes(settings) >= LARGE_BYTES


def _head_bytes(settings: ModelSettings) -> int:
    return sum(weight.nbytes for weight in draw_weights(settings, 0).values())


def _seconds_per_head(
    settings: ModelSettings, cached: CachedRows, jobs: Sequence[Job], schedule: Schedule, like: Weights
) -> float:
    """Of one batch: the quicker of two trials, in processor time where that is what counts, for others are at work.

    `like`: weights that all heads begin with; drawn anew for each, they would take longer than the trial.
    """
    stack = Stack(settings, cached, sorted(jobs, key=company), schedule, like)
    device = cached.rows_ND.device
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    stack.train(0, batches=1)  # memory that is touched for the first time
    taken = []
    for _ in range(2):
        _wait(device)
        start = clock()
        stack.train(0, batches=TIMED_BATCHES)
        _wait(device)
        taken.append(clock() - start)
    return min(taken) / len(jobs) / min(TIMED_BATCHES, stack.batches.steps_M[0])


def _seconds_to_solve(settings: ModelSettings, cached: CachedRows, job: Job, schedule: Schedule) -> float:
    """As if it had batches."""
    start = time.perf_counter()
    fit_stack(settings, cached, [job], schedule)
    batches = schedule.epochs * -(-len(job.train) // schedule.batch_size)
    return (time.perf_counter() - start) / batches


def _wait(device: torch.device) -> None:
    """Until the device has done what it was told; a CPU always has."""
    torch.get_device_module(device).synchronize(device)
