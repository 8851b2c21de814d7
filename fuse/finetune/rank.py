"""One rank of a fine-tune, started by torchrun: load, train with the others, and on rank 0 write the run."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cache.files.atomic import write_atomic
from configs.command.progress import Progress
from configs.command.stop import Stopped, StopRequest
from configs.loader import dump_config, load_config
from configs.schema.finetune import FinetuneConfig
from extract.encoders.loading import rank_device
from fuse.finetune.export import export
from fuse.finetune.inputs.batches import Loaders
from fuse.finetune.load import clips_of, load
from fuse.finetune.network import EndToEndModel
from fuse.finetune.plan import FinetunePlan, plan_finetune
from fuse.finetune.training.loop import START, Diverged, Logits, Training, Watch, evaluate
from fuse.finetune.training.rows import is_fitted, refit
from fuse.finetune.training.state import RESUME, Keeper
from fuse.finetune.training.stepper import World
from fuse.runs.caveats import RANDOM_NOTE, run_in_words
from fuse.runs.checkpoint import Checkpoint
from fuse.runs.folder import EXPORT, STAGING, write_run
from fuse.runs.training_figure import RunHistory
from fuse.scores.metrics import summarise
from fuse.scores.predictions import Predictions, concatenate
from fuse.stack.job import History

EVALUATED = ("validation", "test")
# Beside the file of user errors: that ranks have lost one another is none.
LOST_FILE = "lost.txt"
# Beside it too: the epoch in which the training diverged, from 0.
DIVERGED_FILE = "diverged.txt"
SECONDS_FOR_THE_CAUSE = 2.0
MEMORY = (
    "out of GPU memory; set gradient_checkpointing=true, or half of optim.batch_size and twice optim.accumulate, "
    "which give the same steps; or let less learn: unfreeze=<last blocks>, lora"
)
# After a signal, for the step at hand and for writing; torchrun waits for thirty.
SECONDS_TO_KEEP = 20


def finetune(plan: FinetunePlan, model: EndToEndModel, loaders: Loaders, world: World, stop: StopRequest) -> None:
    """Score, train, score again, from where an interrupted training stopped; rank 0 writes the run folder."""
    train, *held_out = (clips_of(plan, part) for part in ("train", *evaluated(plan)))
    keeper = keeper_of(plan)
    state = keeper.load()
    own = [-(-len(clips) // world.size) for clips in (train, *held_out)]
    epochs = plan.config.optim.epochs - (state.epoch if state else 0)
    total = epochs * (own[0] + own[1]) + (1 if state else 2) * sum(own[2:]) + (0 if state else own[1])
    with ExitStack() as stack:
        for clips in (train, *held_out):
            stack.callback(clips.close)
        title = f"fine-tuning, rank 0 of {world.size}"
        watch = Watch(stop, stack.enter_context(Progress(title, total, "clips", shown=world.rank == 0)))
        if state:
            before = [logits.numpy() for logits in state.before]
        else:
            before = [evaluate(model, clips, loaders, world, watch) for clips in held_out]
        training = Training(model, train, held_out[0], loaders, plan.config.optim, world, watch, keeper)
        history, best = training.run(before, state)
        model.merge_adapters()
        if is_fitted(model) and history.best_epoch != START:
            refit(model, loaders, train, held_out[0], plan.config.augment, world)
            best = evaluate(model, held_out[0], loaders, world, watch)
        after = [best, *(evaluate(model, clips, loaders, world, watch) for clips in held_out[1:])]
    if world.rank == 0:
        # torchrun waits 30 s after its own SIGTERM: a run that is done is written, not lost.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.alarm(0)
        write(plan, model, history, before, after)


def evaluated(plan: FinetunePlan) -> tuple[str, ...]:
    """The parts that are scored."""
    return EVALUATED if plan.config.test else EVALUATED[:1]


def keeper_of(plan: FinetunePlan) -> Keeper:
    """Of the training's state, beside the run that is being made."""
    return Keeper(Path(plan.config.output_dir, STAGING, RESUME), plan.config.checkpoint_minutes)


def write(
    plan: FinetunePlan, model: EndToEndModel, history: History, before: Sequence[Logits], after: Sequence[Logits]
) -> dict[str, Any]:
    """The run folder; returns what metrics.json holds. `before`, `after`: logits of the parts that are scored."""
    splits = evaluated(plan)
    parts = [predictions_of(plan, split, logits) for split, logits in zip(splits, after, strict=True)]
    first = {split: summarise(predictions_of(plan, split, one)) for split, one in zip(splits, before, strict=True)}
    scores = {"before": first, "after": {split: summarise(part) for split, part in zip(splits, parts, strict=True)}}
    if plan.config.export:
        export(plan, model, scores, Path(plan.config.output_dir, STAGING, EXPORT))
    curves = RunHistory(plan.start.fold.number, plan.seed, history, start_uar=first["validation"]["uar"])
    return write_run(
        Path(plan.config.output_dir, STAGING),
        config_yaml=dump_config(plan.config),
        predictions=concatenate(parts),
        shown=splits[-1],
        history=[curves],
        checkpoint=checkpoint_of(plan, model),
        extra={
            "before": first,
            "best_epoch": history.best_epoch + 1,
            "init": str(plan.start.folder),
            "left_out": list(plan.left_out),
        },
        note=RANDOM_NOTE if plan.random_weights else "",
        caption=f"{_caption(plan)}, end to end",
        tensorboard=plan.config.tensorboard,
    )


