"""The enrolment curve: from nothing known of a speaker to all their clips."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from cache.conditions import parse_joint
from cache.corpus.ravdess import LABELS
from cache.features.table import load_table
from configs.loader import check
from configs.schema.fusion import FusionConfig
from configs.schema.studies import EnrolmentConfig
from fuse.runs.adaptation import ADAPTED, adapted, prior_of, speaker_statistics
from fuse.runs.checkpoint import read_stage_two
from fuse.runs.folder import CHECKPOINT
from fuse.runs.predict import predictions_of
from fuse.scores.metrics import speaker_scores, uar
from fuse.scores.predictions import read_predictions
from fuse.studies.enrolment.__main__ import clips_for_half, drawn_statistics, points, run
from fuse.studies.enrolment.points import ALL, NEUTRAL, Point
from fuse.train import run as train
from tests.tiny.features import tiny_clips, write_tiny_features
from tests.tiny.figure_texts import texts

pytestmark = pytest.mark.usefixtures("all_undrawn")
COUNTS = [0, 2, 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("enrolment")
    write_tiny_features(folder, tiny_clips(), {"noise-white-10db": 2.0}, offset=4.0)
    for name in ("speaker", "train"):
        tree = {"corpus": str(folder / "metadata.csv"), "features_dir": str(folder), "modalities": ["audio"]}
        more = {"protocol": "luna5", "seeds": [0, 1], "head": "lda", "standardise": name}
        train(check(FusionConfig, {**tree, **more, "output_dir": str(folder / name)}, "test"))
    return folder


@pytest.fixture(scope="module")
def curve(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("curve")
    tree = {"run": str(folder / "speaker"), "clips": COUNTS, "draws": 3, "conditions": ["noise-white-10db"]}
    assert run(check(EnrolmentConfig, {**tree, "output_dir": str(out)}, "test")) == 0
    return out


def rows(curve: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (curve / "enrolment.csv").open(newline="") as file:
        return {(row["condition"], row["clips"]): row for row in csv.DictReader(file)}


def test_the_more_clips_the_better_and_noise_costs(curve: Path) -> None:
    found = rows(curve)
    clean = [float(found["clean", str(count)]["uar"]) for count in (*COUNTS, ALL)]
    assert clean[0] < clean[-1] - 0.05
    assert clean == sorted(clean)
    assert float(found["noise-white-10db", ALL]["uar"]) < clean[-1]
    assert {name for _, name in found} == {"0", "2", "4", NEUTRAL, ALL}
    assert float(found["clean", "2"]["low"]) < clean[1] < float(found["clean", "2"]["high"])


def test_every_number_follows_from_the_predictions(curve: Path) -> None:
    saved = read_predictions(curve / "predictions.csv")
    draws = [saved.select(condition=f"clean/enrolled-2/draw-{draw}") for draw in range(3)]
    each = [np.mean(list(speaker_scores(draw, uar).values())) for draw in draws]
    assert float(rows(curve)["clean", "2"]["uar"]) == pytest.approx(np.mean(each))
    assert float(rows(curve)["clean", "2"]["sd_over_draws"]) == pytest.approx(np.std(each, ddof=1))
    assert all(len(draw) == 24 * 16 for draw in draws)
    assert len({tuple(draw.predicted.tolist()) for draw in draws}) > 1


def test_nothing_is_known_of_the_noise_before_the_first_clip(
    folder: Path, curve: Path, tmp_path: Path, drawn: list[Figure]
) -> None:
    """With 0 clips the prior was taken from training clips under the test noise, as if the noise had been announced."""
    tree = {"run": str(folder / "speaker"), "clips": [0], "draws": 1, "conditions": ["noise-white-10db"]}
    assert run(check(EnrolmentConfig, {**tree, "prior": "condition", "output_dir": str(tmp_path)}, "test")) == 0
    name = "noise-white-10db/enrolled-0/draw-0"
    honest, announced = (read_predictions(out / "predictions.csv") for out in (curve, tmp_path))
    first, second = (saved.select(condition="clean/enrolled-0/draw-0") for saved in (honest, announced))
    np.testing.assert_array_equal(first.probabilities_NC, second.probabilities_NC)
    assert not np.allclose(
        honest.select(condition=name).probabilities_NC, announced.select(condition=name).probabilities_NC
    )

    kept = read_stage_two(folder / "speaker" / "fold-1" / "seed-0" / CHECKPOINT)
    tables = [
        load_table(folder, tiny_clips(), ["audio"], parse_joint(name), label_names=LABELS)
        for name in ("clean", "noise-white-10db")
    ]
    for saved, table in ((honest, tables[0]), (announced, tables[1])):
        prior = prior_of(table, kept.fold.train)
        test = tables[1].take(kept.fold.clip_ids("test", tables[1].clips))
        known = adapted(test, dict.fromkeys(kept.fold.test, prior))
        expected = predictions_of(kept.head(), known, "luna5", 1, 0, "test").probabilities_NC
        found = saved.select(condition=name, fold=1)
        order = {clip_id: row for row, clip_id in enumerate(found.clip_id.tolist())}
        rows = [order[clip.clip_id] for clip in test.clips]
        np.testing.assert_allclose(found.probabilities_NC[rows], expected, atol=1e-5)
    assert "prior: the training speakers' clean clips" in (curve / "enrolment.md").read_text()
    assert "prior: the condition known beforehand" in (tmp_path / "enrolment.md").read_text()
    assert "prior: the condition known beforehand" in " ".join(texts(drawn[0]))


def test_everything_says_that_it_is_adapted(curve: Path) -> None:
    text = (curve / "enrolment.md").read_text()
    assert ADAPTED in text
    assert "half of the gain" in text
    assert (curve / "enrolment.png").stat().st_size > 10_000


def test_draws_follow_from_speaker_count_and_number(folder: Path) -> None:
    table = load_table(folder, tiny_clips(), ["audio"], label_names=LABELS)
    prior = prior_of(table, ["1", "2", "3"])
    first, again, other = (drawn_statistics(table, "5", "4", draw, prior, 1.0).mean["audio"] for draw in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    everyone = drawn_statistics(table, "5", ALL, 0, prior, 1e-9)
    np.testing.assert_allclose(everyone.mean["audio"], speaker_statistics(table)["5"].mean["audio"], rtol=1e-4)


def test_neutral_clips_alone(folder: Path) -> None:
    table = load_table(folder, tiny_clips(), ["audio"], label_names=LABELS)
    prior = prior_of(table, ["1"])
    neutral = table.features["audio"][(table.speakers == "5") & (table.labels == LABELS.index("neutral"))]
    known = drawn_statistics(table, "5", NEUTRAL, 0, prior, 1e-9)
    np.testing.assert_allclose(known.mean["audio"], neutral.mean(0), rtol=1e-4)


def test_half_of_the_gain_lies_between_points() -> None:
    curve = [
        Point("clean", name, score, None, None, 0.0, 1, 24)
        for name, score in (("0", 0.6), ("2", 0.65), ("5", 0.75), (NEUTRAL, 0.7), (ALL, 0.8))
    ]
    assert clips_for_half(curve) == pytest.approx(2 + 3 * 0.5)
    assert clips_for_half(curve[1:]) is None


def test_the_checkpoint_knows_every_speaker(folder: Path) -> None:
    known = read_stage_two(folder / "speaker" / "fold-1" / "seed-0" / CHECKPOINT).speakers
    table = load_table(folder, tiny_clips(), ["audio"], label_names=LABELS)
    assert set(known) == {str(number) for number in range(1, 25)}
    for speaker, one in speaker_statistics(table).items():
        assert np.array_equal(known[speaker].mean["audio"], one.mean["audio"])


def test_a_run_that_is_not_adapted_is_refused(folder: Path, tmp_path: Path) -> None:
    tree = {"run": str(folder / "train"), "output_dir": str(tmp_path)}
    with pytest.raises(ValueError, match="was trained with standardise=train; train one with"):
        run(check(EnrolmentConfig, tree, "test"))


def test_features_that_the_run_was_not_trained_on_are_refused(folder: Path, tmp_path: Path) -> None:
    write_tiny_features(tmp_path, tiny_clips(), offset=4.0, made={"weights_sha256": "b" * 64})
    tree = {"run": str(folder / "speaker"), "features_dir": str(tmp_path), "output_dir": str(tmp_path / "out")}
    with pytest.raises(
        ValueError, match=r"clean\.zarr: its audio features .* \(weights_sha256 bbbbbbbbbbbb, not unset\)"
    ):
        run(check(EnrolmentConfig, tree, "test"))


def test_points_come_condition_by_condition(curve: Path) -> None:
    found = list(points(read_predictions(curve / "predictions.csv"), ["0", "2", "4", NEUTRAL, ALL]))
    assert [point.condition for point in found] == ["clean"] * 5 + ["noise-white-10db"] * 5
