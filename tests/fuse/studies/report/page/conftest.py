"""Runs on disk as a report reads them, with names that would be HTML if nobody escaped them; nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cache.files.csv import csv_text
from fuse.scores.predictions import Predictions, concatenate, write_predictions

HOSTILE = "<img src=x onerror=\"document.title='owned'\">&'"
LABELS = ("happy", "sad", "<b>bold</b>")
CONDITIONS = ("clean", "noise-white-10db", "noise-white-0db", "occlude-block-50", "noise-white-0db+occlude-block-50")
SUBSETS = ("audio+video", "audio", "video")
SPEAKERS = ("2", "10", "</script><script>document.title='owned'</script>")
TOUCHED = {"audio": "noise", "video": "occlude"}


@dataclass(frozen=True)
class Written:
    """Two runs and the robustness table of the first."""

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "outputs/one"

    @property
    def other(self) -> Path:
        return self.root / "outputs/two"

    @property
    def robustness(self) -> Path:
        return self.root / "outputs/robustness"


def predicted(seed: int, condition: str, subset: str, weight: float) -> Predictions:
    """Three clips of each label by three speakers, whose answers are the righter the larger `weight` is."""
    speakers = [speaker for speaker in SPEAKERS for _ in LABELS for _ in range(2)]
    labels = np.array([label for _ in SPEAKERS for label in range(len(LABELS)) for _ in range(2)])
    rng = np.random.default_rng([seed, *condition.encode(), *subset.encode()])
    logits = rng.normal(size=(len(labels), len(LABELS))) + weight * np.eye(len(LABELS))[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ids = [f"clip-{number:02d}" for number in range(1, len(labels))]
    return Predictions.of(
        [HOSTILE, *ids],
        speakers,
        ["female" if speaker == "2" else "male" for speaker in speakers],
        labels,
        probabilities,
        protocol="holdout",
        fold=1,
        seed=seed,
        split="test",
        condition=condition,
        modalities=subset,
        label_names=LABELS,
    )


def touches(condition: str, subset: str) -> bool:
    return condition == "clean" or any(word in condition for name, word in TOUCHED.items() if name in subset)


def tried(weight: float = 2.0, seeds: Sequence[int] = (0, 1)) -> Predictions:
    costs = {condition: number / 2 for number, condition in enumerate(CONDITIONS)}
    return concatenate(
        [
            predicted(seed, condition, subset, weight - costs[condition])
            for condition in CONDITIONS
            for subset in SUBSETS
            for seed in seeds
            if touches(condition, subset)
        ]
    )


def write_run(folder: Path, predictions: Predictions, note: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("corpus: data/metadata.csv\nfeatures_dir: features\nhead: mlp # <script>\n")
    write_predictions(predictions, folder / "predictions.csv")
    (folder / "metrics.json").write_text(json.dumps({"test": {}, **({"note": note} if note else {})}))


def write_robustness(folder: Path, run: Path, predictions: Predictions) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(f"runs: ['{run}']\n")
    write_predictions(predictions, folder / "predictions.csv")
    rows = [
        (run.name, subset, condition, 0.9 - 0.1 * number, 0.1 * number or None)
        for number, condition in enumerate(CONDITIONS)
        for subset in SUBSETS
    ]
    header = ("run", "modalities", "condition", "uar", "drop")
    (folder / "robustness_table.csv").write_text(csv_text(header, rows))
    rule = (run.name, f"a rule {HOSTILE}", False, 2, 5, CONDITIONS[-1], 0.25, 0.5)
    names = ("run", "rule", "passed", "held", "conditions", "condition", "uar", "against")
    (folder / "robustness_rules.csv").write_text(csv_text(names, [rule, ("another", *rule[1:])]))


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    site = Written(tmp_path_factory.mktemp("pages"))
    every, other = tried(), tried(1.0)
    write_run(site.run, every.select(condition="clean", modalities=SUBSETS[0]), f"a caveat {HOSTILE}")
    write_run(site.other, other.select(condition="clean", modalities=SUBSETS[0]))
    write_robustness(site.robustness, site.run, every)
    return site
