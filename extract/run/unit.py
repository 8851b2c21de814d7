"""The unit of work of stage one: a unit's clips decoded, corrupted, transcribed, encoded and stored, or nothing to do.

`process_unit` may be called for any unit, by anybody, as often as one likes: what is complete is left alone, what is
half done is continued from what was kept of it, and equal work gives equal bytes. It knows neither ranks nor signals
nor the environment. No two callers may work on one unit at the same time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cache.features.layout import DEVIATION_FILE
from cache.features.rows import State, UnitRows
from cache.files.atomic import write_atomic
from cache.media import Failure, Media, MediaUnit, Source, damaged_part
from configs.schema.features import FeaturesConfig
from extract.asr import deviation as asr_deviation
from extract.asr.recogniser import Recogniser, load_recogniser
from extract.encoders.base import Encoder, NetworkEncoder
from extract.encoders.catalogue import encoder_class
from extract.encoders.deviation import is_approximate, measure, readable
from extract.encoders.models import Model
from extract.encoders.options import EncoderOptions
from extract.media.cut import Cut
from extract.media.decode import decode_all
from extract.run.batches import Batches, Remembering
from extract.run.keeping import SECONDS_BETWEEN_KEEPING, Keeping
from extract.run.plan import Plan, PlannedArray
from extract.run.provenance import kept_layers
from extract.run.reader import UnitReader
from extract.run.sources import source_now, take_published

DEVICE_BATCH = {"cuda": 8, "cpu": 1}
NAMES = {"cuda": "a GPU", "cpu": "the CPU alone"}
OTHER_FILE = "the file is damaged or another one: its sha256 is not the corpus's"


@dataclass(frozen=True)
class Tools:
    """The loaded models, all on one device."""

    device: torch.device
    encoders: Mapping[str, NetworkEncoder]
    remembering: Remembering | None
    recogniser: Recogniser | None

    def encoder(self, modality: str) -> Encoder:
        """What encodes the batches of a modality."""
        return self.remembering if modality == "text" and self.remembering else self.encoders[modality]


def _go_on() -> None:
    """Nothing asks the work to stop."""


def _ignore(_: int) -> None:
    """Nobody counts."""


@dataclass(frozen=True)
class Observer:
    """Who looks on while units are computed.

    Attributes:
        check: called between two batches and between two clips; ends the work by raising.
        encoded: told how many more rows have been decided on.
        decoded: told how many more clips have been decoded.
    """

    check: Callable[[], None] = _go_on
    encoded: Callable[[int], object] = _ignore
    decoded: Callable[[int], object] = _ignore


UNOBSERVED = Observer()


def load_tools(plan: Plan, modalities: Set[str], device: torch.device) -> Tools:
    """Load the encoders of these modalities, and the recogniser if text is among them.

    Raises:
        ValueError: a model cannot be loaded, or is no longer the one that the plan speaks of; the device is another.
    """
    if device.type != plan.device:
        raise ValueError(
            f"this run was planned for {NAMES[plan.device]}, but torch now finds {NAMES[device.type]}, and the store "
            "would not say so; start it again"
        )
    models = {name: model for name, model in plan.models.items() if name in modalities}
    encoders = {
        name: encoder_class(name, model)(model, device, encoder_options(plan.config, model, device))
        for name, model in models.items()
    }
    asr = plan.config.asr
    recogniser = load_recogniser(asr, device) if asr.model and "text" in models else None
    # After they were loaded: what was hashed is what was read.
    plan.refuse_changed_models()
    return Tools(device, encoders, Remembering(encoders["text"]) if "text" in encoders else None, recogniser)


def encoder_options(
    config: FeaturesConfig, model: Model, device: torch.device, layers: tuple[int, ...] | None = None
) -> EncoderOptions:
    """What the configuration asks of an encoder; `layers` instead of those that it keeps."""
    return EncoderOptions(
        config.pooling,
        layers or kept_layers(config.layers, model),
        config.compute,
        config.whisper.window,
        config.window_seconds,
        config.hop_seconds,
        batch_size(config, device),
    )


def batch_size(config: FeaturesConfig, device: torch.device) -> int:
    """Clips per batch: as configured, else what suits the device."""
    return config.batch_size or DEVICE_BATCH[device.type]


def process_unit(
    plan: Plan, unit: int, tools: Tools, observer: Observer = UNOBSERVED, is_decoded: bool = False
) -> None:
    """Compute what a unit still lacks; does nothing where it lacks nothing.

    Args:
        plan: the run; its stores have been prepared.
        unit: which one.
        tools: the encoders of every modality that the unit lacks; others are not looked at.
        observer: who looks on.
        is_decoded: `decode_unit` has just been called for it, as by a caller that decodes ahead.

    Raises:
        ValueError: a batch does not fit, or a noise recording cannot be used.
        Exception: what `observer.check` raises, and what the machine does (`extract.run.blame`). Whatever it is, arrays
            that were not complete by then stay pending.
    """
    if not is_decoded:
        decode_unit(plan, unit, observer)
    arrays = plan.pending(unit)
    if not arrays:
        return
    with plan.media.open_unit(unit) as media:
        for array in arrays:
            _fill_array(plan, unit, array, media, tools, observer)


def decode_unit(plan: Plan, unit: int, observer: Observer = UNOBSERVED) -> None:
    """Decode the clips of a unit that needs them, unless that is done, here or by whoever shares an object store."""
    take_published(plan, unit)
    # All of it is read, or a flipped bit would become a feature.
    if plan.lacks(unit) and damaged_part(plan.media.part(unit)):
        plan.media.write_unit(unit, _decoded(plan, unit, observer), SECONDS_BETWEEN_KEEPING)
        if plan.live is not None:
            plan.live.give_media(plan.media, unit)


def _decoded(plan: Plan, unit: int, observer: Observer) -> Iterator[tuple[Media | Failure, Source]]:
    """The clips of a unit, decoded as far as they are not kept, or other files by now."""
    settings, clips = plan.config.media, plan.clips(unit)
    paths = [plan.corpus.source(clip) for clip in clips]
    with plan.media.open_kept(unit) as kept:
        sources = {row: source_now(then, paths[row], clips[row].stretch) for row, (_, then) in kept.items()}
        failed = {row for row, (media, _) in kept.items() if media.failure(row)} if plan.config.retry_failed else set()
        same = {row: now for row, now in sources.items() if now.sha256 == kept[row][1].sha256 and row not in failed}
        decoded = decode_all(
            [path for row, path in enumerate(paths) if row not in same],
            stretches=[clip.stretch for row, clip in enumerate(clips) if row not in same],
            frames=int(plan.media.provenance["frames"]),
            size=settings.size,
            workers=settings.decode_workers,
            timeout_seconds=settings.timeout_seconds,
            check=observer.check,
            cut=Cut.of(settings),
            reader=settings.reader,
        )
        for row, clip in enumerate(clips):
            media, source = (kept[row][0].clip(row), same[row]) if row in same else next(decoded)
            observer.decoded(int(row not in same))
            is_listed = not clip.sha256 or source.file_sha256 in ("", clip.sha256)
            yield (media if is_listed else Failure(OTHER_FILE)), source
        # Its end closes its processes.
        assert next(decoded, None) is None, "as many were decoded as were asked for"


def _fill_array(plan: Plan, unit: int, array: PlannedArray, media: MediaUnit, tools: Tools, observer: Observer) -> None:
    modality, clips = array.spec.modality, plan.clips(unit)
    store = plan.stores[array.condition.name]
    keeping = Keeping(store, array.spec, unit, [source.sha256 for source in media.sources])
    rows = keeping.rows
    observer.encoded(keeping.taken_up)
    reader = UnitReader(media, clips, array.condition, plan.noises)
    read = reader.text(tools.recogniser, rows) if modality == "text" else reader.signal(modality)
    batches = Batches(tools.encoder(modality), batch_size(plan.config, tools.device), observer.check, observer.encoded)
    with keeping.until_the_end():
        batches.fill(rows, read, keeping.between)
    if unit == 0:
        _record_deviation(plan, tools, array, rows, reader, read)
    store.write_unit(array.spec, unit, rows)
    if plan.live is not None:
        plan.live.give_unit(*array.place, unit)


def _record_deviation(
    plan: Plan, tools: Tools, array: PlannedArray, rows: UnitRows, reader: UnitReader, read: Callable[[int], Any]
) -> None:
    """Measure what is approximate on the first clips of the corpus, which are those of unit 0."""
    encoder, found = tools.encoders[array.spec.modality], dict[str, Any]()
    is_text = array.spec.modality == "text"
    is_measured = is_approximate(encoder.model, encoder.options)
    if is_measured:
        if is_text:
            done = np.flatnonzero(rows.state == State.DONE)
            signals: Iterable[Any] = (rows.columns["transcript"][row] for row in done)
        else:
            signals = readable(read, encoder.preparer, len(rows.state))
        found |= measure(encoder, array.spec.modality, signals)
    if is_text and tools.recogniser and asr_deviation.is_approximate(plan.config.asr, tools.device):
        is_measured, sounds = True, _sounds(reader, len(rows.state))
        found["asr"] = asr_deviation.measure(plan.config.asr, tools.recogniser, tools.device, sounds)
    if is_measured:
        write_atomic(plan.stores[array.condition.name].path / array.spec.path / DEVIATION_FILE, json.dumps(found))


def _sounds(reader: UnitReader, rows: int) -> Iterator[Any]:
    """The waveforms of those rows that have one."""
    waveform = reader.signal("audio")
    for row in range(rows):
        try:
            sound_T = waveform(row)
        # Such clips fail, or are absent, when their unit is computed.
        except Exception:
            continue
        yield sound_T
