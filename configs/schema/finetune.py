"""What fine-tuning may be told."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from cache.conditions import UNCHANGED
from configs.loader import STRICT
from configs.schema.features import Encoders
from configs.schema.fields import BareName, LabelMapping, NamedCondition
from configs.schema.fusion import Augment, Augmentation, Layers


@dataclass(frozen=True, config=STRICT)
class FinetuneOptim:
    """AdamW with cosine annealing, the default recipe.

    Attributes:
        lr: of the head.
        encoder_lr_scale: the encoders learn at this share of `lr`: their weights are to be adapted, not replaced.
        batch_size: clips that a rank encodes at once.
        accumulate: how often it does so before a step: a step is of batch_size x accumulate x ranks clips.
    """

    lr: Annotated[float, Field(gt=0)] = 1e-4
    encoder_lr_scale: Annotated[float, Field(ge=0)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=1)] = 16
    accumulate: Annotated[int, Field(ge=1)] = 1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


@dataclass(frozen=True, config=STRICT)
class FinetuneConfig:
    """Configuration of `python -m fuse.finetune`.

    `modalities`, `protocol`, `seeds`, `head`, `hidden`, `dropout`, `layers` and `standardise` belong to the run
    that is continued: null takes them from there, and anything that contradicts it is refused. Only `seeds` may
    differ: it then seeds batch order, crops, augmentation and dropout.

    Attributes:
        labels: other names for labels of the corpus; null takes the mapping of the run that is continued.
        encoders: hub name or local directory of each encoder; the weights that stage one ran.
        init: a run folder of stage two (one fold, one seed) to start from.
        unfreeze: `all`, `none`, or how many of each encoder's last blocks are trained.
        audio_seconds: length that sound is cut or repeated to.
        augment: conditions applied on the fly; with `probability`, a clip's signal is under one of them; null: none.
        precision: of the encoders; `auto` is bfloat16 where the GPU has it, float16 on older GPUs, float32 on CPUs.
        checkpoint_minutes: what an interrupted training needs to go on is written so often, and after every epoch.
        loader_workers: processes per rank that read and prepare clips; 0 does it in the rank itself.
        overwrite: replace a run of another configuration that is in `output_dir`, finished or interrupted; else it is
            refused.
        tensorboard: also write losses, scores and figures for TensorBoard, which has to be installed.
    """

    corpus: str
    features_dir: str = "features"
    labels: LabelMapping | None = None
    encoders: Encoders = field(default_factory=Encoders)
    init: str = "outputs/fusion"
    unfreeze: Literal["all", "none"] | Annotated[int, Field(ge=0)] = "all"
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
    audio_seconds: Annotated[float, Field(gt=0, le=600)] = 3.0
    optim: FinetuneOptim = field(default_factory=FinetuneOptim)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gradient_checkpointing: bool = False
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    loader_workers: Annotated[int, Field(ge=0, le=64)] = 0
    overwrite: bool = False
    tensorboard: bool = False
    output_dir: str = "outputs/finetune"
    threads: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        """Refuse several seeds, and encoders that learn at a rate of nothing."""
        if self.seeds is not None and len(self.seeds) > 1:
            raise ValueError(f"seeds: a fine-tune has one seed, got {len(self.seeds)}; run it once per seed")
        if not self.optim.encoder_lr_scale and self.unfreeze not in ("none", 0):
            raise ValueError(
                f"optim.encoder_lr_scale=0 and unfreeze={self.unfreeze}: no encoder would learn; "
                "set unfreeze=none to train the head alone"
            )
