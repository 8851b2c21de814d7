"""Stage two, `make train-fusion`: heads on cached features, one run per fold and seed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cache.features.table import FeatureTable
from cache.protocols.leakage import refuse_leaks, refuse_tuned_on
from configs.command.entry import main
from configs.command.progress import Progress
from configs.loader import dump_config
from configs.schema.fusion import FusionConfig
from configs.schema.protocols import load_protocol
from fuse.runs.caveats import caveats, print_caveats
from fuse.runs.folder import refuse_no_tensorboard, refuse_other_run, replacing
from fuse.runs.tables import corpus_of, load_tables, print_notes, recorded, tuned_on, with_protocol
from fuse.runs.training import train_all, write_runs


def run(config: FusionConfig) -> int:
    """Train every fold and seed, write the run folders, print the scores."""
    torch.set_num_threads(config.threads)
    out = Path(config.output_dir)
    corpus = corpus_of(config)
    print_notes(corpus)
    config = with_protocol(config, corpus)
    refuse_no_tensorboard(config.tensorboard)
    refuse_other_run(out, dump_config(config), config.overwrite)
    protocol = load_protocol(config.protocol)
    tables = load_tables(config, corpus)
    folds = protocol.folds(tables.main.clips)
    refuse_tuned_on(folds, tuned_on(tables.main))
    for line in refuse_leaks(folds, tables.main.clips, recorded(config, tables.main.clips)):
        print(f"note: {line}")
    with Progress("fusion", len(folds) * len(config.seeds), "runs") as progress:
        runs = train_all(config, tables, folds, progress)
    with replacing(out) as staging:
        metrics = write_runs(config, tables.main, runs, staging)
    _report(out, tables.main, metrics, caveats(config, tables.main))
    return 0


def _report(out: Path, table: FeatureTable, metrics: Mapping[str, Any], note: str) -> None:
    for split in ("validation", "test"):
        scores = metrics[split]
        print(
            f"{split:10} UAR {scores['uar']:.3f}  accuracy {scores['accuracy']:.3f}  "
            f"({scores['clips']} clips, {scores['speakers']} speakers)"
        )
    print_caveats(out, table.left_out, note)


if __name__ == "__main__":
    sys.exit(main(FusionConfig, run, "Stage two: train fusion heads on cached features."))
