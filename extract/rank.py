"""One rank of stage one: decode, corrupt, transcribe and encode the units it owns.

Started by torchrun, once per rank. Ranks share nothing but the stores and never talk to each other:
there is no gradient, hence no process group.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cache.atomic import write_atomic
from cache.clips import Clip
from cache.feature_store import UnitRows
from cache.media_store import MediaUnit
from cache.units import owned_units, unit_rows
from configs.features import FeaturesConfig
from configs.loader import load_config
from extract.corrupt import corrupt
from extract.decode import decode_all
from extract.encoders import Encoder, encoder_class, rank_device
from extract.plan import Job, Plan, make_plan
from extract.progress import Progress
from extract.transcribe import Recogniser, Transcript

# Ten are promised. A batch that takes longer is given up: its unit stays pending either way.
SECONDS_TO_FINISH = 8


class Stopped(Exception):
    """The run was asked to stop, or its launcher is gone."""


class StopRequest:
    """Turns SIGTERM, SIGINT and the death of the launcher into an exception between two batches."""

    def __init__(self) -> None:
        """Remember the parent: a rank must not outlive it."""
        self.received = False
        self.parent = os.getppid()

    def listen(self) -> None:
        """Catch the signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def check(self) -> None:
        """Raise `Stopped` if it is time to go."""
        if self.received or os.getppid() != self.parent:
            raise Stopped

    def _receive(self, *_: object) -> None:
        self.received = True
        signal.alarm(SECONDS_TO_FINISH)


@dataclass(frozen=True)
class Tools:
    """The loaded models of one rank."""

    encoders: Mapping[str, Encoder]
    recogniser: Recogniser | None


def run_rank(config: FeaturesConfig, rank: int, world_size: int, stop: StopRequest) -> None:
    """Compute every unit this rank owns that is not done.

    Raises:
        ValueError: a model cannot be loaded.
        Stopped: between two batches; the unit in work stays pending.
    """
    torch.set_num_threads(config.threads)
    plan = make_plan(config)
    work = {unit: plan.pending(unit) for unit in owned_units(len(plan.corpus.clips), rank, world_size)}
    work = {unit: jobs for unit, jobs in work.items() if jobs}
    if not work:
        return
    tools = load_tools(plan, {job.spec.modality for jobs in work.values() for job in jobs})
    total = sum(len(unit_rows(len(plan.corpus.clips), unit)) * len(jobs) for unit, jobs in work.items())
    with Progress(f"features, rank 0 of {world_size}", total, "clips", shown=rank == 0) as progress:
        for unit, jobs in work.items():
            _compute_unit(plan, tools, unit, jobs, stop, progress)


def load_tools(plan: Plan, modalities: Set[str]) -> Tools:
    """Load the encoders of these modalities, and the recogniser if text is among them."""
    device = rank_device()
    models = {name: model for name, model in plan.models.items() if name in modalities}
    encoders = {name: encoder_class(name, model)(model, device) for name, model in models.items()}
    asr = plan.config.asr
    recogniser = Recogniser(asr.model, asr.language, device) if asr.model and "text" in models else None
    return Tools(encoders, recogniser)


def _compute_unit(
    plan: Plan, tools: Tools, unit: int, jobs: Sequence[Job], stop: StopRequest, progress: Progress
) -> None:
    rows = unit_rows(len(plan.corpus.clips), unit)
    clips = plan.corpus.clips[rows.start : rows.stop]
    if not plan.media.has_unit(unit):
        _decode_unit(plan, unit, clips, stop)
    with plan.media.open_unit(unit) as media:
        for job in jobs:
            batches = Batches(tools.encoders[job.spec.modality], plan.config.batch_size, stop, progress)
            rows_of_job = UnitRows.empty(len(clips), job.spec)
            rows_of_job.source = [source.sha256 for source in media.sources]
            read = _text_reader(tools, job, media, clips, rows_of_job) if job.spec.modality == "text" else None
            with torch.inference_mode():
                batches.fill(rows_of_job, read or _signal_reader(job, media, clips), media)
            plan.stores[job.condition.name].write_unit(job.spec, unit, rows_of_job)


