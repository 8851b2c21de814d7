"""`fuse.load`: a trained run that takes media files.

Shape letters: C classes, D width.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from cache.corpus.stretch import Stretch
from cache.files.place import local_path
from cache.media import Failure, Media, Source
from configs.loader import load_config
from configs.schema.features import FeaturesConfig
from configs.schema.fusion import FusionConfig
from configs.schema.predict import AppConfig, PredictConfig
from extract.asr.transcript import Transcript
from extract.media.decode import decode_all, decoders
from fuse.model.fusion import FusionModel, standardise
from fuse.predict.contributions import Subset, shapley_values, subsets
from fuse.predict.encode import ClipEncoder, EncodedClip, Row, with_encoders
from fuse.runs.checkpoint import Checkpoint, read_checkpoint
from fuse.runs.folder import CHECKPOINT, CONFIG, run_folders
from fuse.runs.predict import predict
from fuse.stack.rows import torch_device

if TYPE_CHECKING:
    import pandas as pd

    from configs.command.workers import Workers

FEATURES_CONFIG = "config.yaml"


@dataclass(frozen=True)
class Prediction:
    """What a run says of one clip.

    Attributes:
        clip: the path as it was given.
        probabilities: by label, in the run's order; empty where the clip could not be read.
        contributions: by modality, how much it adds to the probability of the predicted label (Shapley values).
        missing: by modality that the clip lacks, why; the run's stand-in takes its place.
        unfamiliar: modalities whose features lie further from the training clips than those of the run's
            validation speakers did: the probabilities are not to be trusted.
        heard: transcript with word times; None where the run listens to no words.
        failure: why the clip could not be read; "" if it could.
    """

    clip: str
    probabilities: Mapping[str, float] = field(default_factory=dict)
    contributions: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    unfamiliar: tuple[str, ...] = ()
    heard: Transcript | None = None
    failure: str = ""

    @property
    def label(self) -> str:
        """The most probable label; "" where the clip could not be read."""
        return max(self.probabilities, key=lambda label: self.probabilities[label]) if self.probabilities else ""


@dataclass(frozen=True)
class _Member:
    """One fold and seed of a run."""

    checkpoint: Checkpoint
    head: FusionModel


class TrainedModel:
    """A run and its encoders, loaded once. Several folds and seeds answer together, by their mean probabilities."""

    def __init__(self, members: Sequence[Checkpoint], encoder: ClipEncoder) -> None:
        """`members`: the run's checkpoints, of one label set and one kind of features."""
        self.encoder = encoder
        self._pool: Workers | None = None
        self._members = [_Member(one, one.head()) for one in members]

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels, in the run's order."""
        return self._members[0].checkpoint.label_names

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the run takes, in its order."""
        return self._members[0].checkpoint.modalities

    def predict(
        self, clips: Sequence[str | Path], statements: Sequence[str] | None = None, speaker: str | None = None
    ) -> pd.DataFrame:
        """Predict media files.

        Args:
            clips: paths.
            statements: what is said in each; only for a run that reads statements and has no recogniser.
            speaker: of an adapted run, whose clips these are: one of those that it knows.

        Returns:
            A row per clip, in order: `clip`, `label`, `p_<label>`..., `contribution_<modality>`..., `missing`,
            `unfamiliar`, `transcript`, `failure`.
        """
        return self.table(list(self.predictions([Path(clip) for clip in clips], statements, speaker)))

    def table(self, predictions: Sequence[Prediction]) -> pd.DataFrame:
        """A row per prediction, with the columns of `predict`."""
        import pandas as pd

        return pd.DataFrame([self._row(one) for one in predictions])

    def predictions(
        self,
        paths: Sequence[Path],
        statements: Sequence[str] | None = None,
        speaker: str | None = None,
        stretches: Sequence[Stretch | None] | None = None,
    ) -> Iterator[Prediction]:
        """The same, one after the other, as records.

        Raises:
            ValueError: the run is adapted to speakers, and knows none of that name; other than one statement a clip.
        """
        if statements is not None and len(statements) != len(paths):
            raise ValueError(f"{len(statements)} statements for {len(paths)} clips; give each clip one, or none at all")
        self.refuse_speaker(speaker)
        decoded = self.decoded(paths, stretches)
        parts = stretches or [None] * len(paths)
        for path, part, said, (one, _) in zip(paths, parts, statements or [""] * len(paths), decoded, strict=True):
            yield self.predict_media(f"{path}{part or ''}", one, said, speaker)

    def decoded(
        self, paths: Sequence[Path], stretches: Sequence[Stretch | None] | None = None
    ) -> Iterator[tuple[Media | Failure, Source]]:
        """Files, or stretches of them, decoded as the run's features were made, one after the other."""
        media = self.encoder.config.media
        return decode_all(
            paths,
            frames=self.encoder.frames,
            size=media.size,
            workers=media.decode_workers,
            timeout_seconds=media.timeout_seconds,
            check=lambda: None,
            cut=self.encoder.cut,
            reader=media.reader,
            stretches=stretches,
            pool=self._decoders(),
        )

    def _decoders(self) -> Workers:
        """Started with the first clip and kept: to start and end them takes longer than all of a clip's decoding."""
        if self._pool is None or not self._pool.active:
            media = self.encoder.config.media
            self._pool = decoders(media.decode_workers, self.encoder.cut, media.reader)
            weakref.finalize(self, self._pool.stop)
        return self._pool

    def predict_media(
        self, clip: str, media: Media | Failure, statement: str = "", speaker: str | None = None
    ) -> Prediction:
        """Predict one clip that has been decoded."""
        if isinstance(media, Failure):
            return Prediction(clip, failure=media.reason)
        return self.judge(clip, self.encoder.encode(media, statement), speaker)

    def judge(self, clip: str, encoded: EncodedClip, speaker: str | None = None) -> Prediction:
        """Predict one clip that has been encoded."""
        if not encoded.rows:
            why = "; ".join(f"{name}: {reason}" for name, reason in encoded.missing.items())
            return Prediction(clip, missing=encoded.missing, heard=encoded.heard, failure=f"nothing to go by ({why})")
        worth_C = {subset: self._probabilities(encoded, subset, speaker) for subset in subsets(list(encoded.rows))}
        probabilities_C = worth_C[frozenset(encoded.rows)]
        best = int(probabilities_C.argmax())
        worth = {subset: float(one_C[best]) for subset, one_C in worth_C.items()}
        return Prediction(
            clip,
            dict(zip(self.label_names, probabilities_C.tolist(), strict=True)),
            shapley_values(worth, list(encoded.rows)),
            encoded.missing,
            self._unfamiliar(encoded, speaker),
            encoded.heard,
        )

    def refuse_speaker(self, speaker: str | None) -> None:
        """Refuse a speaker that an adapted run does not know, or any for a run that is not.

        Raises:
            ValueError: one line that names those it knows.
        """
        known = sorted(set.intersection(*(set(member.checkpoint.speakers) for member in self._members)))
        adapted = self._members[0].checkpoint.standardise == "speaker"
        if adapted and speaker not in known:
            said = "needs speaker=" if speaker is None else f"does not know speaker {speaker}; give"
            raise ValueError(
                f"the run is adapted to its speakers and {said} one of {', '.join(known)}; "
                "for others use a run with standardise=train"
            )
        if speaker is not None and not adapted:
            raise ValueError(f"speaker={speaker}: the run is not adapted to speakers; leave speaker out")

    def _probabilities(self, encoded: EncodedClip, given: Subset, speaker: str | None) -> npt.NDArray[np.float64]:
        """(C,), with all modalities withheld that are not given; the mean over folds and seeds."""
        answers = []
        for member in self._members:
            rows = {
                name: torch.from_numpy(_adapted(member, name, encoded.rows[name], speaker))[None]
                if name in given
                else torch.full((1, width), torch.nan)
                for name, width in member.head.widths.items()
            }
            answers.append(predict(member.head, rows)[0])
        mean_C: npt.NDArray[np.float64] = np.mean(answers, axis=0)
        return mean_C

    def _unfamiliar(self, encoded: EncodedClip, speaker: str | None) -> tuple[str, ...]:
        """Modalities that most of the folds and seeds find far from their training clips."""
        alarms = {
            name: [_is_far(member, name, row, speaker) for member in self._members]
            for name, row in encoded.rows.items()
        }
        return tuple(name for name, found in alarms.items() if sum(found) * 2 > len(found))

    def _row(self, one: Prediction) -> dict[str, object]:
        return {
            "clip": one.clip,
            "label": one.label,
            **{f"p_{name}": one.probabilities.get(name, np.nan) for name in self.label_names},
            **{f"contribution_{name}": one.contributions.get(name, np.nan) for name in self.modalities},
            "missing": "; ".join(f"{name}: {reason}" for name, reason in one.missing.items()),
            "unfamiliar": "+".join(one.unfamiliar),
            "transcript": one.heard.transcript if one.heard else "",
            "failure": one.failure,
        }


