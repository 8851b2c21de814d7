"""What stage one may be told."""

from __future__ import annotations

import re
from dataclasses import field
from typing import Annotated, Final, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from cache.conditions import parse_joint
from configs.loader import STRICT
from configs.schema.fields import Address, BareName, LabelMapping, NamedCondition

# Those of the default recipe.
DEFAULT_CONDITIONS = tuple(
    parse_joint(name)
    for name in (
        "clean",
        "noise-white-20db",
        "noise-white-10db",
        "noise-white-5db",
        "noise-white-0db",
        "occlude-block-25",
        "occlude-block-50",
        "drop-frames-30",
    )
)

Pooling = Literal["mean", "mean_std", "last", "cls"]
EngineName = Literal["torchrun", "local", "slurm", "ray"]
StoredLayers = Literal["all", "last"] | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class Encoders:
    """Hub name or local directory of each encoder; null: not this modality."""

    audio: str | None = "facebook/wav2vec2-base-960h"
    video: str | None = "MCG-NJU/videomae-base"
    text: str | None = "distilbert/distilroberta-base"


# Engines of speech recognition.
TIMESTAMPED: Final = "whisper-timestamped"
TRANSFORMERS: Final = "transformers"
# OpenAI's names of Whisper, which its own program downloads; the hub has the same weights below openai/.
OPENAI = re.compile(r"(tiny|base|small|medium)(\.en)?|large(-v[123]|-v3-turbo)?|turbo")
ON_THE_HUB = {"large": "large-v3", "turbo": "large-v3-turbo"}


@dataclass(frozen=True, config=STRICT)
class Asr:
    """Speech recognition by Whisper.

    Attributes:
        model: Whisper name or checkpoint file of OpenAI's; for transformers also a hub name or a folder. null: the
            corpus's statement is the text.
        language: code or name.
        engine: whisper-timestamped takes one clip at a time; transformers takes many, which pays on a GPU.
        batch_size: windows of 30 s that transformers takes at a time; null: 16 on a GPU, 1 on a CPU.
    """

    model: str | None = "base.en"
    language: str = "en"
    engine: Literal["whisper-timestamped", "transformers"] = TIMESTAMPED
    batch_size: Annotated[int, Field(ge=1, le=256)] | None = None

    @property
    def hub_name(self) -> str:
        """The name by which transformers asks for the model, or its folder; "" where there is none."""
        model = self.model or ""
        return f"openai/whisper-{ON_THE_HUB.get(model, model)}" if OPENAI.fullmatch(model) else model

    def __post_init__(self) -> None:
        """A size that nobody reads is a mistake."""
        if self.batch_size is not None and self.engine != TRANSFORMERS:
            raise ValueError(
                f"batch_size: {self.engine} takes one clip at a time; set engine=transformers, or no batch_size"
            )


@dataclass(frozen=True, config=STRICT)
class WhisperSettings:
    """`window`: "30s", as Whisper was trained, or "clip": the clip alone, faster and only nearly the same."""

    window: Literal["30s", "clip"] = "30s"


@dataclass(frozen=True, config=STRICT)
class NoiseSettings:
    """Where noise that is not synthetic comes from.

    Attributes:
        folder: noise files for `noise-file`, searched recursively (MUSAN's layout will do).
        babble_speakers: speakers whose clips make `noise-babble`; null: those whose `split` in the corpus is
            train, or the training speakers of the protocol `holdout`.
    """

    folder: str | None = None
    babble_speakers: tuple[str, ...] | None = None


@dataclass(frozen=True, config=STRICT)
class MediaSettings:
    """What is kept of a decoded clip, and how decoding is run.

    Attributes:
        frames: evenly spaced over the clip, both ends included.
        size: side of the square they are cut to, in pixels.
        face_crop: cut a square around the face, not the centre.
        short_side: pixels of the short side before the cut; 0: `size`. DINOv2 and ViViT want 256.
        resample: filter of the resize; CLIP and DINOv2 want bicubic.
        reader: av: one strict pass by PyAV. decord: its frames where they are those of the strict pass, which is run
            as well. auto: the faster of the two, av (`make bench` measures it).
        decode_workers: processes that decode, per rank.
        timeout_seconds: a clip that takes longer to decode is a failed clip.
    """

    frames: Annotated[int, Field(ge=2, le=256)] = 16
    size: Annotated[int, Field(ge=16, le=1024)] = 224
    face_crop: bool = False
    short_side: Annotated[int, Field(ge=0, le=2048)] = 0
    resample: Literal["bilinear", "bicubic"] = "bilinear"
    reader: Literal["auto", "av", "decord"] = "auto"
    decode_workers: Annotated[int, Field(ge=1, le=64)] = 1
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0


