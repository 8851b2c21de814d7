"""What stage two may be told."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from cache.conditions import UNCHANGED
from cache.protocols.cross_corpus import CROSS_CORPUS
from configs.loader import STRICT
from configs.schema.fields import Address, BareName, LabelMapping, NamedCondition
from configs.schema.protocols import AUTO

# A layer, the last one, the mean of all, all of them mixed by learned weights, the mean of a range (both ends
# included), or several side by side.
Layers = (
    Annotated[int, Field(ge=0)]
    | Literal["last", "mean", "mix"]
    | tuple[int, int]
    | Annotated[str, Field(pattern=r"^[0-9]+(\+[0-9]+)+$")]
)
Probability = Annotated[float, Field(ge=0, le=1)]


def _checked(width: Any) -> Any:
    if width != "auto" and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
        raise ValueError(f"{width!r} is neither auto nor a whole number from 1: how many heads train at once")
    return width


# A union of its own would name only one of the two that are allowed.
StackWidth = Annotated[Literal["auto"] | int, BeforeValidator(_checked)]


@dataclass(frozen=True, config=STRICT)
class Optim:
    """AdamW with cosine annealing. `batch_size` 32 is the 2 x 16 of two ranks.

    `keep` is the epoch whose weights are used: the `best` by validation UAR, which flatters validation, or the `last`,
    which leaves validation untouched. `shrinkage` is of the covariance of the head `lda`, `regularisation` the L2
    penalty of the head `logistic` (1 / C of scikit-learn): both are solved and use none of the others; with `augment`,
    they see `epochs` draws of every clip.
    """

    lr: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=1)] = 32
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    keep: Literal["best", "last"] = "best"
    shrinkage: Annotated[float, Field(gt=0, le=1)] = 0.5
    regularisation: Annotated[float, Field(gt=0)] = 100.0


@dataclass(frozen=True, config=STRICT)
class Augment:
    """Cached variants to train on: with `probability`, a clip's row is drawn from one of them."""

    audio: Annotated[tuple[NamedCondition, ...], BareName] = ()
    video: Annotated[tuple[NamedCondition, ...], BareName] = ()
    probability: Probability = 0.5

    def __post_init__(self) -> None:
        """Refuse conditions of the other modality."""
        for modality in ("audio", "video"):
            for joint in getattr(self, modality):
                if [part.modality for part in joint.parts] != [modality]:
                    raise ValueError(f"{modality}: {joint} does not change {modality} alone")


def _nothing(value: Any) -> Any:
    return {} if value is None else value


# `augment: null` is no augmentation.
Augmentation = Annotated[Augment, BeforeValidator(_nothing)]


@dataclass(frozen=True, config=STRICT)
class TargetCorpus:
    """The corpus that `protocol: cross-corpus` tests on: its metadata, its features, other names for its labels."""

    corpus: str
    features_dir: str
    labels: LabelMapping = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class FusionConfig:
    """Configuration of `python -m fuse.train`.

    Attributes:
        labels: other names for labels of the corpus, e.g. {anger: angry}; null leaves their clips out.
        remote: `s3://bucket/name`, from where what is read comes into `features_dir`, as far as it is not there; null:
            nowhere.
        target: for `protocol: cross-corpus`, the corpus to test on; the others are of the one that is trained on.
        encoders: which encoder's features, by modality; needed where a store holds several.
        protocol: `auto` is the one that fits the corpus: its name is printed, and saved in place of `auto`.
        condition: what is trained, validated and tested on.
        unimodal: the kind of each modality's own head, of the heads `late-calibrated` and `late-reliable`.
        layers: one choice for all modalities, or one by modality.
        standardise: `train`: by mean and SD of the training speakers; `speaker`: also, before that, by those of each
            speaker's own clips, which uses no label but sees the test speakers' clips; `none`.
        missing: what stands for a modality that a clip lacks: the training `mean` (of standardised rows; else 0), a
            row of raw `zero`s, or one that is `learned` where clips lack it in training.
        augment: cached variants to draw from in training; null: none.
        modality_dropout: chance that a clip's modality is withheld in training; one always stays.
        overwrite: replace a run of another configuration that is in `output_dir`; else it is refused.
        tensorboard: also write losses, scores and figures of each run for TensorBoard, which has to be installed.
        device: `auto` is a GPU where there is one.
        precision: of the products of heads in training; weights, AdamW and scores are float32. `bfloat16` is for
            processors that multiply it; a head then comes near itself in another stack, and does not equal it.
        stack_width: how many heads are trained at once; `auto`: the fastest here, which is timed. The last bits of a
            score depend on it: a run and a sweep record theirs, and with that number they come out bit for bit again.
    """

    corpus: str
    features_dir: str = "features"
    remote: Address | None = None
    labels: LabelMapping = field(default_factory=dict)
    target: TargetCorpus | None = None
    encoders: dict[str, str] = field(default_factory=dict)
    modalities: Annotated[tuple[str, ...], Field(min_length=1), BareName] = ("audio", "video", "text")
    protocol: str = AUTO
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    condition: NamedCondition = UNCHANGED
    head: str = "mlp"
    unimodal: str = "lda"
    hidden: Annotated[int, Field(ge=1)] = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    layers: Layers | dict[str, Layers] = "mean"
    standardise: Literal["train", "speaker", "none"] = "train"
    missing: Literal["mean", "zero", "learned"] = "mean"
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augment: Augmentation = field(default_factory=Augment)
    optim: Optim = field(default_factory=Optim)
    overwrite: bool = False
    tensorboard: bool = False
    output_dir: str = "outputs/fusion"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1)] = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    stack_width: StackWidth = "auto"

    def __post_init__(self) -> None:
        """Refuse what is named twice, and a corpus to test on that the protocol does not test on."""
        if self.protocol == CROSS_CORPUS and self.target is None:
            raise ValueError(
                "protocol=cross-corpus tests on another corpus: set target={corpus: ..., features_dir: ...}"
            )
        if self.target is not None and self.protocol not in (AUTO, CROSS_CORPUS):
            raise ValueError(
                f"target is what protocol=cross-corpus tests on, not {self.protocol}; leave one of them out"
            )
        for name in ("modalities", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names something twice: {', '.join(map(str, values))}")
