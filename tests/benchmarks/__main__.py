"""`make bench`: run every benchmark, or those that are named, and print what was measured."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from tests.benchmarks import (
    bench_asr,
    bench_decoding,
    bench_extraction,
    bench_finetune,
    bench_heads,
    bench_runs,
    bench_stores,
)
from tests.benchmarks.baselines.machine import Roofs, machine
from tests.benchmarks.scale import report as scale

Benchmark = Callable[[Path], Iterable[str]]
BENCHMARKS: dict[str, Benchmark] = {
    "decoding": bench_decoding.run,
    "extraction": bench_extraction.run,
    "stores": bench_stores.run,
    "runs": bench_runs.run,
    "heads": bench_heads.run,
    "asr": bench_asr.run,
    "finetune": bench_finetune.run,
    "scale": scale.run,
}


def main() -> None:
    """Run in a temporary folder that is gone afterwards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"any of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--clips", type=int, default=scale.CLIPS, help="how many clips `scale` has")
    options = parser.parse_args()
    names = options.names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]}; there are: {', '.join(BENCHMARKS)}")
    benchmarks: dict[str, Benchmark] = {**BENCHMARKS, "scale": partial(scale.run, clips=options.clips)}
    about = machine(Roofs.measured())
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            print(f"[{name}] on {about}", flush=True)
            for line in benchmarks[name](Path(folder)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