def load(
    run: str | Path,
    *,
    features_dir: str | Path | None = None,
    encoders: Mapping[str, str | None] | None = None,
    asr_model: str | None = None,
    device: str = "auto",
) -> TrainedModel:
    """Load a run, of stage two or fine-tuned, so that it predicts media files.

    Args:
        run: its folder (`output_dir`), or one fold and seed of it.
        features_dir: the features that it was trained on; default: where its configuration says.
        encoders: by modality, where an encoder is now; default: where the features folder says.
        asr_model: the same of the recogniser.
        device: auto, cpu or cuda.

    Raises:
        ValueError: one line: there is no such run, or its encoders cannot be found or are others.
    """
    leaves = run_folders(local_path(run))
    members = [read_checkpoint(leaf / CHECKPOINT) for leaf in leaves]
    for leaf, member in zip(leaves, members, strict=True):
        if (member.features, member.label_names) != (members[0].features, members[0].label_names):
            raise ValueError(f"{leaf} was trained on other features or labels than {leaves[0]}; name one of them")
        if member.fine_tuned and len(members) > 1:
            raise ValueError(f"{run} holds {len(members)} fine-tuned runs, each with encoders of its own; name one")
    folder = local_path(features_dir) if features_dir is not None else _features_dir(leaves[0])
    config = with_encoders(_features_config(folder, leaves[0]), encoders or {}, asr_model)
    return TrainedModel(members, ClipEncoder(config, members[0], Path(run), torch_device(device)))


