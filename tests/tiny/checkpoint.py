"""A checkpoint of a head that nobody trained."""

from __future__ import annotations

import numpy as np

from cache.corpus.ravdess import LABELS
from cache.protocols.folds import Fold
from fuse.model.fusion import FusionModel, ModelSettings
from fuse.runs.adaptation import SpeakerStatistics
from fuse.runs.checkpoint import Checkpoint


def tiny_checkpoint() -> Checkpoint:
    """Of an adapted run on two modalities."""
    settings = ModelSettings("mlp", {"video": 3, "audio": 4}, len(LABELS), hidden=5)
    known = SpeakerStatistics(
        {"video": np.zeros(3, np.float32), "audio": np.arange(4, dtype=np.float32)},
        {"video": np.ones(3, np.float32), "audio": np.full(4, 0.5, np.float32)},
    )
    return Checkpoint(
        settings=settings,
        state=FusionModel(settings).state_dict(),
        label_names=LABELS,
        layers={"audio": (1, 2), "video": "2+3"},
        standardise="speaker",
        condition="clean",
        protocol="sentence-held-out",
        fold=Fold(2, ("1", "2"), ("3",), ("4",), listed=(("a", "b"), ("c",), ("d",))),
        seed=7,
        encoders={"video": "videomae", "audio": "wav2vec2"},
        features={
            "video": {"encoder": "videomae", "media.frames": 16, "layers": [2, 3]},
            "audio": {"encoder": "wav2vec2", "dtype": "float32", "layers": [1, 2]},
        },
        speakers={"1": known},
    )
