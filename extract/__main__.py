"""Stage one, `make features`: plan, start the ranks, count what failed, decide.

Exit codes: 0 done; 1 the ranks died before the end; 2 bad input; 3 more than `max_failed` clips failed;
130 or 143 interrupted.
"""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from cache.care.growth import grow
from cache.features.store import remove_leftovers
from cache.files.atomic import write_atomic
from cache.files.hashes import fingerprint
from cache.files.lock import locked, share
from cache.media import forget_part, needless_parts
from configs.command.engines.job import LOG_FILE, Job, require_engine, run_job
from configs.command.engines.slurm import refuse_running
from configs.command.entry import main
from configs.command.launch import ERROR_FILE, Interruption, rank_count
from configs.command.nodes.company import Company, assist, company, patience
from configs.command.nodes.settings import refuse_several, these_nodes
from configs.loader import dump_config
from configs.schema.features import FeaturesConfig
from extract.run.failures import failed_clips, pending_rows, summary, write_failures
from extract.run.plan import PLAN_FILE, Plan, make_plan, prepare_stores, write_plan
from extract.run.sources import check_published, check_sources, look_for_files


@dataclass(frozen=True)
class Work:
    """What a run had to do, and what it took."""

    rows: int
    decoded: int
    seconds: float

    def __str__(self) -> str:
        """Rows, rate and how many clips had to be decoded for them."""
        if not self.rows:
            return f"{self.decoded} clips decoded" if self.decoded else "nothing to do"
        rate = self.rows / self.seconds
        return f"{self.rows} rows in {self.seconds:.1f} s ({rate:.1f} rows/s), {self.decoded} clips decoded"


def run(config: FeaturesConfig) -> int:
    """Compute everything that is not there yet; returns the exit code."""
    interruption = Interruption()
    interruption.listen()
    ranks, nodes, start = rank_count(), these_nodes(), time.monotonic()
    require_engine(config.engine)
    if config.engine.name != "torchrun":
        refuse_several(f"engine.name={config.engine.name}, which has machines of its own,")
    plan = make_plan(config)
    for note in plan.corpus.notes:
        print(f"note: {note}")
    if not nodes.lead:
        agreed, restarts = partial(_agreed, plan, ranks), config.max_restarts
        return assist(
            nodes, plan.features_dir, interruption, agreed, lambda folder: [_program(folder)], ranks, restarts
        )
    with (
        locked(plan.features_dir, patience(nodes)) as lock,
        company(nodes, plan.features_dir, interruption) as together,
    ):
        refuse_running(plan.features_dir)
        if plan.live and (came := plan.live.meet(array.place for array in plan.arrays)):
            print(came)
        if grown := grow(plan.features_dir, plan.corpus, plan.specs):
            print(f"note: {grown}")
        _clean(plan)
        prepare_stores(plan)
        write_atomic(plan.features_dir / "config.yaml", dump_config(config))
        reset = check_sources(plan)
        if plan.live:
            check_published(plan)
            plan.live.give_all()
        if reset:
            print(f"{reset} units are computed again: their media files changed, or clips are retried or encoded whole")
        missing = look_for_files(plan)
        if missing:
            print(f"note: {missing}")
        pending, decoded = pending_rows(plan), 0
        # Other nodes are here to help, and are told that there is nothing to do.
        if pending or nodes.count > 1 or any(map(plan.lacks_media, plan.units)):
            decoded = _launch(plan, interruption, ranks, lock, together)
            _clean(plan)
        work = Work(pending, decoded, time.monotonic() - start)
        code, said = _conclude(plan, interruption, work, together.why)
        together.conclude(code, said)
    print(said, file=sys.stderr if code else sys.stdout)
    return code


def _launch(plan: Plan, interruption: Interruption, ranks: int, lock: int, together: Company) -> int:
    """Run the ranks to their end; returns how many clips they decoded."""
    by_torchrun = plan.config.engine.name == "torchrun"
    folder = together.folder if by_torchrun else _engine_folder(plan)
    if not by_torchrun:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        folder = folder.resolve()
    write_plan(plan, folder / PLAN_FILE)
    if by_torchrun:
        together.meet(partial(_agreed, plan, ranks), share=partial(share, lock))
        together.run(_program(folder), ranks, plan.config.max_restarts, [lock])
    else:
        run_job(_job(plan, _program(folder), ranks, folder), interruption, [lock], plan.features_dir)
    if (folder / ERROR_FILE).exists():
        raise ValueError((folder / ERROR_FILE).read_text())
    return sum(counts.stat().st_size for counts in folder.glob("decodes-*"))


def _program(folder: Path) -> tuple[str, ...]:
    return "extract.run.rank", str(folder)


def _agreed(plan: Plan, ranks: int) -> dict[str, Any]:
    """What nodes compare: a plan is as long as the corpus, and its clips are told by a hash."""
    tree = TypeAdapter(Plan).dump_python(plan, mode="json", exclude={"corpus": {"clips"}, "arrays": True})
    clips = fingerprint([repr(clip) for clip in plan.corpus.clips])
    arrays = {f"{one.condition.name}/{one.spec.path}": one.spec.provenance for one in plan.arrays}
    return {"RANKS": ranks, **tree, "arrays": arrays, "clips": clips}


def _engine_folder(plan: Plan) -> Path:
    return Path(plan.config.engine.folder or plan.features_dir, ".engine")


def _job(plan: Plan, program: tuple[str, ...], ranks: int, folder: Path) -> Job:
    """Units dealt to tasks as to ranks: by number alone."""
    engine = plan.config.engine
    tasks = -(-len(plan.units) // engine.units_per_task)
    name = f"trifuse-{uuid.uuid4().hex[:8]}"
    return Job(program, tasks, min(ranks, tasks), plan.config.max_restarts, engine, folder, Path.cwd(), name)


def _clean(plan: Plan) -> None:
    """Remove temporary files of killed writers; the lock says that none is alive."""
    for store in plan.features_dir.glob("*.zarr"):
        remove_leftovers(store)
    for kept in needless_parts(plan.features_dir):
        forget_part(kept)
    for pattern in (".*.part*", "media/*/.*.part*"):
        for part in plan.features_dir.glob(pattern):
            part.unlink(missing_ok=True)


def _conclude(plan: Plan, interruption: Interruption, work: Work, why: str) -> tuple[int, str]:
    """The exit code, and what is said last; `why`: the ranks were ended early, if they were."""
    failed = failed_clips(plan)
    write_failures(plan, failed)
    if plan.live and not interruption.exit_code:
        plan.live.conclude()
    left = pending_rows(plan)
    if interruption.exit_code and left:
        return interruption.exit_code, f"interrupted with {left} of {work.rows} rows to go; the same command continues"
    print(summary(plan, failed))
    if left and why:
        return 1, f"error: {why}, with {left} rows to go; the same command on all nodes continues"
    if left:
        where = "above" if plan.config.engine.name == "torchrun" else _engine_folder(plan) / LOG_FILE
        return 1, f"error: the ranks died with {left} rows to go (see {where}); the same command continues"
    complete = f"features complete: {work}"
    clips = len({row.clip_id for row in failed})
    if clips > plan.config.max_failed:
        print(complete)
        return 3, f"error: {clips} clips failed, more than max_failed={plan.config.max_failed}"
    return 0, complete


if __name__ == "__main__":
    sys.exit(main(FeaturesConfig, run, "Stage one: features of every clip under every condition."))
