"""Pictures and sound of chosen clips, small enough to stand in a page: JPEG and MP3, as data of their own.

They come from the decoded clips beside the features, and from the same functions that stage one corrupts clips with.
Shape letters: T frames or samples, H height, W width, C colour channels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from cache.conditions import CLEAN, Condition
from cache.corpus.clips import Corpus
from cache.features.store import open_store
from cache.features.units import unit_size
from cache.media import SAMPLE_RATE_HZ, Media, MediaStore, recorded_provenance
from configs.loader import load_config
from configs.schema.features import FeaturesConfig
from extract.corrupt.apply import corrupt
from extract.corrupt.noise.sources import RECORDED, NoiseSource, NoiseSources, noise_sources
from fuse.finetune.inputs.media import OpenMedia
from fuse.runs.folder import CONFIG
from fuse.runs.tables import with_root
from fuse.studies.report.page.subjects import parts_of

FRAMES_SHOWN = 4
FRAME_PIXELS = 112
JPEG_QUALITY = 70
# MP3 plays in every browser; at this rate noise sounds like noise.
MP3_BITS_PER_SECOND = 48_000
MEGABYTE = 1_000_000
NAMES = {"audio": "sound", "video": "frames"}


@dataclass
class Shown:
    """A clip's pictures and sound by condition, as data URIs; what was heard, and why something is not here."""

    sounds: dict[str, str] = field(default_factory=dict)
    frames: dict[str, str] = field(default_factory=dict)


class Budget:
    """How much pictures and sound may still add to a page."""

    def __init__(self, megabytes: float) -> None:
        """`megabytes`: of text, as it will stand in the page."""
        self.left, self.refused = int(megabytes * MEGABYTE), 0

    def takes(self, uri: str) -> bool:
        """Whether there is room for it; if so, it is taken."""
        fits = len(uri) <= self.left
        self.left -= len(uri) if fits else 0
        self.refused += not fits
        return fits


def shown_clips(
    features_dir: Path, corpus: Corpus, clip_ids: Sequence[str], conditions: Sequence[str], megabytes: float
) -> tuple[dict[str, Shown], list[str]]:
    """Pictures and sound of clips, clean ones of all clips first; and in words what is not here, and why.

    Args:
        features_dir: of the features, beside which the decoded clips are.
        corpus: whose clips they are; babble is made of its voices.
        clip_ids: which ones.
        conditions: names as in predictions; of joint ones the parts.
        megabytes: what they may add to the page.
    """
    store = _media_store(features_dir)
    if store is None:
        return {}, [f"there are no decoded clips in {features_dir / 'media'}"]
    possible, noises, notes = _possible(features_dir, corpus, conditions)
    position = {clip_id: row for row, clip_id in enumerate(open_store(features_dir / f"{CLEAN}.zarr").clip_ids)}
    rows = {clip_id: position[clip_id] for clip_id in clip_ids if _is_there(store, position, clip_id)}
    if len(rows) < len(clip_ids):
        notes.append(f"{len(clip_ids) - len(rows)} clips are not among those decoded")
    budget, found = Budget(megabytes), {clip_id: Shown() for clip_id in rows}
    with closing(OpenMedia(store, len(position))) as media:
        for condition in possible:
            for clip_id, row in rows.items():
                try:
                    _add(found[clip_id], media.read(row, "audio", "video"), condition, clip_id, noises, budget)
                except (ValueError, KeyError) as error:
                    notes.append(f"{clip_id} under {condition.name}: {error}")
    if budget.refused:
        notes.append(f"{budget.refused} more would pass {megabytes:g} MB (media_megabytes)")
    return found, notes


