"""The life of a large corpus step by step, each in a process of its own: its memory is that of the step alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

from cache.care.garbage import collect
from cache.care.repair import repair
from cache.care.verify import verify
from cache.corpus.clips import read_corpus
from cache.features import layout
from extract.__main__ import run as run_features
from extract.run.plan import PLAN_FILE, make_plan, prepare_stores, read_plan, write_plan
from tests.benchmarks.scale.stub import fill, stub_config, write_stub_corpus
from tests.tiny.places import ROOT

FEATURES = "features"


@dataclass(frozen=True)
class Site:
    """A corpus of so many clips, in a folder; arrays of more chunks than `most_chunks` are sharded."""

    folder: Path
    clips: int
    most_chunks: int = layout.MOST_CHUNKS


@dataclass(frozen=True)
class Measured:
    """What a step took and what it counted; memory is the peak of its process, imports included.

    Processor time is what remains comparable on a machine that does other things too.
    """

    seconds: float
    processor_seconds: float
    peak_mib: float
    counted: int


def measured(site: Site, step: str) -> Measured:
    """Run a step in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RANKS": "1"}
    command = [sys.executable, "-m", "tests.benchmarks.scale.steps", step, str(site.folder)]
    command += [str(site.clips), str(site.most_chunks)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _nothing(_: Site) -> int:
    return 0


def _write(site: Site) -> int:
    write_stub_corpus(site.folder, site.clips)
    return site.clips


def _read(site: Site) -> int:
    return len(read_corpus(site.folder / "metadata.csv").clips)


def _write_parquet(site: Site) -> int:
    write_stub_corpus(site.folder, site.clips, "metadata.parquet")
    return site.clips


def _read_parquet(site: Site) -> int:
    return len(read_corpus(site.folder / "metadata.parquet").clips)


def _write_encoders(site: Site) -> int:
    # Here and below: torch alone takes more memory than all steps that do without it.
    from tests.benchmarks.scale.encoders import write_stub_encoders

    write_stub_encoders(site.folder / "encoders")
    return 3


def _plan(site: Site) -> int:
    plan = make_plan(stub_config(site.folder, site.folder / "encoders"))
    prepare_stores(plan)
    write_plan(plan, site.folder / PLAN_FILE)
    return len(plan.units)


def _open(site: Site) -> int:
    plan = read_plan(site.folder / PLAN_FILE)
    return sum(bool(plan.pending(unit)) for unit in plan.units)


def _fill_half(site: Site) -> int:
    plan = read_plan(site.folder / PLAN_FILE)
    return fill(plan, plan.units[::2])


def _resume(site: Site) -> int:
    plan = read_plan(site.folder / PLAN_FILE)
    return fill(plan, plan.units)


def _rerun(site: Site) -> int:
    with redirect_stdout(sys.stderr):
        return run_features(stub_config(site.folder, site.folder / "encoders"))


def _verify(site: Site) -> int:
    return len(verify(site.folder / FEATURES).damage)


def _damage(site: Site) -> int:
    # In the middle of what verify goes through; a clip is some hundred bytes of it.
    file = sorted((site.folder / FEATURES).glob("noise-*.zarr/audio/*/hidden/c/*/0/0"))[-1]
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    return 1


def _repair(site: Site) -> int:
    return sum("units are pending again" in line for line in repair(site.folder / FEATURES))


def _gc(site: Site) -> int:
    return len(collect(site.folder / FEATURES, delete=False))


def _train(site: Site) -> int:
    from configs.loader import check
    from configs.schema.fusion import FusionConfig
    from fuse.train import run as train_fusion

    tree = {
        "corpus": str(site.folder / "metadata.csv"),
        "features_dir": str(site.folder / FEATURES),
        "output_dir": str(site.folder / "fusion"),
        "layers": "last",
        "head": "lda",
    }
    with redirect_stdout(sys.stderr):
        return train_fusion(check(FusionConfig, tree, "the stub's"))


STEPS: dict[str, Callable[[Site], int]] = {
    "imports alone": _nothing,
    "write the encoders": _write_encoders,
    "write the manifest": _write,
    "read the manifest": _read,
    "write it as Parquet": _write_parquet,
    "read it as Parquet": _read_parquet,
    "plan, and make the stores": _plan,
    "write half of the units": _fill_half,
    "open as a rank does": _open,
    "resume: write the others": _resume,
    "rerun with nothing to do": _rerun,
    "verify": _verify,
    "flip one bit": _damage,
    "verify: find that unit": _verify,
    "repair it": _repair,
    "compute it again": _resume,
    "gc": _gc,
    "train lda on all clips": _train,
}


def main() -> None:
    """Run one step here: its name, the folder, the number of clips and the most chunks without shards."""
    step, folder, clips, most_chunks = sys.argv[1:]
    layout.MOST_CHUNKS = int(most_chunks)
    start, processor_start = time.perf_counter(), sum(os.times()[:4])
    counted = STEPS[step](Site(Path(folder), int(clips), int(most_chunks)))
    seconds = time.perf_counter() - start
    processor_seconds = sum(os.times()[:4]) - processor_start
    # Not getrusage: its maximum is inherited from the process that started this one.
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps(asdict(Measured(seconds, processor_seconds, peak, counted))))


if __name__ == "__main__":
    main()
