"""What fine-tuning may be told."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from cache.conditions import UNCHANGED
from configs.loader import STRICT
from configs.schema.features import Encoders
from configs.schema.fields import Address, BareName, LabelMapping, NamedCondition
from configs.schema.fusion import Augment, Augmentation, Layers


@dataclass(frozen=True, config=STRICT)
class FinetuneOptim:
    """AdamW with cosine annealing, the default recipe.

    Attributes:
        lr: of the head.
        encoder_lr_scale: the encoders learn at this share of `lr`: their weights are to be adapted, not replaced.
        batch_size: clips that a rank encodes at once.
        accumulate: how often it does so before a step: a step is of batch_size x accumulate x ranks clips.
        layer_decay: each block of an encoder learns at this share of the rate of the block after it; what is before
            the blocks, at this share of the first one's.
        warmup: share of all steps in which rates rise from nothing, before they fall by a cosine.
        clip_norm: gradients of a greater norm are shortened to it; null: none is.
        patience: training ends after so many epochs without a better one; null: never before `epochs`.
        average: share that a moving average of the weights keeps of itself in each step, e.g. 0.99; it is then what is
            validated and kept. null: no average.
    """

    lr: Annotated[float, Field(gt=0)] = 1e-4
    encoder_lr_scale: Annotated[float, Field(ge=0)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=1)] = 16
    accumulate: Annotated[int, Field(ge=1)] = 1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    average: Annotated[float, Field(gt=0, lt=1)] | None = None


@dataclass(frozen=True, config=STRICT)
class Lora:
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) beside the linear layers of blocks that `unfreeze` names.

    They alone learn of an encoder, and are merged into its weights when training ends.

    Attributes:
        rank: of each adapter.
        alpha: the adapters count alpha / rank times.
        dropout: of what goes into them.
    """

    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[int, Field(ge=1)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


@dataclass(frozen=True, config=STRICT)
class SpecAugment:
    """Spans that are hidden in training (Park et al. 2019, arXiv 1904.08779), of what the encoder of sound is given.

    In log-mel windows these are spans of time and of mel bands, in waveforms spans of time alone. Each is of a length
    that is drawn from nothing up to the share that is named, and is filled with the clip's mean.

    Attributes:
        time_spans, mel_spans: how many.
        time_share, mel_share: the most that one takes of the clip's time, or of the bands.
    """

    time_spans: Annotated[int, Field(ge=0)] = 2
    time_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    mel_spans: Annotated[int, Field(ge=0)] = 2
    mel_share: Annotated[float, Field(ge=0, le=1)] = 0.2


Unfreeze = Literal["all", "none", "norms"] | Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class FinetuneConfig:
    """Configuration of `python -m fuse.finetune`.

    `modalities`, `protocol`, `seeds`, `head`, `hidden`, `dropout`, `layers` and `standardise` belong to the run
    that is continued: null takes them from there, and anything that contradicts it is refused. Only `seeds` may
    differ: it then seeds batch order, crops, augmentation and dropout.

    Attributes:
        labels: other names for labels of the corpus; null takes the mapping of the run that is continued.
        remote: `s3://bucket/name`, from where features and decoded clips come into `features_dir`, as far as they are
            not there; null: nowhere.
        encoders: hub name or local directory of each encoder; the weights that stage one ran.
        init: a run folder of stage two (one fold, one seed) to start from.
        unfreeze: `all`, `none`, `norms` (their normalisations alone), or how many of each encoder's last blocks are
            trained; one choice for all encoders, or one by modality (`none` for those that are not named).
        train_front_end: train the convolutions of wav2vec 2.0 and its kin too, where `unfreeze` is `all` or `norms`.
        lora: adapters that learn in place of the weights; null: none.
        audio_seconds: length that sound is cut or repeated to; null: every clip is encoded whole, as in stage one, and
            clips of other lengths one after the other, which takes longer (Whisper is told where each ends).
        augment: conditions applied on the fly; with `probability`, a clip's signal is under one of them; null: none.
        modality_dropout: chance that a clip's modality is withheld in training; one always stays.
        spec_augment: hides spans of the sound in training; null: none.
        speeds: in training, each clip's sound is played at one of these speeds, 1 as it is; the pitch goes with it, as
            of a tape. Whoever is sped up sounds smaller: with few speakers, as if there were more. Empty: as it is.
        precision: of the encoders; `auto` is bfloat16 where the GPU has it, float16 on older GPUs, float32 on CPUs.
        checkpoint_minutes: what an interrupted training needs to go on is written so often, and after every epoch.
        hang_seconds: how long ranks wait for one another before the job ends: one of them hangs then.
        loader_workers: processes per rank that read and prepare clips; 0 does it in the rank itself.
        export: also write the encoders as transformers knows them, the head and a card, to `output_dir`/export.
        test: score the test speakers too; false leaves these untouched while recipes are looked for.
        overwrite: replace a run of another configuration that is in `output_dir`, finished or interrupted; else it is
            refused.
        tensorboard: also write losses, scores and figures for TensorBoard, which has to be installed.
    """

    corpus: str
    features_dir: str = "features"
    remote: Address | None = None
    labels: LabelMapping | None = None
    encoders: Encoders = field(default_factory=Encoders)
    init: str = "outputs/fusion"
    unfreeze: Unfreeze | dict[str, Unfreeze] = "all"
    train_front_end: bool = False
    lora: Lora | None = None
    condition: NamedCondition = UNCHANGED
    modalities: Annotated[Annotated[tuple[str, ...], Field(min_length=1)] | None, BareName] = None
    protocol: str | None = None
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    head: str | None = None
    hidden: int | None = None
    dropout: float | None = None
    layers: Layers | dict[str, Layers] | None = None
    standardise: Literal["train", "none"] | None = None
    augment: Augmentation = field(default_factory=Augment)
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    spec_augment: SpecAugment | None = None
    speeds: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = ()
    audio_seconds: Annotated[float, Field(gt=0, le=600)] | None = 3.0
    optim: FinetuneOptim = field(default_factory=FinetuneOptim)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gradient_checkpointing: bool = False
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    hang_seconds: Annotated[float, Field(gt=0)] = 40.0
    loader_workers: Annotated[int, Field(ge=0, le=64)] = 0
    export: bool = True
    test: bool = True
    overwrite: bool = False
    tensorboard: bool = False
    output_dir: str = "outputs/finetune"
    threads: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        """Refuse several seeds, and encoders that learn at a rate of nothing."""
        if self.seeds is not None and len(self.seeds) > 1:
            raise ValueError(f"seeds: a fine-tune has one seed, got {len(self.seeds)}; run it once per seed")
        choices = set(self.unfreeze.values() if isinstance(self.unfreeze, dict) else (self.unfreeze,))
        if not self.optim.encoder_lr_scale and choices - {"none", 0}:
            raise ValueError(
                f"optim.encoder_lr_scale=0 and unfreeze={self.unfreeze}: no encoder would learn; "
                "set unfreeze=none to train the head alone"
            )
        if self.lora is not None and "norms" in choices:
            raise ValueError("lora stands beside linear layers; with it set unfreeze to all or to a number of blocks")

    def unfrozen(self, modality: str) -> Unfreeze:
        """What is trained of one encoder."""
        return self.unfreeze.get(modality, "none") if isinstance(self.unfreeze, dict) else self.unfreeze
