"""One rank of stage one: decode, corrupt, transcribe and encode the units it owns.

Started by torchrun, once per rank. Ranks share nothing but the stores and never talk to each other:
there is no gradient, hence no process group.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from cache.features.store import State, UnitRows
from cache.features.units import owned_units, unit_rows
from cache.files.atomic import write_atomic
from cache.media import Failure, Media, Source, damaged_part
from configs.command.launch import ERROR_FILE
from configs.command.progress import Progress
from configs.command.stop import Stopped, StopRequest
from configs.loader import load_config
from configs.schema.features import FeaturesConfig
from extract.asr import Recogniser
from extract.encoders.base import Encoder, NetworkEncoder
from extract.encoders.catalogue import encoder_class
from extract.encoders.deviation import DEVIATION_FILE, is_approximate, measure, readable
from extract.encoders.loading import rank_device
from extract.encoders.models import Model
from extract.encoders.options import EncoderOptions
from extract.media.cut import Cut
from extract.media.decode import decode_all
from extract.run.batches import Batches, Remembering
from extract.run.plan import Job, Plan, lacks_media, make_plan, stored_layers
from extract.run.prefetch import Ahead
from extract.run.reader import UnitReader

T = TypeVar("T")
UNITS_AHEAD = 1
DEVICE_BATCH = {"cuda": 8, "cpu": 1}
OTHER_FILE = "the file is damaged or another one: its sha256 is not the corpus's"


@dataclass(frozen=True)
class Tools:
    """The loaded models of one rank."""

    encoders: Mapping[str, NetworkEncoder]
    remembering: Remembering | None
    recogniser: Recogniser | None

    def encoder(self, modality: str) -> Encoder:
        """What encodes the batches of a modality."""
        return self.remembering if modality == "text" and self.remembering else self.encoders[modality]


def run_rank(config: FeaturesConfig, rank: int, world_size: int, stop: StopRequest, decodes: Path) -> None:
    """Compute every unit this rank owns that is not done.

    Args:
        config: what to compute.
        rank: number of this rank.
        world_size: number of ranks.
        stop: asked between two batches.
        decodes: file that grows by one byte per decoded clip, so that "decoded once" can be checked.

    Raises:
        ValueError: a model cannot be loaded, or a batch does not fit.
        Stopped: between two batches; the unit in work stays pending.
    """
    torch.set_num_threads(config.threads)
    plan = make_plan(config)
    work = {unit: plan.pending(unit) for unit in owned_units(len(plan.corpus.clips), rank, world_size)}
    work = {unit: jobs for unit, jobs in work.items() if jobs or lacks_media(plan, unit)}
    if not work:
        return
    tools = load_tools(plan, {job.spec.modality for jobs in work.values() for job in jobs})
    total = sum(len(unit_rows(len(plan.corpus.clips), unit)) * len(jobs) for unit, jobs in work.items())
    with Progress(f"features, rank 0 of {world_size}", total, "clips", shown=rank == 0) as progress:
        compute(plan, tools, work, stop, decodes, progress)


def compute(
    plan: Plan,
    tools: Tools,
    work: Mapping[int, Sequence[Job]],
    stop: StopRequest,
    decodes: Path,
    progress: Progress,
) -> None:
    """Compute the jobs of each unit; while one is encoded, the next is decoded."""
    for unit in Ahead(_decoded_units(plan, list(work), stop, decodes), UNITS_AHEAD, stop.check):
        _compute_unit(plan, tools, unit, work[unit], stop, progress)


def load_tools(plan: Plan, modalities: Set[str]) -> Tools:
    """Load the encoders of these modalities, and the recogniser if text is among them."""
    device = rank_device()
    models = {name: model for name, model in plan.models.items() if name in modalities}
    encoders = {
        name: encoder_class(name, model)(model, device, encoder_options(plan.config, model))
        for name, model in models.items()
    }
    asr = plan.config.asr
    recogniser = Recogniser(asr.model, asr.language, device) if asr.model and "text" in models else None
    return Tools(encoders, Remembering(encoders["text"]) if "text" in encoders else None, recogniser)


def encoder_options(config: FeaturesConfig, model: Model) -> EncoderOptions:
    """What the configuration asks of an encoder."""
    layers = stored_layers(config.layers, model)
    return EncoderOptions(config.pooling, layers, config.compute, config.whisper.window)


def batch_size(config: FeaturesConfig) -> int:
    """Clips per batch: as configured, else what suits the device."""
    return config.batch_size or DEVICE_BATCH[rank_device().type]


def _decoded_units(plan: Plan, units: Sequence[int], stop: StopRequest, decodes: Path) -> Generator[int, None, None]:
    """The units one by one, each decoded; the next is decoded while one is encoded."""
    for unit in units:
        # All of it is read, or a flipped bit would become a feature.
        if damaged_part(plan.media.part(unit)):
            rows = unit_rows(len(plan.corpus.clips), unit)
            plan.media.write_unit(unit, _counted(_decode(plan, rows, stop), decodes))
        yield unit


def _decode(plan: Plan, rows: range, stop: StopRequest) -> Iterator[tuple[Media | Failure, Source]]:
    settings, clips = plan.config.media, plan.corpus.clips[rows.start : rows.stop]
    decoded = decode_all(
        [plan.corpus.source(clip) for clip in clips],
        frames=int(plan.media.provenance["frames"]),
        size=settings.size,
        workers=settings.decode_workers,
        timeout_seconds=settings.timeout_seconds,
        check=stop.check,
        cut=Cut.of(settings),
    )
    for clip, (media, source) in zip(clips, decoded, strict=True):
        known = not clip.sha256 or source.sha256 in ("", clip.sha256)
        yield (media if known else Failure(OTHER_FILE)), source


def _counted(clips: Iterator[T], decodes: Path) -> Iterator[T]:
    with decodes.open("ab", buffering=0) as file:
        for clip in clips:
            file.write(b".")
            yield clip


def _compute_unit(
    plan: Plan, tools: Tools, unit: int, jobs: Sequence[Job], stop: StopRequest, progress: Progress
) -> None:
    rows = unit_rows(len(plan.corpus.clips), unit)
    clips = plan.corpus.clips[rows.start : rows.stop]
    with plan.media.open_unit(unit) as media:
        for job in jobs:
            modality = job.spec.modality
            unit_rows_ = UnitRows.empty(len(clips), job.spec)
            unit_rows_.source = [source.sha256 for source in media.sources]
            reader = UnitReader(media, clips, job.condition, plan.noises)
            read = reader.text(tools.recogniser, unit_rows_) if modality == "text" else reader.signal(modality)
            batches = Batches(tools.encoder(modality), batch_size(plan.config), stop.check, progress)
            batches.fill(unit_rows_, read)
            if unit == 0:
                _record_deviation(plan, tools, job, unit_rows_, read)
            plan.stores[job.condition.name].write_unit(job.spec, unit, unit_rows_)


def _record_deviation(plan: Plan, tools: Tools, job: Job, rows: UnitRows, read: Callable[[int], Any]) -> None:
    """Measure approximate features on the first clips of the corpus; whoever owns them does it."""
    encoder = tools.encoders[job.spec.modality]
    if not is_approximate(encoder.model, encoder.options):
        return
    if job.spec.modality == "text":
        done = np.flatnonzero(rows.state == State.DONE)
        signals: Iterable[Any] = (rows.columns["transcript"][row] for row in done)
    else:
        signals = readable(read, encoder.preparer, len(rows.state))
    found = measure(encoder, job.spec.modality, signals)
    write_atomic(plan.stores[job.condition.name].path / job.spec.path / DEVIATION_FILE, json.dumps(found))


def main(arguments: Sequence[str] | None = None) -> int:
    """Read torchrun's environment and work. User errors go to a file: torchrun cannot pass on exit codes.

    Arguments: the configuration, and a folder where ranks leave word for the launcher.
    """
    config_file, exchange = map(Path, sys.argv[1:] if arguments is None else arguments)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    stop = StopRequest()
    stop.listen()
    try:
        run_rank(load_config(FeaturesConfig, config_file), rank, world_size, stop, exchange / f"decodes-{rank}")
    except Stopped:
        return 0
    except (ValueError, OSError) as error:
        write_atomic(exchange / ERROR_FILE, f"{error}{_advice(error)}")
    return 0


def _advice(error: Exception) -> str:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "; make room, then the same command continues" if full else ""


if __name__ == "__main__":
    code = main()
    # Every file is complete by now. An orderly end would wait for decoders that are still starting.
    sys.stderr.flush()
    os._exit(code)
