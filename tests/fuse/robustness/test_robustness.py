"""The robustness table: right numbers, right comparisons, recomputable."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from cache.corpus.ravdess import LABELS
from cache.exchange.imports import Import, import_features
from configs.loader import check
from configs.schema.fusion import FusionConfig
from configs.schema.studies import RobustnessConfig
from fuse.robustness.__main__ import run
from fuse.robustness.evaluation import read_evaluated
from fuse.robustness.numbers import table_of
from fuse.scores.predictions import read_predictions
from fuse.train import run as train
from tests.tiny.features import tiny_clips, write_tiny_features

pytestmark = pytest.mark.usefixtures("all_undrawn")
CONDITIONS = ["noise-white-0db", "occlude-block-50", "noise-white-0db+occlude-block-50"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robustness")
    write_tiny_features(folder, tiny_clips(), {"noise-white-0db": 6.0, "occlude-block-50": 6.0})
    base = {"corpus": str(folder / "metadata.csv"), "features_dir": str(folder), "optim": {"lr": 3e-3, "epochs": 5}}
    for name, protocol, seeds in (("holdout", "holdout", [0]), ("luna5", "luna5", [0, 1])):
        tree = {**base, "protocol": protocol, "seeds": seeds, "output_dir": str(folder / name)}
        train(check(FusionConfig, tree, "test"))
    return folder


def table(trained: Path, out: Path, **more: object) -> list[dict[str, str]]:
    tree = {"runs": [str(trained / "luna5")], "conditions": CONDITIONS, "output_dir": str(out), **more}
    assert run(check(RobustnessConfig, tree, "test")) == 0
    assert (out / "robustness_table.png").stat().st_size > 5000
    with (out / "robustness_table.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_subset_under_every_condition_that_touches_it(trained: Path, tmp_path: Path) -> None:
    rows = table(trained, tmp_path)
    conditions = {
        subset: [r["condition"] for r in rows if r["modalities"] == subset]
        for subset in {r["modalities"] for r in rows}
    }
    assert len(conditions) == 7
    assert conditions["audio+video+text"] == ["clean", *CONDITIONS]
    assert conditions["video"] == ["clean", CONDITIONS[1], CONDITIONS[2]]
    # Without a recogniser noise cannot reach the text: it once had rows for noise, all of them those of clean clips.
    assert conditions["text"] == ["clean"]
    assert conditions["video+text"] == ["clean", CONDITIONS[1], CONDITIONS[2]]


def test_numbers_follow_from_the_predictions_beside_the_table(trained: Path, tmp_path: Path) -> None:
    rows = table(trained, tmp_path)
    saved = read_predictions(tmp_path / "predictions.csv")
    for row in rows:
        part = saved.select(condition=row["condition"], modalities=row["modalities"])
        by_seed = [part.select(seed=seed) for seed in (0, 1)]
        scores = [balanced_accuracy_score(one.label, one.predicted) for one in by_seed]
        assert float(row["uar"]) == pytest.approx(np.mean(scores))
        assert int(row["clips"]) == len(by_seed[0]) == 24 * 16


def test_corruption_costs_where_it_strikes_and_joint_costs_most(trained: Path, tmp_path: Path) -> None:
    rows = {r["condition"]: r for r in table(trained, tmp_path, modalities=[["video", "audio"]])}
    assert set(rows) == {"clean", *CONDITIONS}
    drops = [float(rows[name]["drop"]) for name in CONDITIONS]
    assert min(drops[:2]) > 0.02
    assert drops[2] > max(drops[:2])
    assert float(rows["noise-white-0db"]["drop_low"]) < drops[0] < float(rows["noise-white-0db"]["drop_high"])
    assert rows["clean"]["drop"] == ""


def test_few_test_speakers_get_their_scores_instead_of_an_interval(trained: Path, tmp_path: Path) -> None:
    rows = table(trained, tmp_path, runs=[str(trained / "holdout")])
    assert all(row["low"] == "" and row["speakers"] == "2" for row in rows)
    text = (tmp_path / "robustness_table.md").read_text()
    assert "| UAR by speaker |" in text
    assert "23: " in text


def test_clean_row_equals_the_run(trained: Path, tmp_path: Path) -> None:
    table(trained, tmp_path)
    own = read_predictions(trained / "luna5" / "predictions.csv").select(split="test", seed=1)
    again = read_predictions(tmp_path / "predictions.csv").select(
        seed=1, condition="clean", modalities="audio+video+text"
    )
    order = {clip: row for row, clip in enumerate(own.clip_id)}
    np.testing.assert_allclose(
        again.probabilities_NC, own.probabilities_NC[[order[c] for c in again.clip_id]], atol=1e-6
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"runs": ["nowhere"]}, "no run in nowhere"),
        ({"conditions": ["noise-white-5db"]}, "no cached audio features for noise-white-5db"),
        ({"modalities": [["face"]]}, "none of the subsets fits it"),
    ],
)
def test_bad_input_ends_in_one_line(trained: Path, tmp_path: Path, more: dict[str, object], message: str) -> None:
    tree = {"runs": [str(trained / "holdout")], "output_dir": str(tmp_path), **more}
    with pytest.raises(ValueError, match=message):
        run(check(RobustnessConfig, tree, "test"))
    assert not list(tmp_path.iterdir())


def test_means_over_seeds_are_said_of_the_runs_that_have_them(trained: Path, tmp_path: Path) -> None:
    """ "Scores are means over 2 seeds" stood below a table in which one run had a single seed."""
    rows = table(trained, tmp_path / "two", runs=[str(trained / "luna5"), str(trained / "holdout")])
    told = (tmp_path / "two" / "robustness_table.md").read_text()
    assert "Scores are means over 2 seeds (luna5), 1 seed (holdout); each clip counts once per seed." in told
    assert {(row["run"], row["sd_over_seeds"] == "") for row in rows} == {("luna5", False), ("holdout", True)}
    table(trained, tmp_path / "one")
    told = (tmp_path / "one" / "robustness_table.md").read_text()
    assert "Scores are means over 2 seeds; each clip" in told


def test_without_a_list_it_covers_what_is_cached_and_says_what_is_not(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list of RAVDESS's default recipe was taken: any other corpus ended in "no cached audio features"."""
    rows = table(trained, tmp_path, conditions=None)
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    assert conditions[:4] == ["clean", "noise-white-0db", "occlude-block-50", "noise-white-0db+occlude-block-50"]
    missing = [f"missing{of}-{rate}" for of in ("", "-audio", "-video", "-text") for rate in (10, 30, 50, 70, 90)]
    assert conditions[4:] == missing
    left = "noise-white-20db,noise-white-10db,noise-white-5db,occlude-block-25,drop-frames-30"
    told = f'left out, not cached: {left.replace(",", ", ")}; to have them: make features SET="features_dir={trained} '
    assert f'{told}conditions=[{left}]"' in capsys.readouterr().out
    saved = (tmp_path / "config.yaml").read_text()
    assert "- noise-white-0db\n- occlude-block-50\n" in saved