@dataclass(frozen=True, config=STRICT)
class Slurm:
    """What is handed on to datatrove's SlurmPipelineExecutor, which says more of each.

    Attributes:
        partition: as `sinfo` lists them.
        time: limit of a task, as sbatch takes it; one that is not done by then is gone on with by the same command.
        qos: null: the cluster's default.
        max_array_size: tasks of one job array, at most; the cluster may allow fewer (`scontrol show config`).
        sbatch_args: further options of sbatch: `{account: project, constraint: a100}`.
    """

    partition: str | None = None
    time: str = "24:00:00"
    qos: str | None = None
    max_array_size: Annotated[int, Field(ge=1)] = 1001
    sbatch_args: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Engine:
    """What starts the ranks of stage one; none of it changes a feature.

    Attributes:
        name: torchrun; local, slurm or ray: datatrove's executor of that name, which is given tasks of some units each.
        units_per_task: a task starts a process and loads the encoders, which should be short beside its units.
        folder: where launcher and tasks leave word for each other, and the logs; all nodes must see it. null: the
            folder `.engine` of features_dir.
        cpus_per_task, mem_per_cpu_gb, gpus_per_task: what Slurm or Ray is asked for; a task uses one GPU.
        slurm: more for Slurm.
        ray_address: of a Ray cluster that runs; null: $RAY_ADDRESS, else one is started on this machine.
    """

    name: EngineName = "torchrun"
    units_per_task: Annotated[int, Field(ge=1)] = 4
    folder: str | None = None
    cpus_per_task: Annotated[int, Field(ge=1)] = 1
    mem_per_cpu_gb: Annotated[int, Field(ge=1)] = 4
    gpus_per_task: Annotated[int, Field(ge=0, le=1)] = 0
    slurm: Slurm = field(default_factory=Slurm)
    ray_address: str | None = None

    def __post_init__(self) -> None:
        """A job without a partition is refused here, and not by sbatch after everything was planned."""
        if self.name == "slurm" and not self.slurm.partition:
            raise ValueError("slurm.partition: name one; sinfo lists those of this cluster")

    @property
    def allots(self) -> bool:
        """Whether tasks run where they are given what they ask for, and not on this machine as it is."""
        return self.name in ("slurm", "ray")


@dataclass(frozen=True, config=STRICT)
class FeaturesConfig:
    """Configuration of `python -m extract`.

    Attributes:
        follow_links: read clips behind links that lead out of the corpus root; else such a corpus is refused.
        labels: as in stage two: clips whose label is null are not computed. Features go by no label, so names change
            nothing; one that the corpus has not is refused here already.
        pooling: over a clip's own tokens: mean, mean and standard deviation side by side, the last token, or
            the class token.
        layers: hidden states that are kept: all, the last, or these numbers (0: the embedding output).
        window_seconds: sound that is longer is encoded in windows of this length, whose rows are pooled; null: in the
            longest that the encoder takes (Whisper 30 s, AST 10), whole where it takes any.
        hop_seconds: from the beginning of one window to that of the next; null: they do not overlap.
        compute: number format of the encoders; the features are kept as float32.
        batch_size: clips that an encoder takes at a time; null: 8 on a GPU, 1 on a CPU, where larger batches fall
            out of cache (VideoMAE-base is 18 % slower with four).
        remote: `s3://bucket/name`, an object store where each unit is put as soon as it is complete, and from where
            those come that are there already; null: none.
        max_failed: more failed clips than this end the run with exit code 3.
        threads: torch threads per rank.
        max_restarts: how often ranks are started again after one died.
        retry_failed: compute units with failed clips again.
        engine: what starts the ranks, and what it is told.
        restore_media: decode again what the media store has lost, for fine-tuning; features alone do not need it.
    """

    corpus: str
    corpus_root: str | None = None
    follow_links: bool = False
    labels: LabelMapping = field(default_factory=dict)
    features_dir: str = "features"
    remote: Address | None = None
    encoders: Encoders = field(default_factory=Encoders)
    whisper: WhisperSettings = field(default_factory=WhisperSettings)
    pooling: Pooling = "mean"
    layers: StoredLayers = "all"
    window_seconds: Annotated[float, Field(ge=0.1)] | None = None
    hop_seconds: Annotated[float, Field(ge=0.01)] | None = None
    compute: Literal["float32", "bfloat16", "float16"] = "float32"
    asr: Asr = field(default_factory=Asr)
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    conditions: Annotated[tuple[NamedCondition, ...], BareName] = DEFAULT_CONDITIONS
    media: MediaSettings = field(default_factory=MediaSettings)
    batch_size: Annotated[int, Field(ge=1)] | None = None
    max_failed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=1)] = 1
    max_restarts: Annotated[int, Field(ge=0)] = 3
    retry_failed: bool = False
    restore_media: bool = False
    engine: Engine = field(default_factory=Engine)

    def __post_init__(self) -> None:
        """Refuse a run without any encoder, and windows that would leave sound out."""
        if not any((self.encoders.audio, self.encoders.video, self.encoders.text)):
            raise ValueError("encoders: every modality is null; name at least one encoder")
        if self.remote is not None and self.retry_failed:
            raise ValueError(
                "retry_failed: what is at a remote is never replaced; retry with remote=null, then name another remote"
            )
        if self.hop_seconds is not None and (self.window_seconds is None or self.hop_seconds > self.window_seconds):
            window = "null" if self.window_seconds is None else f"{self.window_seconds:g}"
            raise ValueError(
                f"hop_seconds={self.hop_seconds:g} with window_seconds={window}: set window_seconds to that or more"
            )
