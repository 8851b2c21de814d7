"""What a configuration says of its corpus holds in every stage that reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache.corpus.clips import write_metadata
from cache.corpus.ravdess import LABELS
from configs.loader import check, load_config
from configs.schema.fusion import FusionConfig
from configs.schema.studies import EnrolmentConfig, ReportConfig, RobustnessConfig
from configs.schema.sweep import SweepConfig
from fuse.predict.features import features as features_of
from fuse.robustness.__main__ import run as robustness
from fuse.scores.predictions import read_predictions
from fuse.studies.enrolment.__main__ import run as enrolment
from fuse.studies.report.__main__ import run as report
from fuse.sweep.__main__ import run as sweep
from fuse.sweep.rank import work
from fuse.train import run as train
from tests.tiny.features import tiny_clips, write_tiny_features

pytestmark = pytest.mark.usefixtures("all_undrawn")
# What the metadata says, and what is meant.
WRITTEN = {"angry": "Anger", "happy": "happiness", "calm": "boredom"}
MAPPING = {"anger": "angry", "happiness": "happy", "boredom": None}
SEVEN = tuple(label for label in LABELS if label != "calm")
TOLD = "note: 6 clips left out, whose label is null in labels: boredom"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of three speakers, whose labels are called otherwise."""
    folder = tmp_path_factory.mktemp("mapped")
    clips = tiny_clips((31, 32, 33))
    write_tiny_features(folder, clips, {"noise-white-0db": 3.0})
    write_metadata(
        [replace(clip, label=WRITTEN.get(clip.label, clip.label)) for clip in clips], folder / "metadata.csv"
    )
    settings = shared(folder) | {"standardise": "speaker", "output_dir": str(folder / "run")}
    assert train(check(FusionConfig, settings, "test")) == 0
    return folder


def shared(folder: Path) -> dict[str, Any]:
    return {
        "corpus": str(folder / "metadata.csv"),
        "features_dir": str(folder),
        "labels": MAPPING,
        "modalities": ["audio", "video"],
        "head": "lda",
    }


def test_a_run_is_of_the_labels_that_are_meant(folder: Path) -> None:
    """Foreign names were classes of their own, and clips without a place had to be taken out of the table by hand."""
    predictions = read_predictions(folder / "run/predictions.csv").select(split="test")
    assert predictions.label_names == SEVEN
    assert len(predictions) == 3 * 2 * len(SEVEN)
    assert load_config(FusionConfig, folder / "run/config.yaml").labels == MAPPING


def test_what_is_read_again_goes_by_the_names_of_the_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, noisy = str(folder / "run"), ["noise-white-0db"]
    settings: dict[str, Any] = {"runs": [run], "conditions": noisy, "output_dir": str(tmp_path / "robustness")}
    assert robustness(check(RobustnessConfig, settings, "test")) == 0
    assert TOLD in capsys.readouterr().out
    again = read_predictions(tmp_path / "robustness/predictions.csv")
    assert again.label_names == SEVEN
    settings = {"run": run, "clips": [2], "draws": 2, "output_dir": str(tmp_path / "enrolment")}
    assert enrolment(check(EnrolmentConfig, settings, "test")) == 0
    assert TOLD in capsys.readouterr().out
    assert report(check(ReportConfig, {"run": run}, "test")) == 0
    assert TOLD in capsys.readouterr().out


def test_other_names_than_the_run_has_are_refused(folder: Path, tmp_path: Path) -> None:
    settings = {"runs": [str(folder / "run")], "conditions": [], "output_dir": str(tmp_path)}
    with pytest.raises(ValueError, match=r"labels of this corpus are not those of the run .*missing: happy"):
        robustness(check(RobustnessConfig, {**settings, "labels": {**MAPPING, "happiness": "glad"}}, "test"))
    with pytest.raises(ValueError, match=r"labels: .* has no label 'angre' \(did you mean Anger\?\)"):
        robustness(check(RobustnessConfig, {**settings, "labels": {"angre": "angry"}}, "test"))


def test_a_sweep_and_a_notebook_take_names_as_well(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"run": shared(folder), "grid": {"optim.shrinkage": [0.2, 0.5]}, "output_dir": str(tmp_path)}
    monkeypatch.setattr("fuse.sweep.__main__._launch", lambda out, *_: work(out, 0, 1))
    assert sweep(check(SweepConfig, told, "test")) == 0
    assert load_config(FusionConfig, tmp_path / "best.yaml").labels == MAPPING
    assert read_predictions(tmp_path / "runs/0/predictions.csv").label_names == SEVEN
    found = features_of(folder, ["audio"], corpus=folder / "metadata.csv", labels=MAPPING)
    assert found.label_names == SEVEN
    assert len(found.table.clips) == 3 * 2 * len(SEVEN)


def test_an_older_run_without_names_is_the_same_run(folder: Path, tmp_path: Path) -> None:
    """Keys that came later must not make an earlier run one of another configuration."""
    out = tmp_path / "run"
    settings = check(FusionConfig, {**shared(folder), "labels": {}, "output_dir": str(out)}, "test")
    assert train(settings) == 0
    text = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(text.replace("labels: {}\n", ""))
    assert train(settings) == 0
    with pytest.raises(ValueError, match=r"another configuration \(labels: "):
        train(replace(settings, labels=MAPPING))
