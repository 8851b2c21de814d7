from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from cache.conditions import UNCHANGED
from cache.features.rows import State
from configs.command.entry import main
from configs.loader import load_config
from configs.schema.fusion import FusionConfig, Optim
from configs.schema.protocols import load_protocol
from configs.schema.studies import ReportConfig
from fuse.runs.caveats import RANDOM_NOTE, caveats
from fuse.runs.checkpoint import read_stage_two
from fuse.runs.folder import CHECKPOINT, run_folders
from fuse.runs.tables import table_under
from fuse.studies.report.__main__ import CLIPS_SHOWN_AT_MOST, feature_spaces, run, shown_clips, space_name
from fuse.train import run as run_training
from tests.tiny.features import LAYERS, WIDTHS, tiny_clips, tiny_corpus, write_tiny_features
from tests.tiny.figure_texts import texts
from tests.tiny.places import ROOT

FILES = ("features.png", "layers.png", "layers.csv")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """luna5, two seeds, audio and text; a clip lacks its text."""
    folder = tmp_path_factory.mktemp("report")
    clips = tiny_clips()
    write_tiny_features(folder, clips, states={("clean", "text", clips[5].clip_id): State.ABSENT})
    train(config_of(folder, protocol="luna5", seeds=(0, 1)))
    return folder


