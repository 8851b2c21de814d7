"""One rank of a table: its share of a fine-tuned run's test clips, encoded under every condition."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors.numpy import save_file

from cache.files.atomic import revealed, write_atomic
from configs.loader import load_config
from configs.schema.studies import RobustnessConfig
from extract.encoders.loading import rank_device
from fuse.finetune.training.stepper import World
from fuse.robustness.tuned import TunedEncoders, rows_file
from fuse.runs.checkpoint import read_checkpoint
from fuse.runs.folder import CHECKPOINT, CONFIG


def work(folder: Path, world: World) -> None:
    """Encode, and leave a file per condition."""
    config = load_config(RobustnessConfig, folder / CONFIG)
    leaf = Path(config.runs[0])
    tuned = TunedEncoders.of(leaf, read_checkpoint(leaf / CHECKPOINT), config.corpus, config.features_dir)
    for number, rows in enumerate(tuned.share(config.conditions or (), world)):
        with revealed(folder / rows_file(world.rank, number)) as part:
            save_file(rows, part)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read torchrun's environment and work. User errors go to a file: torchrun cannot pass on exit codes."""
    folder, error_file = map(Path, sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        work(folder, World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), rank_device()))
    except (ValueError, OSError) as error:
        write_atomic(error_file, str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
