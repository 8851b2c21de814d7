"""A run that is tried on one clip at a time: what happens behind the page, without the page.

An uploaded file is read once and deleted; from then on there are only samples and frames in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av

from cache.conditions import Condition, parse_condition
from cache.corpus.clips import Clip, Corpus
from cache.corpus.stretch import Stretch
from cache.media import SAMPLE_RATE_HZ, Failure, Media
from configs.schema.predict import AppConfig
from extract.corrupt.apply import corrupt
from fuse.predict.encode import EncodedClip
from fuse.predict.model import Prediction, TrainedModel
from fuse.predict.windows import Window, windows

# Where the sliders stand when nothing is done to the clip.
NO_NOISE_DB, LOUDEST_NOISE_DB, NOT_OCCLUDED, MOST_OCCLUDED = 40, -10, 0, 100
MEGABYTE = 1_000_000
# Seeds noise and blocks: the same clip under the same sliders is the same clip again.
CLIP_ID = "app"


@dataclass(frozen=True)
class Tried:
    """A clip, as it was read and as the sliders leave it, and what the run says of it."""

    name: str
    read: Media
    changed: Media
    encoded: EncodedClip
    prediction: Prediction


class Trial:
    """A loaded run, the clips that may be chosen, and what uploads may be."""

    def __init__(self, model: TrainedModel, config: AppConfig, uploads: Path, examples: Corpus | None = None) -> None:
        """`uploads`: the only folder that files are read from; `examples`: clips of a corpus, chosen by their ids."""
        self.model, self.config, self.uploads = model, config, uploads.resolve()
        shown = [] if examples is None else spread(examples, config.examples_shown)
        self._examples = {clip.clip_id: clip for clip in shown}
        self._root = Path() if examples is None else examples.root

    @property
    def example_names(self) -> dict[str, str]:
        """By what the page calls them, ids of the clips that may be chosen."""
        return {f"{clip.label} ({clip.clip_id})": clip_id for clip_id, clip in self._examples.items()}

    @property
    def reads_statements(self) -> bool:
        """Whether what is said must be typed: the run reads text and has no recogniser."""
        return "text" in self.model.modalities and self.model.encoder.recogniser is None

    def statement_of(self, example: str) -> str:
        """What is said in an example; "" for what is none."""
        return self._examples[example].statement if example in self._examples else ""

    def read_example(self, name: str) -> Media:
        """Decode a clip of the corpus.

        Raises:
            ValueError: one line: there is none of that name, or it cannot be read.
        """
        if name not in self._examples:
            raise ValueError("no such example")
        clip = self._examples[name]
        return self._decode(self._root / clip.path, clip.stretch)

    def read_upload(self, file: str) -> Media:
        """Decode an uploaded file, and delete it whatever comes of that.

        Raises:
            ValueError: one line: it lies elsewhere, is too large or too long, or cannot be read.
        """
        path = Path(file).resolve()
        if not path.is_relative_to(self.uploads):
            raise ValueError("only uploaded files are opened")
        try:
            return self._decode(path)
        finally:
            path.unlink(missing_ok=True)

    def look(self, name: str, media: Media, statement: str, snr_db: float, occluded: float) -> Tried:
        """Change a clip as the sliders say, and predict it.

        Raises:
            ValueError: one line: the clip has no speech to measure the noise against, or nothing to go by.
        """
        changed = media
        for condition in conditions(round(snr_db), round(occluded)):
            changed = corrupt(changed, condition, CLIP_ID)
        encoded = self.model.encoder.encode(changed, statement)
        prediction = self.model.judge(name, encoded, self.config.speaker)
        if prediction.failure:
            raise ValueError(prediction.failure)
        return Tried(name, media, changed, encoded, prediction)

    def windows(self, tried: Tried) -> list[Window]:
        """What each window of the clip contributes; takes several times as long as the prediction."""
        count, speaker = self.config.windows, self.config.speaker
        return list(windows(self.model, tried.changed, tried.encoded, tried.prediction, count, speaker))

    def _decode(self, path: Path, stretch: Stretch | None = None) -> Media:
        if path.stat().st_size > self.config.max_megabytes * MEGABYTE:
            raise ValueError(f"the file is larger than {self.config.max_megabytes:g} MB")
        self._refuse_long(_seconds(path) if stretch is None else 0.0)
        ((media, _),) = self.model.decoded([path], [stretch])
        if isinstance(media, Failure):
            raise ValueError(f"the file could not be read: {media.reason}")
        # What the file says of itself need not be true.
        self._refuse_long(0.0 if media.waveform_T is None else len(media.waveform_T) / SAMPLE_RATE_HZ)
        return media

    def _refuse_long(self, seconds: float) -> None:
        if seconds > self.config.max_seconds:
            raise ValueError(f"the clip is longer than {self.config.max_seconds:g} s")


def spread(corpus: Corpus, count: int) -> list[Clip]:
    """About so many clips: as many of each label, spread over its speakers where the table is sorted by them."""
    by_label = [[clip for clip in corpus.clips if clip.label == label] for label in corpus.labels]
    each = max(1, count // len(by_label))
    chosen = [[clips[place * len(clips) // each] for place in range(min(each, len(clips)))] for clips in by_label]
    return [clip for clips in chosen for clip in clips][:count]


def conditions(snr_db: int, occluded: int) -> list[Condition]:
    """What the sliders stand for: white noise over speech in dB, and the share of the picture that is covered."""
    names = []
    if snr_db < NO_NOISE_DB:
        names.append(f"noise-white-{'minus' if snr_db < 0 else ''}{abs(snr_db)}db")
    if occluded > NOT_OCCLUDED:
        names.append(f"occlude-block-{occluded}")
    return [parse_condition(name) for name in names]


def _seconds(path: Path) -> float:
    """Length by the file's own header; 0 where it does not say, and decoding will tell."""
    try:
        with av.open(str(path)) as container:
            return float((container.duration or 0) / av.time_base)
    except (av.FFmpegError, OSError, ValueError):
        return 0.0
