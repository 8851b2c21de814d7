"""A fine-tune from the launcher's side: its folder is locked and checked, ranks are started, the run takes its place.

One at a time in a folder: what two of them kept there to go on with would be of neither.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from cache.files.atomic import write_atomic
from cache.files.hashes import sha256_of
from cache.files.lock import locked, share
from configs.command.launch import ERROR_FILE, Interruption
from configs.command.nodes.company import Company, assist, company, patience
from configs.command.nodes.settings import ONE_NODE, Nodes
from configs.loader import dump_config
from fuse.finetune.inputs.clips import ClipItem
from fuse.finetune.plan import FinetunePlan
from fuse.finetune.rank import DIVERGED_FILE, LOST_FILE
from fuse.finetune.training.loop import Diverged
from fuse.finetune.training.state import RESUME, begin, in_words, last_position
from fuse.runs.folder import (
    CHECKPOINT,
    CONFIG,
    FREE_TO_DIFFER,
    STAGING,
    is_complete,
    refuse_no_tensorboard,
    refuse_other_run,
    replacing,
)

# Of ranks, after a signal: a step of a large model takes its time, and what was trained is written (see `rank`).
SECONDS_OF_GRACE = 25.0


@dataclass(frozen=True)
class Ended:
    """How a fine-tune ended: with a whole run folder, or with what the ranks died of."""

    done: bool
    lost: str


def fine_tune(plan: FinetunePlan, interruption: Interruption, ranks: int, nodes: Nodes = ONE_NODE) -> Ended:
    """Fine-tune one run of stage two, from where an earlier start of the same was interrupted; writes its run folder.

    Args:
        plan: of the run.
        interruption: of the command.
        ranks: how many, on each node.
        nodes: of which this is the first.

    Raises:
        Diverged: its loss is not finite.
        ValueError: one line: its folder is another's, or what a rank has met.
    """
    out = Path(plan.config.output_dir)
    _check_output(out, plan)
    refuse_no_tensorboard(plan.config.tensorboard)
    with (
        locked(out, patience(nodes), key="output_dir") as lock,
        company(nodes, out, interruption) as together,
    ):
        refuse_other_run(out, dump_config(plan.config), plan.config.overwrite)
        resume = out / STAGING / RESUME
        begin(resume, settings_of(plan, ranks * nodes.count), plan.config.overwrite)
        if position := last_position(resume):
            print(f"continues the interrupted fine-tune at {in_words(position)}")
        with replacing(out, RESUME) as staging:
            try:
                lost = _launch(plan, interruption, ranks, lock, together)
            finally:
                if last_position(resume) is None:
                    shutil.rmtree(resume, ignore_errors=True)
            done = is_complete(staging)
        told = "node 0 was told to stop" if interruption.exit_code else ""
        ended = Ended(done, lost or told or "the ranks died before the end (see above)")
        said = f"the run is written: {out}" if done else f"error: {ended.lost}; {how_to_go_on(out)}"
        together.conclude(0 if done else interruption.exit_code or 1, said)
    return ended


def help_fine_tune(plan: FinetunePlan, interruption: Interruption, ranks: int, nodes: Nodes) -> int:
    """Be another node than the first of a fine-tune; returns the exit code.

    Raises:
        ValueError: this node would do something else, or node 0 has ended.
    """
    return assist(
        nodes,
        Path(plan.config.output_dir),
        interruption,
        partial(_agreed, plan, ranks, nodes),
        lambda folder: [_program(folder)],
        ranks,
        key="output_dir",
    )


def how_to_go_on(out: Path) -> str:
    """What the same command will do, in words, after a fine-tune that did not come to its end."""
    position = last_position(out / STAGING / RESUME)
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


def _launch(plan: FinetunePlan, interruption: Interruption, ranks: int, lock: int, together: Company) -> str:
    """Run the ranks to their end; returns why they lost one another, if they did."""
    if interruption.exit_code:
        return ""
    folder = together.folder
    error_file, lost_file, diverged_file = (folder / name for name in (ERROR_FILE, LOST_FILE, DIVERGED_FILE))
    write_atomic(folder / CONFIG, dump_config(plan.config))
    together.meet(partial(_agreed, plan, ranks, together.nodes), partial(share, lock))
    # No restarts: ranks that train together die together, and what is kept is for the next start.
    together.run(_program(folder), ranks, max_restarts=0, keep_open=[lock])
    if diverged_file.exists():
        raise Diverged(error_file.read_text(), int(diverged_file.read_text()))
    if error_file.exists():
        raise ValueError(error_file.read_text())
    return lost_file.read_text() if lost_file.exists() else together.why


def _program(folder: Path) -> tuple[str, ...]:
    return "fuse.finetune.rank", str(folder / CONFIG), str(folder / ERROR_FILE)


def _agreed(plan: FinetunePlan, ranks: int, nodes: Nodes) -> dict[str, Any]:
    """What nodes compare before they train together."""
    libraries = {name: version(name) for name in ("torch", "transformers", "numpy")}
    gpus = torch.cuda.device_count()
    device = "a GPU for each rank" if gpus >= ranks else "GPUs that ranks share" if gpus else "no GPU"
    return {"RANKS": ranks, "device": device, "libraries": libraries, **settings_of(plan, ranks * nodes.count)}