def _decode_unit(plan: Plan, unit: int, clips: Sequence[Clip], stop: StopRequest) -> None:
    settings = plan.config.media
    decoded = decode_all(
        [plan.corpus.source(clip) for clip in clips],
        frames=int(plan.media.provenance["frames"]),
        size=settings.size,
        workers=settings.decode_workers,
        timeout_seconds=settings.timeout_seconds,
        check=stop.check,
    )
    plan.media.write_unit(unit, decoded)


class Batches:
    """Groups the clips of a unit into batches that need no padding, and encodes them."""

    def __init__(self, encoder: Encoder, size: int, stop: StopRequest, progress: Progress) -> None:
        """`size`: clips per batch."""
        self.encoder, self.size, self.stop, self.progress = encoder, size, stop, progress

    def fill(self, rows: UnitRows, read: Callable[[int], Any], media: MediaUnit) -> None:
        """Decide on every row of the unit: done, failed or absent."""
        waiting: dict[Any, list[tuple[int, Any]]] = {}
        for row in range(len(rows.state)):
            self.stop.check()
            signal_ = self._signal(rows, row, read, media)
            if signal_ is None:
                self.progress.add(1)
                continue
            key, item = signal_
            waiting.setdefault(key, []).append((row, item))
            if len(waiting[key]) == self.size:
                self._encode(rows, waiting.pop(key))
        for batch in waiting.values():
            self._encode(rows, batch)

    def _signal(self, rows: UnitRows, row: int, read: Callable[[int], Any], media: MediaUnit) -> tuple[Any, Any] | None:
        failure = media.failure(row)
        if failure:
            rows.fail(row, f"decoding: {failure}")
            return None
        try:
            item = read(row)
            if item is None:
                rows.absent(row, "the clip has no such stream")
                return None
            if not len(item):
                rows.absent(row, "empty transcript" if isinstance(item, str) else "no samples")
                return None
            return self.encoder.batch_key(item), item
        # One clip's trouble is that clip's failure, whatever a library raises for it.
        except Exception as error:
            rows.fail(row, " ".join(f"{type(error).__name__}: {error}".split())[:300])
            return None

    def _encode(self, rows: UnitRows, batch: Sequence[tuple[int, Any]]) -> None:
        self.stop.check()
        hidden_BLD = self.encoder.encode([item for _, item in batch])
        for (row, _), hidden_LD in zip(batch, hidden_BLD, strict=True):
            rows.done(row, hidden_LD)
        self.progress.add(len(batch))


def _signal_reader(job: Job, media: MediaUnit, clips: Sequence[Clip]) -> Callable[[int], Any]:
    def read(row: int) -> Any:
        corrupted = corrupt(media.read(row, job.spec.modality), job.condition, clips[row].clip_id)
        return corrupted.waveform_T if job.spec.modality == "audio" else corrupted.frames_THWC

    return read


def _text_reader(
    tools: Tools, job: Job, media: MediaUnit, clips: Sequence[Clip], rows: UnitRows
) -> Callable[[int], str | None]:
    def read(row: int) -> str | None:
        clip = clips[row]
        if tools.recogniser is None:
            heard = Transcript(clip.statement)
        else:
            waveform_T = corrupt(media.read(row, "audio"), job.condition, clip.clip_id).waveform_T
            if waveform_T is None:
                return None
            heard = tools.recogniser.transcribe(waveform_T, clip.statement)
        for name, value in zip(
            ("transcript", "words", "confidence", "wer"),
            (heard.text, heard.words, heard.confidence, heard.wer),
            strict=True,
        ):
            rows.columns[name][row] = value
        return heard.text

    return read


def main(arguments: Sequence[str] | None = None) -> int:
    """Read torchrun's environment and work. User errors go to a file: torchrun cannot pass on exit codes."""
    config_file, error_file = map(Path, sys.argv[1:] if arguments is None else arguments)
    stop = StopRequest()
    stop.listen()
    try:
        run_rank(
            load_config(FeaturesConfig, config_file),
            int(os.environ["RANK"]),
            int(os.environ["WORLD_SIZE"]),
            stop,
        )
    except Stopped:
        return 0
    except (ValueError, OSError) as error:
        write_atomic(error_file, str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
