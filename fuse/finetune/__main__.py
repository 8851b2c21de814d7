"""End to end, `make finetune-e2e`: encoders and head trained together with DistributedDataParallel.

`run` checks, starts the ranks (`fuse.finetune.rank`) and reports.

Exit codes: 0 done; 1 the ranks died before the end; 2 bad input; 130 or 143 interrupted.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from cache.files.atomic import write_atomic
from configs.command.entry import main
from configs.command.launch import Interruption, rank_count
from configs.loader import dump_config
from configs.schema.finetune import FinetuneConfig
from fuse.finetune.plan import FinetunePlan, plan_finetune
from fuse.runs.caveats import RANDOM_NOTE, print_caveats
from fuse.runs.folder import METRICS, is_complete, refuse_other_run, replacing


def run(config: FinetuneConfig) -> int:
    """Fine-tune one run of stage two, write its run folder, print the score before and after."""
    interruption = Interruption()
    interruption.listen()
    ranks, plan = rank_count(), plan_finetune(config)
    for note in plan.notes:
        print(f"note: {note}")
    out = Path(config.output_dir)
    _check_output(out, plan)
    refuse_other_run(out, dump_config(plan.config), config.overwrite)
    with replacing(out) as staging:
        _launch(plan, interruption, ranks)
        done = is_complete(staging)
    if done:
        _report(out, plan)
        return 0
    if interruption.exit_code:
        kept = "what was there before stays" if is_complete(out) else "nothing is kept of it"
        print(f"interrupted: {kept}; the same command starts the fine-tune again", file=sys.stderr)
        return interruption.exit_code
    print("error: the ranks died before the end (see above)", file=sys.stderr)
    return 1


def _check_output(out: Path, plan: FinetunePlan) -> None:
    if out.resolve() == plan.start.folder.resolve():
        raise ValueError(f"output_dir={out} is the run it starts from; set another output_dir")
    if any(out.glob("fold-*/seed-*")):
        raise ValueError(f"output_dir={out} holds runs of stage two (fold-*/seed-*); set another output_dir")


def _launch(plan: FinetunePlan, interruption: Interruption, ranks: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config_file, error_file = Path(folder, "config.yaml"), Path(folder, "error.txt")
        write_atomic(config_file, dump_config(plan.config))
        # No restarts: ranks that train together die together, and nothing is kept of a part.
        interruption.torchrun(["fuse.finetune.rank", str(config_file), str(error_file)], ranks, max_restarts=0)
        if error_file.exists():
            raise ValueError(error_file.read_text())


def _report(out: Path, plan: FinetunePlan) -> None:
    metrics = json.loads((out / METRICS).read_text())
    scores = {"before": metrics["before"], "after": metrics}
    for when, one in scores.items():
        parts = [
            f"{split} UAR {one[split]['uar']:.3f} ({one[split]['clips']} clips)" for split in ("validation", "test")
        ]
        print(f"{when:7} {'  '.join(parts)}")
    if metrics["best_epoch"] == 0:
        print("no epoch did better on validation than the start: the weights before fine-tuning are kept")
    else:
        print(f"best epoch by validation UAR: {metrics['best_epoch']} of {plan.config.optim.epochs}")
    print_caveats(out, plan.left_out, RANDOM_NOTE if plan.random_weights else "")


if __name__ == "__main__":
    sys.exit(main(FinetuneConfig, run, "End to end: fine-tune encoders and head together."))
