"""End to end, `make finetune-e2e`: encoders and head trained together with DistributedDataParallel.

`run` checks, starts the ranks (`fuse.finetune.launch`) and reports.

Exit codes: 0 done; 1 the ranks died before the end; 2 bad input; 130 or 143 interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from configs.command.entry import main
from configs.command.launch import Interruption, rank_count
from configs.command.nodes.settings import these_nodes
from configs.schema.finetune import FinetuneConfig
from fuse.finetune.launch import SECONDS_OF_GRACE, fine_tune, help_fine_tune, how_to_go_on
from fuse.finetune.plan import FinetunePlan, plan_finetune
from fuse.finetune.rank import evaluated
from fuse.runs.caveats import RANDOM_NOTE, print_caveats
from fuse.runs.folder import METRICS


def run(config: FinetuneConfig) -> int:
    """Fine-tune one run of stage two, write its run folder, print the score before and after."""
    interruption = Interruption(SECONDS_OF_GRACE)
    interruption.listen()
    ranks, nodes, plan = rank_count(), these_nodes(), plan_finetune(config)
    for note in plan.notes:
        print(f"note: {note}")
    if not nodes.lead:
        return help_fine_tune(plan, interruption, ranks, nodes)
    ended, out = fine_tune(plan, interruption, ranks, nodes), Path(config.output_dir)
    if ended.done:
        _report(out, plan)
        return 0
    if interruption.exit_code:
        print(f"interrupted: {how_to_go_on(out)}", file=sys.stderr)
        return interruption.exit_code
    print(f"error: {ended.lost}; {how_to_go_on(out)}", file=sys.stderr)
    return 1


def _report(out: Path, plan: FinetunePlan) -> None:
    metrics = json.loads((out / METRICS).read_text())
    scores = {"before": metrics["before"], "after": metrics}
    for when, one in scores.items():
        parts = [f"{split} UAR {one[split]['uar']:.3f} ({one[split]['clips']} clips)" for split in evaluated(plan)]
        print(f"{when:7} {'  '.join(parts)}")
    if metrics["best_epoch"] == 0:
        print("no epoch did better on validation than the start: the weights before fine-tuning are kept")
    else:
        print(f"best epoch by validation UAR: {metrics['best_epoch']} of {plan.config.optim.epochs}")
    print_caveats(out, plan.left_out, RANDOM_NOTE if plan.random_weights else "")


if __name__ == "__main__":
    sys.exit(main(FinetuneConfig, run, "End to end: fine-tune encoders and head together."))
