"""End to end, `make finetune-e2e`: encoders and head trained together with DistributedDataParallel.

`run` checks, starts the ranks (`fuse.finetune.rank`) and reports.

Exit codes: 0 done; 1 the ranks died before the end; 2 bad input; 130 or 143 interrupted.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cache.files.atomic import write_atomic
from cache.files.hashes import sha256_of
from configs.command.entry import main
from configs.command.launch import Interruption, rank_count
from configs.loader import dump_config
from configs.schema.finetune import FinetuneConfig
from fuse.finetune.clips import ClipItem
from fuse.finetune.plan import FinetunePlan, plan_finetune
from fuse.finetune.rank import LOST_FILE
from fuse.finetune.training.state import RESUME, begin, in_words, last_position
from fuse.runs.caveats import RANDOM_NOTE, print_caveats
from fuse.runs.folder import (
    CHECKPOINT,
    FREE_TO_DIFFER,
    METRICS,
    STAGING,
    is_complete,
    refuse_no_tensorboard,
    refuse_other_run,
    replacing,
)

# Of ranks, after a signal: a step of a large model takes its time, and what was trained is written (see `rank`).
SECONDS_OF_GRACE = 25.0


def run(config: FinetuneConfig) -> int:
    """Fine-tune one run of stage two, write its run folder, print the score before and after."""
    interruption = Interruption(SECONDS_OF_GRACE)
    interruption.listen()
    ranks, plan = rank_count(), plan_finetune(config)
    for note in plan.notes:
        print(f"note: {note}")
    out = Path(config.output_dir)
    _check_output(out, plan)
    refuse_no_tensorboard(config.tensorboard)
    refuse_other_run(out, dump_config(plan.config), config.overwrite)
    resume = out / STAGING / RESUME
    begin(resume, settings_of(plan, ranks), config.overwrite)
    if position := last_position(resume):
        print(f"continues the interrupted fine-tune at {in_words(position)}")
    with replacing(out, RESUME) as staging:
        try:
            lost = _launch(plan, interruption, ranks)
        finally:
            if last_position(resume) is None:
                shutil.rmtree(resume, ignore_errors=True)
        done = is_complete(staging)
    if done:
        _report(out, plan)
        return 0
    if interruption.exit_code:
        print(f"interrupted: {_how_to_go_on(resume)}", file=sys.stderr)
        return interruption.exit_code
    print(f"error: {lost or 'the ranks died before the end (see above)'}; {_how_to_go_on(resume)}", file=sys.stderr)
    return 1


def _how_to_go_on(resume: Path) -> str:
    position = last_position(resume)
    kept = f"continues at {in_words(position)}" if position else "starts the fine-tune again"
    return f"the same command {kept}"


def settings_of(plan: FinetunePlan, ranks: int) -> dict[str, Any]:
    """Everything that the outcome of a training depends on, but for the order of sums."""
    config = {
        key: value for key, value in yaml.safe_load(dump_config(plan.config)).items() if key not in FREE_TO_DIFFER
    }
    optim = config.pop("optim")
    a_step = optim.pop("batch_size") * optim.pop("accumulate") * ranks
    return {
        **config,
        "optim": optim,
        "clips of a step (optim.batch_size x optim.accumulate x RANKS)": a_step,
        "checkpoint of init": sha256_of(plan.start.folder / CHECKPOINT),
        "weights of the encoders": {name: model.weights_sha256 for name, model in plan.models.items()},
        "clips": {part: _fingerprint(items) for part, items in plan.parts.items()},
    }


def _fingerprint(items: Sequence[ClipItem]) -> str:
    rows = [[one.clip.clip_id, one.label, one.transcript, sorted(one.present)] for one in items]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _check_output(out: Path, plan: FinetunePlan) -> None:
    if out.resolve() == plan.start.folder.resolve():
        raise ValueError(f"output_dir={out} is the run it starts from; set another output_dir")
    if any(out.glob("fold-*/seed-*")):
        raise ValueError(f"output_dir={out} holds runs of stage two (fold-*/seed-*); set another output_dir")


def _launch(plan: FinetunePlan, interruption: Interruption, ranks: int) -> str:
    """Run the ranks to their end; returns why they lost one another, if they did."""
    with tempfile.TemporaryDirectory() as folder:
        config_file, error_file = Path(folder, "config.yaml"), Path(folder, "error.txt")
        write_atomic(config_file, dump_config(plan.config))
        # No restarts: ranks that train together die together, and what is kept is for the next start.
        lost_file = error_file.with_name(LOST_FILE)
        command = ["fuse.finetune.rank", str(config_file), str(error_file)]
        interruption.torchrun(command, ranks, max_restarts=0)
        if error_file.exists():
            raise ValueError(error_file.read_text())
        return lost_file.read_text() if lost_file.exists() else ""


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