def load_configured(config: PredictConfig | AppConfig) -> TrainedModel:
    """`load` as a configuration says."""
    return load(
        config.run,
        features_dir=config.features_dir,
        encoders=asdict(config.encoders),
        asr_model=config.asr_model,
        device=config.device,
    )


def _features_dir(leaf: Path) -> Path:
    import yaml

    config = yaml.safe_load((leaf / CONFIG).read_text(encoding="utf-8"))
    return Path(config.get("features_dir", FusionConfig.features_dir))


def _features_config(folder: Path, leaf: Path) -> FeaturesConfig:
    file = folder / FEATURES_CONFIG
    if not file.is_file():
        raise ValueError(f"{leaf} was trained on the features in {folder}, and there is no {file}; set features_dir")
    return load_config(FeaturesConfig, file)


def _adapted(member: _Member, name: str, row_D: Row, speaker: str | None) -> Row:
    if speaker is None:
        return row_D
    known = member.checkpoint.speakers[speaker]
    adapted_D: Row = (row_D - known.mean[name]) / known.scale[name]
    return adapted_D


def _is_far(member: _Member, name: str, row_D: Row, speaker: str | None) -> bool:
    described = member.checkpoint.familiarity.get(name)
    if described is None:
        return False
    standardiser = member.head.standardiser
    seen_1D = standardise(
        torch.from_numpy(_adapted(member, name, row_D, speaker))[None],
        standardiser.mean_[name],
        standardiser.scale_[name],
    )
    return bool(described.distances(seen_1D.detach().numpy())[0] > described.limit)
