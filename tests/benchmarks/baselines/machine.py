"""What a table of ratios was measured on: they are other ones on another kind of processor."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.benchmarks.stopwatch import interleaved

SETS = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16")
SIZE, TIMES, STREAMED, ROUNDS = 1024, 4, 2**25, 3


@dataclass(frozen=True)
class Roofs:
    """What one thread of this machine can do: float32 products of large matrices, and a sum of two long arrays."""

    flops: float
    bytes_per_second: float

    @classmethod
    def measured(cls) -> Roofs:
        """Medians of three rounds, by processor time."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        left, right = torch.ones(2, SIZE, SIZE)
        streamed = [torch.ones(STREAMED) for _ in range(3)]
        times = interleaved(
            {
                "multiply": lambda: [torch.mm(left, right) for _ in range(TIMES)],
                "stream": lambda: torch.add(*streamed[:2], out=streamed[2]),
            },
            ROUNDS,
        )
        torch.set_num_threads(threads)
        return cls(TIMES * 2 * SIZE**3 / times["multiply"].cpu_seconds, 3 * 4 * STREAMED / times["stream"].cpu_seconds)


def machine(roofs: Roofs) -> str:
    """Model, cores, instruction sets and roofs, in a line."""
    able = torch.cpu.get_capabilities()
    sets = " ".join(name for name in SETS if able.get(name)) or "no AVX2"
    return (
        f"{_model()}, {os.cpu_count()} cores, {sets}, torch {torch.__version__}; one thread: "
        f"{roofs.flops / 1e9:.0f} GFLOP/s, {roofs.bytes_per_second / 1e9:.1f} GB/s"
    )


def _model() -> str:
    told = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = dict(line.replace("\t", "").split(":", 1) for line in reversed(told) if ":" in line)
    names = [facts[key].strip() for key in ("model name", "cpu family", "model") if key in facts]
    return f"{names[0]} (family {names[1]}, model {names[2]})" if len(names) == 3 else "unknown processor"