def _is_there(store: MediaStore, position: Mapping[str, int], clip_id: str) -> bool:
    return clip_id in position and store.has_unit(position[clip_id] // unit_size(len(position)))


def _media_store(features_dir: Path) -> MediaStore | None:
    """The decoded clips; of several kinds, the first by name."""
    records = (recorded_provenance(folder) for folder in sorted(features_dir.glob("media/frames*")))
    provenance = next((one for one in records if one is not None), None)
    return MediaStore(features_dir, provenance) if provenance else None


def _possible(
    features_dir: Path, corpus: Corpus, conditions: Sequence[str]
) -> tuple[list[Condition], NoiseSources, list[str]]:
    """Clean and every single condition that can be made here, the recordings for it, and what was left out."""
    parts = {part.name: part for name in (CLEAN, *conditions) for part in parts_of(name)}
    settings = features_dir / CONFIG
    noise = (load_config(FeaturesConfig, settings) if settings.is_file() else FeaturesConfig(corpus="")).noise
    corpus = with_root(corpus, features_dir)
    sources: dict[str, NoiseSource] = {}
    notes: list[str] = []
    for kind in sorted({part.kind for part in parts.values()} & set(RECORDED)):
        try:
            sources.update(noise_sources(noise, corpus, [kind]).by_kind)
        except (ValueError, OSError) as error:
            notes.append(f"{kind}: {error}")
    made = [part for part in parts.values() if part.kind not in RECORDED or part.kind in sources]
    return made, NoiseSources(sources), notes


def _add(shown: Shown, media: Media, condition: Condition, clip_id: str, noises: NoiseSources, budget: Budget) -> None:
    made = corrupt(media, condition, clip_id, noises)
    if condition.modality != "video" and made.waveform_T is not None and len(made.waveform_T):
        uri = sound_uri(made.waveform_T)
        if budget.takes(uri):
            shown.sounds[condition.name] = uri
    if condition.modality != "audio" and made.frames_THWC is not None:
        uri = frames_uri(made.frames_THWC)
        if budget.takes(uri):
            shown.frames[condition.name] = uri


def sound_uri(waveform_T: npt.NDArray[np.float32]) -> str:
    """Mono samples at 16 kHz as MP3, cut at full scale, for an <audio> element."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE_HZ)
        stream.layout, stream.bit_rate = "mono", MP3_BITS_PER_SECOND
        samples = np.clip(waveform_T, -1, 1).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=SAMPLE_RATE_HZ, frame_size=1152)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return _uri("audio/mpeg", file.getvalue())


def frames_uri(frames_THWC: npt.NDArray[np.uint8]) -> str:
    """Some frames of a clip side by side as JPEG, for an <img> element."""
    places = np.linspace(0, len(frames_THWC) - 1, min(FRAMES_SHOWN, len(frames_THWC))).round().astype(int)
    small = [Image.fromarray(frames_THWC[place]).resize((FRAME_PIXELS, FRAME_PIXELS)) for place in places]
    strip = Image.new("RGB", (FRAME_PIXELS * len(small), FRAME_PIXELS))
    for number, one in enumerate(small):
        strip.paste(one, (number * FRAME_PIXELS, 0))
    file = io.BytesIO()
    strip.save(file, format="jpeg", quality=JPEG_QUALITY)
    return _uri("image/jpeg", file.getvalue())


def transcripts_of(features_dir: Path, clip_ids: Sequence[str], conditions: Sequence[str]) -> dict[str, dict[str, str]]:
    """What a recogniser heard in each clip, by clip and condition, as stage one kept it."""
    found: dict[str, dict[str, str]] = {clip_id: {} for clip_id in clip_ids}
    for condition in stored_conditions_of(conditions):
        path = features_dir / f"{condition.name}.zarr"
        if not path.exists():
            continue
        store = open_store(path)
        for encoder in list(store.encoders("text"))[:1]:
            words = dict(zip(store.clip_ids, store.column(f"text/{encoder}", "transcript"), strict=True))
            for clip_id in clip_ids:
                if clip_id in words:
                    found[clip_id][condition.name] = str(words[clip_id])
    return found


def stored_conditions_of(conditions: Sequence[str]) -> Iterator[Condition]:
    """Clean, and those of these that sound is put under; of joint ones the parts."""
    parts = {part.name: part for name in (CLEAN, *conditions) for part in parts_of(name)}
    yield from (part for part in parts.values() if part.modality != "video")


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
