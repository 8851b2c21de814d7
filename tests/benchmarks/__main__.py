"""`make bench`: run every benchmark, or those that are named, and print what was measured."""

from __future__ import annotations

import argparse
import tempfile
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

BENCHMARKS = {
    "decoding": bench_decoding.run,
    "extraction": bench_extraction.run,
    "stores": bench_stores.run,
    "runs": bench_runs.run,
    "heads": bench_heads.run,
    "asr": bench_asr.run,
    "finetune": bench_finetune.run,
}


def main() -> None:
    """Run in a temporary folder that is gone afterwards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"any of {', '.join(BENCHMARKS)}; default: all")
    names = parser.parse_args().names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]}; there are: {', '.join(BENCHMARKS)}")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            print(f"[{name}]", flush=True)
            for line in BENCHMARKS[name](Path(folder)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