def test_an_audio_run_is_not_sent_to_make_pictures(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = {"corpus": str(trained / "metadata.csv"), "features_dir": str(trained), "modalities": "audio"}
    train(check(FusionConfig, {**tree, "optim": {"epochs": 1}, "output_dir": str(tmp_path / "run")}, "test"))
    rows = table(trained, tmp_path / "out", conditions=None, runs=str(tmp_path / "run"))
    rates = (10, 30, 50, 70, 90)
    assert [row["condition"] for row in rows] == ["clean", "noise-white-0db", *(f"missing-{rate}" for rate in rates)]
    assert "left out, not cached: noise-white-20db, noise-white-10db, noise-white-5db; to" in capsys.readouterr().out


def test_an_encoder_that_came_later_is_not_in_the_way(trained: Path, tmp_path: Path) -> None:
    """A run that had not named its encoder could no longer be scored: "has several encoders; set encoders.audio"."""
    features = tmp_path / "features"
    write_tiny_features(features, tiny_clips(), {"noise-white-0db": 6.0})
    shutil.copytree(features / "clean.zarr/audio/tiny", features / "clean.zarr/audio/later")
    settings = {"runs": [str(trained / "holdout")], "features_dir": str(features), "conditions": ["noise-white-0db"]}
    assert table(trained, tmp_path / "out", **settings)


def test_features_that_a_run_was_not_trained_on_are_refused(trained: Path, tmp_path: Path) -> None:
    """Equal widths were enough: a run on float32 features was scored on those of bfloat16, or of another encoder."""
    write_tiny_features(tmp_path, tiny_clips(), {"noise-white-0db": 6.0}, made={"dtype": "bfloat16"})
    told = r"clean\.zarr: its audio features .* the run .*holdout \(dtype bfloat16, not unset\); set features_dir"
    with pytest.raises(ValueError, match=told):
        table(trained, tmp_path / "out", runs=[str(trained / "holdout")], features_dir=str(tmp_path), conditions=[])
    assert not (tmp_path / "out").exists()


def test_a_modality_imported_for_a_condition_has_rows_of_its_own(tmp_path: Path) -> None:
    clips = tiny_clips()
    write_tiny_features(tmp_path, clips, {"drop-frames-30": 3.0})
    for condition, scale in (("clean", 1.0), ("drop-frames-30", -1.0)):
        lines = [f"{clip.clip_id},{scale * LABELS.index(clip.label)},{scale}" for clip in clips]
        (tmp_path / "face.csv").write_text("\n".join(["clip_id,one,two", *lines]) + "\n")
        import_features(Import(tmp_path / "face.csv", tmp_path, "face", condition=condition))
    settings = {
        "corpus": str(tmp_path / "metadata.csv"),
        "features_dir": str(tmp_path),
        "modalities": ["audio", "face"],
    }
    train(
        check(
            FusionConfig,
            {**settings, "modalities": ["audio", "face"], "layers": 0, "output_dir": str(tmp_path / "run")},
            "test",
        )
    )
    tree = {"runs": [str(tmp_path / "run")], "conditions": ["drop-frames-30"], "output_dir": str(tmp_path / "table")}
    run(check(RobustnessConfig, tree, "test"))
    with (tmp_path / "table" / "robustness_table.csv").open() as file:
        rows = {(row["modalities"], row["condition"]) for row in csv.DictReader(file)}
    assert ("face", "drop-frames-30") in rows
    assert ("audio", "drop-frames-30") not in rows


def test_all_that_is_missing_is_named_or_left_out(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first condition without features stopped the table, then the next one: a command each."""
    lacking = ["noise-white-5db", "noise-white-0db+drop-frames-30"]
    settings = {"runs": [str(trained / "holdout")], "conditions": [*CONDITIONS[:1], *lacking]}
    told = r"no cached audio and video features for noise-white-5db, drop-frames-30 in .*; run: make features SET=.*"
    with pytest.raises(ValueError, match=rf"{told}conditions=\[noise-white-5db,drop-frames-30\].*available=true"):
        table(trained, tmp_path, **settings)
    rows = table(trained, tmp_path, available=True, modalities=["audio"], **settings)
    assert [row["condition"] for row in rows] == ["clean", CONDITIONS[0]]
    assert "left out, not cached: noise-white-5db, drop-frames-30; to have them: make " in capsys.readouterr().out


def test_a_reference_is_a_run_of_the_table(trained: Path, tmp_path: Path) -> None:
    runs = [str(trained / "luna5"), str(trained / "holdout")]
    with pytest.raises(ValueError, match="baseline: outputs/x is no run of this table; it has luna5, holdout"):
        table(trained, tmp_path, runs=runs, baseline="outputs/x")
    rows = table(trained, tmp_path, runs=runs, conditions=[], modalities=["audio"], reference="holdout")
    # Other speakers: there is nothing to pair.
    assert [(row["run"], row["corruption_error"] != "", row["p"]) for row in rows] == [
        ("luna5", True, ""),
        ("holdout", True, ""),
    ]
    assert "baseline: holdout" in (tmp_path / "config.yaml").read_text()
    # Clean clips alone have no groups, which once ended in a traceback.
    assert (tmp_path / "robustness_groups.csv").read_text().startswith("run,modalities,section,family,")
    config, evaluated = read_evaluated(tmp_path)
    again = table_of(evaluated, config.reference or "", config.baseline or "").rows
    assert [(row.run, row.uar, row.corruption_error) for row in again] == [
        (row["run"], float(row["uar"]), float(row["corruption_error"])) for row in rows
    ]
