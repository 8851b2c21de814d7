"""One rank of a table: its share of a fine-tuned run's test clips, encoded under every condition."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from safetensors.numpy import save_file

from cache.files.atomic import revealed
from configs.command.entry import rank_main
from configs.loader import load_config
from configs.schema.studies import RobustnessConfig
from extract.encoders.loading import rank_device
from fuse.finetune.training.stepper import World
from fuse.robustness.tuned import TunedEncoders, rows_file
from fuse.runs.checkpoint import read_checkpoint
from fuse.runs.folder import CHECKPOINT, CONFIG


def work(folder: Path, rank: int, ranks: int) -> None:
    """Encode, and leave a file per condition."""
    # Tokenizers warn of every loader process that is forked after they were used.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    world = World(rank, ranks, rank_device())
    config = load_config(RobustnessConfig, folder / CONFIG)
    leaf = Path(config.runs[0])
    tuned = TunedEncoders.of(leaf, read_checkpoint(leaf / CHECKPOINT), config.corpus, config.features_dir)
    for number, rows in enumerate(tuned.share(config.conditions or (), world)):
        with revealed(folder / rows_file(world.rank, number)) as part:
            save_file(rows, part)


if __name__ == "__main__":
    sys.exit(rank_main(work))
