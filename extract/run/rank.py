"""One rank of stage one: the units it owns, one after the other.

Started by torchrun, once per rank. Ranks share nothing but the stores and never talk to each other:
there is no gradient, hence no process group.
"""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import torch

from cache.features.units import owned_units
from cache.files.atomic import write_atomic
from configs.command.launch import ERROR_FILE
from configs.command.progress import Progress
from configs.command.stop import Stopped, StopRequest
from extract.encoders.loading import rank_device
from extract.run.plan import PLAN_FILE, Plan, read_plan
from extract.run.prefetch import Ahead
from extract.run.unit import Observer, Tools, decode_unit, load_tools, process_unit

UNITS_AHEAD = 1


def run_rank(plan: Plan, rank: int, world_size: int, check: Callable[[], None], decodes: Path) -> None:
    """Compute every unit this rank owns that is not done.

    Args:
        plan: what to compute.
        rank: number of this rank.
        world_size: number of ranks.
        check: called between two batches; ends the work by raising.
        decodes: file that grows by one byte per decoded clip, so that "decoded once" can be checked.

    Raises:
        ValueError: a model cannot be loaded, a batch does not fit, or a noise recording cannot be used.
        Exception: what `check` raises. The unit in work stays pending, whatever it is.
    """
    torch.set_num_threads(plan.config.threads)
    units = [unit for unit in owned_units(len(plan.corpus.clips), rank, world_size) if plan.lacks(unit)]
    if not units:
        return
    if plan.live is not None:
        # Machines that share an object store and begin elsewhere seldom meet at the same unit.
        first = secrets.randbelow(len(units))
        units = units[first:] + units[:first]
    arrays = [(unit, array) for unit in units for array in plan.pending(unit)]
    tools = load_tools(plan, {array.spec.modality for _, array in arrays}, rank_device())
    total = sum(len(plan.clips(unit)) for unit, _ in arrays)
    with (
        decodes.open("ab", buffering=0) as file,
        Progress(f"features, rank 0 of {world_size}", total, "clips", shown=rank == 0) as progress,
    ):
        compute(plan, units, tools, Observer(check, progress.add, lambda count: file.write(b"." * count)))


def compute(plan: Plan, units: Sequence[int], tools: Tools, observer: Observer) -> None:
    """Compute these units; while one is encoded, the next is decoded."""
    for unit in Ahead(_decoded_units(plan, units, observer), UNITS_AHEAD, observer.check):
        process_unit(plan, unit, tools, observer, is_decoded=True)


def _decoded_units(plan: Plan, units: Sequence[int], observer: Observer) -> Generator[int, None, None]:
    for unit in units:
        decode_unit(plan, unit, observer)
        yield unit


def main(arguments: Sequence[str] | None = None) -> int:
    """Read torchrun's environment and work. User errors go to a file: torchrun cannot pass on exit codes.

    Argument: a folder that holds the plan, and where ranks leave word for the launcher.
    """
    (exchange,) = map(Path, sys.argv[1:] if arguments is None else arguments)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    stop = StopRequest()
    stop.listen()

    def check() -> None:
        stop.check()
        # Another rank met what ends the run: the user should not wait for the rest.
        if (exchange / ERROR_FILE).exists():
            raise Stopped

    try:
        run_rank(read_plan(exchange / PLAN_FILE), rank, world_size, check, exchange / f"decodes-{rank}")
    except Exception as error:
        # A signal reaches the decoders as well: what breaks after it is no news.
        if stop.received or isinstance(error, Stopped):
            return 0
        if not isinstance(error, (ValueError, OSError)):
            raise
        write_atomic(exchange / ERROR_FILE, f"{error}{_advice(error)}")
    return 0


def _advice(error: Exception) -> str:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "; make room, then the same command continues" if full else ""


if __name__ == "__main__":
    code = main()
    # Every file is complete by now. An orderly end would wait for decoders that are still starting.
    sys.stderr.flush()
    os._exit(code)