def _caption(plan: FinetunePlan) -> str:
    kept = plan.start.checkpoint.settings
    return run_in_words(plan.config.output_dir, kept.head, kept.widths, plan.config.condition)


def predictions_of(plan: FinetunePlan, split: str, logits_NC: Logits) -> Predictions:
    """One split's predictions."""
    items = plan.parts[split]
    assert plan.config.protocol is not None
    return Predictions.of(
        [item.clip.clip_id for item in items],
        [item.clip.speaker for item in items],
        [item.clip.sex for item in items],
        clips_of(plan, split).labels,
        torch.from_numpy(logits_NC).double().softmax(1).numpy(),
        protocol=plan.config.protocol,
        fold=plan.start.fold.number,
        seed=plan.seed,
        split=split,
        condition=plan.config.condition.name,
        modalities="+".join(plan.models),
        label_names=plan.label_names,
    )


def checkpoint_of(plan: FinetunePlan, model: EndToEndModel) -> Checkpoint:
    """As stage two's, and the encoders' weights by modality."""
    networks = {
        name: {key: value.cpu() for key, value in network.state_dict().items()}
        for name, network in model.networks.items()
    }
    return replace(
        plan.start.checkpoint,
        state={name: value.cpu() for name, value in model.fusion.state_dict().items()},
        condition=plan.config.condition.name,
        seed=plan.seed,
        familiarity={},
        networks=networks,
        audio_seconds=plan.config.audio_seconds,
    )


@contextmanager
def process_group(world: World, hang_seconds: float) -> Iterator[World]:
    """Join the other ranks, by nccl where each rank has a GPU of its own, else by gloo; yields this rank among them.

    Encoders are loaded at different speeds, so that joining takes its time; after that, who keeps the others waiting
    for `hang_seconds` hangs.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    own_gpu = world.device.type == "cuda" and torch.cuda.device_count() >= local
    if own_gpu:
        torch.cuda.set_device(world.device)
    dist.init_process_group("nccl" if own_gpu else "gloo", device_id=world.device if own_gpu else None)
    try:
        yield replace(world, group=dist.new_group(timeout=timedelta(seconds=hang_seconds)))
    except RuntimeError:
        raise  # leaving a group waits for its other ranks, and one of them may be what was waited for in vain
    except BaseException:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def main(arguments: Sequence[str] | None = None) -> int:
    """Read torchrun's environment and work. User errors go to a file: torchrun cannot pass on exit codes."""
    config_file, error_file = map(Path, sys.argv[1:] if arguments is None else arguments)
    stop, world = StopRequest(), World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), rank_device())
    # Tokenizers warn of every loader process that is forked after they were used.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        plan = plan_finetune(load_config(FinetuneConfig, config_file))
        torch.set_num_threads(plan.config.threads)
        torch.backends.cudnn.deterministic = True
        model, loaders = load(plan, world.device)
        # From here on a signal is waited for: what was trained is kept first.
        stop.listen(SECONDS_TO_KEEP)
    except (ValueError, OSError) as error:
        write_atomic(error_file, str(error))  # every rank comes to the same end by itself
        return 0
    except torch.OutOfMemoryError as error:
        return _conclude(error, error_file)  # others may have the room, and would wait for this one
    try:
        with process_group(world, plan.config.hang_seconds) as joined:
            finetune(plan, model, loaders, joined, stop)
    except (Stopped, Diverged, ValueError, OSError, torch.OutOfMemoryError) as error:
        if isinstance(error, Diverged) and world.rank == 0:
            keeper_of(plan).forget()  # to go on with it would lead to the same end
        return _conclude(error, error_file)
    except RuntimeError as error:
        reason, told_to_stop = _lost(error, world), stop.received
        if not reason:
            raise
        # Whoever knows better, because it met the fault itself, says so at once.
        time.sleep(SECONDS_FOR_THE_CAUSE)
        if not told_to_stop and not error_file.exists():
            write_atomic(error_file.with_name(LOST_FILE), reason)
        _end_the_others()
        os._exit(1)  # an orderly end would wait for them too
    return 0


def _end_the_others() -> None:
    """Kill the other ranks on this machine (Linux only): torchrun would ask one that hangs, and wait for 30 s."""
    parent = os.getppid()
    children = Path(f"/proc/{parent}/task/{parent}/children")
    for pid in map(int, children.read_text().split()) if children.exists() else ():
        if pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _lost(error: RuntimeError, world: World) -> str:
    """What a rank says that waits for others in vain, or for clips; "" where it is neither."""
    said = str(error).partition("\n")[0]
    if "DataLoader worker" in said:
        return f"a process of rank {world.rank} that reads clips died or hangs ({said}); lower loader_workers"
    if isinstance(error, dist.DistError) or "gloo" in said.lower() or "nccl" in said.lower():
        return f"rank {world.rank} waits for the others in vain: one of them died or hangs ({said[-160:]})"
    return ""


def _conclude(error: Exception, error_file: Path) -> int:
    """What one rank alone has met must end the others too: torchrun stops them when one returns 1."""
    if isinstance(error, Stopped):
        return 0
    if isinstance(error, Diverged):
        write_atomic(error_file.with_name(DIVERGED_FILE), str(error.epoch))
    write_atomic(error_file, MEMORY if isinstance(error, torch.OutOfMemoryError) else str(error))
    return 0 if isinstance(error, Diverged) else 1


if __name__ == "__main__":
    sys.exit(main())
