"""`fuse.features`: what stage one made, as arrays for a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import TensorDataset

from cache.conditions import CLEAN, parse_joint
from cache.corpus.clips import read_corpus
from cache.features.store import open_store
from cache.features.table import FeatureTable, Layers, load_table
from cache.files.place import local_path
from configs.loader import load_config
from configs.schema.features import FeaturesConfig

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Features:
    """Features of the clips of a corpus under one condition.

    Attributes:
        table: as stage two reads it; rows in the order of the corpus.
    """

    table: FeatureTable

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels; `labels` index it."""
        return self.table.label_names

    @property
    def arrays(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """By modality, (clips, width); NaN rows are clips that lack it."""
        return self.table.features

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Index into `label_names` of each clip."""
        return self.table.labels

    @property
    def speakers(self) -> npt.NDArray[np.str_]:
        """Speaker of each clip."""
        return self.table.speakers

    def to_pandas(self) -> pd.DataFrame:
        """A row per clip: its id, label and speaker, and a column per number, `audio_0`..."""
        import pandas as pd

        known = {
            "clip_id": [clip.clip_id for clip in self.table.clips],
            "label": [clip.label for clip in self.table.clips],
            "speaker": [clip.speaker for clip in self.table.clips],
        }
        numbers = [
            pd.DataFrame(values, columns=[f"{name}_{column}" for column in range(values.shape[1])])
            for name, values in self.arrays.items()
        ]
        return pd.concat([pd.DataFrame(known), *numbers], axis=1)

    def dataset(self) -> TensorDataset:
        """For torch's DataLoader: all modalities side by side (width,), and the label."""
        rows_ND = np.concatenate(list(self.arrays.values()), axis=1)
        return TensorDataset(torch.from_numpy(rows_ND), torch.from_numpy(self.labels))


def features(
    features_dir: str | Path,
    modalities: Sequence[str] | None = None,
    *,
    condition: str = CLEAN,
    layers: Layers | Mapping[str, Layers] = "mean",
    corpus: str | Path | None = None,
    labels: Mapping[str, str | None] | None = None,
) -> Features:
    """Load what stage one made; clips that failed are left out (`table.left_out`).

    Args:
        features_dir: the folder of the stores.
        modalities: default: all that the clean store has.
        condition: of the clips.
        layers: as in the configuration of stage two.
        corpus: metadata.csv; default: the one that stage one read.
        labels: other names for its labels; None leaves their clips out.

    Raises:
        ValueError: one line: features are missing, pending or damaged.
    """
    folder = local_path(features_dir)
    if corpus is None:
        corpus = load_config(FeaturesConfig, folder / "config.yaml").corpus
    read = read_corpus(local_path(corpus), follow_links=True, mapping=labels)
    if modalities is None:
        arrays = open_store(folder / f"{CLEAN}.zarr").arrays()
        modalities = tuple(dict.fromkeys(path.partition("/")[0] for path in arrays))
    return Features(load_table(folder, read.clips, modalities, parse_joint(condition), layers, None, read.labels))
