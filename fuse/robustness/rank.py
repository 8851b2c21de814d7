"""One rank of a table: its share of a fine-tuned run's clips, encoded under every condition."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from safetensors.numpy import save_file

from cache.files.atomic import revealed
from configs.command.entry import rank_main
from configs.loader import load_config
from configs.schema.studies import TunedRowsConfig
from extract.encoders.loading import rank_device
from fuse.finetune.training.stepper import World
from fuse.robustness.tuned import asked_for, rows_file
from fuse.runs.folder import CONFIG


def work(folder: Path, rank: int, ranks: int) -> None:
    """Encode, and leave a file per condition and part."""
    # Tokenizers warn of every loader process that is forked after they were used.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    world = World(rank, ranks, rank_device())
    tuned, plans = asked_for(load_config(TunedRowsConfig, folder / CONFIG))
    for number, rows in enumerate(tuned.encode(plans, world)):
        with revealed(folder / rows_file(world.rank, number)) as part:
            save_file(rows, part)


if __name__ == "__main__":
    sys.exit(rank_main(work))