def train(config: FusionConfig) -> None:
    """Without the figures of each run, which take longer than the training."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("confusion_matrix_figure", "training_curves_figure"):
            patch.setattr(f"fuse.runs.folder.{name}", lambda *_, **__: None)
        run_training(config)


def config_of(folder: Path, **changes: Any) -> FusionConfig:
    settings = {
        "modalities": ("audio", "text"),
        "hidden": 8,
        "optim": Optim(epochs=2),
        "output_dir": str(folder / "run"),
        **changes,
    }
    return FusionConfig(str(folder / "metadata.csv"), str(folder), **settings)


def test_a_run_gets_its_pictures_and_the_table(
    trained: Path, drawn: list[Figure], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ReportConfig((str(trained / "run"),))) == 0
    assert all((trained / "run" / name).stat().st_size for name in FILES)
    with (trained / "run/layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["modality"], row["layer"]) for row in rows] == [
        (name, str(layer)) for name in ("audio", "text") for layer in range(LAYERS)
    ]
    assert rows[0]["clips"] == "384"
    assert rows[-1]["clips"] == "383"
    layers, features = drawn
    assert "luna5: 384 clips, 24 speakers, 95 % intervals" in "".join(texts(layers))
    shown = texts(features)
    assert "80 clips of 5 test speakers: fold 1 of luna5, seed 0" in shown
    assert {f"audio\n{WIDTHS['audio']} features", "fused\n8 features"} <= set(shown)
    printed = capsys.readouterr().out
    assert "features.png, layers.png, layers.csv, classification_report.txt" in printed
    assert f"audio      best layer {max(rows[:3], key=lambda row: float(row['uar']))['layer']} of 3" in printed


def test_features_that_the_run_was_not_trained_on_are_refused(trained: Path, tmp_path: Path) -> None:
    write_tiny_features(tmp_path, tiny_clips(), made={"pooling": "mean_std"})
    with pytest.raises(ValueError, match=r"its audio features .* \(pooling mean_std, not unset\)"):
        run(ReportConfig((str(trained / "run"),), features_dir=str(tmp_path)))


def test_features_are_of_the_first_fold_and_nobody_was_trained_on(trained: Path) -> None:
    first = run_folders(trained / "run")[0]
    checkpoint = read_stage_two(first / CHECKPOINT)
    model, fold = checkpoint.head(), checkpoint.fold
    table = table_under(config_of(trained), tiny_corpus(), UNCHANGED)
    shown, whose = shown_clips(fold, table)
    assert (fold.number, checkpoint.seed) == (1, 0)
    assert set(shown.speakers) == set(fold.test)
    assert whose == "80 clips of 5 test speakers"
    spaces = feature_spaces(model, shown)
    assert {name: values.shape for name, values in spaces.items()} == {
        "audio": (80, 12),
        "text": (80, 6),
        "fused": (80, 8),
    }
    assert np.isfinite(spaces["fused"]).all()


def test_of_one_modality_there_is_nothing_to_fuse(trained: Path, tmp_path: Path) -> None:
    """The same rows stood in the figure twice, the second time as "fused"."""
    alone = config_of(trained, modalities=("audio",), output_dir=str(tmp_path / "run"))
    train(alone)
    model = read_stage_two(run_folders(tmp_path / "run")[0] / CHECKPOINT).head()
    assert set(feature_spaces(model, table_under(alone, tiny_corpus(), UNCHANGED))) == {"audio"}


def test_a_single_test_speaker_has_company(trained: Path) -> None:
    table = table_under(config_of(trained), tiny_corpus(), UNCHANGED)
    shown, whose = shown_clips(load_protocol("leave-one-speaker-out").folds(table.clips)[0], table)
    assert set(shown.speakers) == {"1", "2", "3"}
    assert whose == "48 clips of 3 validation and test speakers"


def test_no_speaker_is_called_unseen_who_was_trained_on(trained: Path) -> None:
    table = table_under(config_of(trained), tiny_corpus(), UNCHANGED)
    _, whose = shown_clips(load_protocol("random-clips").folds(table.clips)[0], table)
    assert "test speakers" not in whose
    assert "speakers trained on" in whose


def test_large_folds_are_thinned_out_and_say_so(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CLIPS_SHOWN_AT_MOST > 100
    monkeypatch.setattr("fuse.studies.report.__main__.CLIPS_SHOWN_AT_MOST", 20)
    table = table_under(config_of(trained), tiny_corpus(), UNCHANGED)
    shown, whose = shown_clips(load_protocol("luna5").folds(table.clips)[0], table)
    assert whose == "20 of 80 clips of 5 test speakers"
    assert len({clip.clip_id for clip in shown.clips}) == 20


def test_what_hides_in_a_space_is_named() -> None:
    rows = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    assert space_name("audio", rows) == "audio\n3 features"
    rows[2:] = rows[0]
    assert space_name("text", rows) == "text\n3 features\nonly 2 different rows"
    rows[4] = np.nan
    assert space_name("text", rows).endswith("only 2 different rows\n9 clips have it")


def test_caveats_stand_on_every_figure(tmp_path: Path, drawn: list[Figure]) -> None:
    clips = tiny_clips()
    write_tiny_features(tmp_path, clips)
    config = config_of(tmp_path, head="lda", protocol="random-clips", standardise="speaker")
    train(config)
    drawn.clear()
    run(ReportConfig((str(tmp_path / "run"),)))
    note = "leaks speakers; speaker-adapted, unlabelled"
    assert all(any(note in text for text in texts(figure)) for figure in drawn)
    assert all(any(f"{tmp_path.name}/run: lda on audio+text, clean" in text for text in texts(one)) for one in drawn)
    random = replace(table_under(config, tiny_corpus(clips), UNCHANGED), random_weights=True)
    assert caveats(config, random) == f"{RANDOM_NOTE}; {note}"
    assert "UAR on validation clips (%)" in texts(drawn[0])
    assert any("no hidden layer" in text for text in texts(drawn[1]))


def test_mistakes_are_one_line(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = ROOT / "configs/ravdess/studies/report.yaml"
    arguments = ["--config", str(shipped), f"run={trained / 'none'}"]
    assert main(ReportConfig, run, "", arguments) == 2
    assert "train one with: make train-fusion" in capsys.readouterr().err
    arguments = ["--config", str(shipped), f"run={trained / 'run'}", f"features_dir={trained / 'none'}"]
    assert main(ReportConfig, run, "", arguments) == 2
    assert capsys.readouterr().err.startswith("error: no feature store")
    assert load_config(ReportConfig, shipped).run == ("outputs/fusion",)
