"""Every number of the table, computed again from the predictions.csv beside it, by pandas, scikit-learn and scipy.

Nothing that made the table is imported but the command itself.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from configs.loader import check
from configs.schema.fusion import FusionConfig
from configs.schema.studies import RobustnessConfig
from fuse.robustness.__main__ import run
from fuse.train import run as train
from tests.tiny.features import tiny_clips, write_tiny_features

CONDITIONS = ["noise-white-10db", "noise-white-0db", "occlude-block-50", "shift-picture-4px"]
RUNS = ("plain", "other")
KEY = ["run", "modalities", "condition"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table of two runs."""
    folder = tmp_path_factory.mktemp("recomputed")
    clips = [replace(clip, sex="female" if int(clip.speaker) % 2 else "male") for clip in tiny_clips()]
    noise = dict(zip(CONDITIONS, (3.0, 6.0, 6.0, 0.2), strict=True))
    write_tiny_features(folder, clips, noise, offset=1.0)
    base = {"corpus": str(folder / "metadata.csv"), "features_dir": str(folder), "modalities": ["audio", "video"]}
    base |= {"head": "lda", "protocol": "luna5"}
    for name, more in ((RUNS[0], {"seeds": [0]}), (RUNS[1], {"seeds": [0, 1], "augment": {"audio": CONDITIONS[1:2]}})):
        train(check(FusionConfig, {**base, **more, "output_dir": str(folder / name)}, "test"))
    tree = {"runs": [str(folder / name) for name in RUNS], "conditions": CONDITIONS, "joint": True}
    tree |= {"missing": [30, {"audio": 20, "video": 60}], "output_dir": str(folder / "table")}
    assert run(check(RobustnessConfig, tree, "test")) == 0
    return folder / "table"


@pytest.fixture(scope="module")
def rows(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "robustness_table.csv")


@pytest.fixture(scope="module")
def answers(out: Path) -> pd.DataFrame:
    parts = [pd.read_csv(out / name / "predictions.csv", dtype={"speaker": str}).assign(run=name) for name in RUNS]
    found = pd.concat(parts)
    found["right"] = found["label"] == found["predicted"]
    return found


def by_row(answers: pd.DataFrame, scored: object) -> pd.Series:
    """A number for each row of the table: the mean over its seeds."""
    seeds = answers.groupby([*KEY, "seed"]).apply(scored, include_groups=False)
    return pd.Series(seeds).groupby(KEY).mean()


def column(rows: pd.DataFrame, name: str) -> pd.Series:
    return pd.Series(rows.set_index(KEY)[name])


def same(one: pd.Series, other: pd.Series) -> None:
    known = one.dropna()
    assert len(known)
    np.testing.assert_allclose(known, other.reindex(known.index), rtol=1e-9, atol=1e-12)


def uar(part: pd.DataFrame) -> float:
    return float(balanced_accuracy_score(part["label"], part["predicted"]))


def clean_of(values: pd.Series) -> pd.Series:
    """The value of the same run and subset on clean clips, for every row."""
    clean = values.xs("clean", level="condition")
    return pd.Series([clean[key[:2]] for key in values.index], values.index)


def of_run(values: pd.Series, name: str) -> pd.Series:
    """The value of that run in the same row, for every row."""
    return pd.Series([values[(name, *key[1:])] for key in values.index], values.index)


def test_there_is_a_row_for_everything(rows: pd.DataFrame) -> None:
    pairs = [f"{sound}+occlude-block-50" for sound in CONDITIONS[:2]]
    missing = ["missing-30", "missing-audio-30", "missing-video-30", "missing-audio-20+missing-video-60"]
    own = rows[rows.run == "other"]
    assert own[own.modalities == "audio+video"].condition.tolist() == ["clean", *CONDITIONS, *pairs, *missing]
    assert own[own.modalities == "audio"].condition.tolist() == ["clean", *CONDITIONS[:2]]
    assert own[own.modalities == "video"].condition.tolist() == ["clean", *CONDITIONS[2:]]


def test_scores_drops_and_errors(rows: pd.DataFrame, answers: pd.DataFrame) -> None:
    scores = by_row(answers, uar)
    same(column(rows, "uar"), scores)
    same(column(rows, "accuracy"), by_row(answers, lambda part: accuracy_score(part["label"], part["predicted"])))
    clean = clean_of(scores)
    same(column(rows, "drop"), clean - scores)
    same(column(rows, "relative_drop"), (clean - scores) / clean)
    same(column(rows, "corruption_error"), (1 - scores) / (1 - of_run(scores, "plain")))
    same(column(rows, "difference"), scores - of_run(scores, "plain"))
    seeds = answers.groupby([*KEY, "seed"]).apply(uar, include_groups=False)
    same(column(rows, "sd_over_seeds"), pd.Series(seeds).groupby(KEY).std())


def test_speakers(rows: pd.DataFrame, answers: pd.DataFrame) -> None:
    seeds = answers.groupby([*KEY, "speaker", "seed"]).apply(uar, include_groups=False)
    speakers = pd.Series(seeds).groupby([*KEY, "speaker"]).mean()
    same(column(rows, "worst_speaker_uar"), speakers.groupby(KEY).min())
    woman = speakers.index.get_level_values("speaker").astype(int) % 2 == 1
    gap = speakers[woman].groupby(KEY).mean() - speakers[~woman].groupby(KEY).mean()
    same(column(rows, "female_minus_male"), gap)
    # All speakers have as many clips of each label, so that the pooled interval is that of the mean over speakers.
    half = speakers.groupby(KEY).sem() * stats.t.ppf(0.975, 23)
    same(column(rows, "low"), (speakers.groupby(KEY).mean() - half).clip(lower=0))
    same(column(rows, "high"), (speakers.groupby(KEY).mean() + half).clip(upper=1))
    assert (
        column(rows, "clips") == answers.groupby(KEY)["clip_id"].nunique().reindex(column(rows, "clips").index)
    ).all()


def test_p_values(rows: pd.DataFrame, answers: pd.DataFrame) -> None:
    """Signs are drawn here, where the table goes through all patterns."""
    seeds = answers.groupby([*KEY, "speaker", "seed"]).apply(uar, include_groups=False)
    speakers = pd.Series(seeds).groupby([*KEY, "speaker"]).mean()
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (20_000, 24))
    other = rows[rows.run == "other"]
    assert rows[rows.run == "plain"].p.isna().all()
    for _, row in other.iterrows():
        place = (row.modalities, row.condition)
        gained = (speakers[("other", *place)] - speakers[("plain", *place)]).to_numpy()
        drawn = np.abs(signs @ gained) >= abs(gained.sum()) - 1e-9
        assert row.p == pytest.approx(drawn.mean(), abs=0.02)
    ordered = other.sort_values("p")
    corrected = (ordered.p * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1)
    np.testing.assert_allclose(ordered.p_holm, corrected)


def test_confidence_and_stability(rows: pd.DataFrame, answers: pd.DataFrame) -> None:
    names = [name for name in answers.columns if name.startswith("p_")]

    def ece(part: pd.DataFrame) -> float:
        confidence = part[names].max(axis=1)
        bins = pd.cut(confidence, np.linspace(0, 1, 16))
        gaps = [abs(part.right[bins == one].mean() - confidence[bins == one].mean()) for one in bins.cat.categories]
        return float(np.nansum(np.array(gaps) * [(bins == one).mean() for one in bins.cat.categories]))

    def brier(part: pd.DataFrame) -> float:
        truth = np.stack([part["label"] == name.removeprefix("p_") for name in names], axis=1)
        return float(((part[names].to_numpy() - truth) ** 2).sum(axis=1).mean())

    same(column(rows, "ece"), by_row(answers, ece))
    same(column(rows, "brier"), by_row(answers, brier))
    one = ["run", "modalities", "seed", "clip_id"]
    clean = answers[answers.condition == "clean"][[*one, "predicted"]]
    both = answers.merge(clean, on=one, suffixes=("", "_clean"))
    both["changed"] = both.predicted != both.predicted_clean
    same(column(rows, "changed"), pd.Series(both.groupby([*KEY, "seed"])["changed"].mean()).groupby(KEY).mean())


def test_groups(out: Path, rows: pd.DataFrame) -> None:
    groups = pd.read_csv(out / "robustness_groups.csv", keep_default_na=False, na_values={"uar": "", "drop": ""})
    plain, other = (
        column(rows[(rows.run == name) & (rows.modalities == "audio+video")], "uar").droplevel([0, 1]) for name in RUNS
    )
    own = groups[(groups.run == "other") & (groups.modalities == "audio+video")].set_index(["section", "family"])
    noise = CONDITIONS[:2]
    found = own.loc[("sound", "noise-white")].astype(float, errors="ignore")
    assert float(found.uar) == pytest.approx(other[noise].mean())
    errors = (1 - other[noise]).sum() / (1 - plain[noise]).sum()
    assert float(found.corruption_error) == pytest.approx(errors)
    lost, lost_there = ((one["clean"] - one[noise]).sum() for one in (other, plain))
    assert float(found.relative_corruption_error) == pytest.approx(lost / lost_there)
    assert float(found.relative_robustness) == pytest.approx(
        (other["clean"] + 2 * other[noise[0]] + other[noise[1]]) / 4
    )
    assert float(found.effective_robustness) == pytest.approx((lost_there - lost) / 2)
    block = (1 - other["occlude-block-50"]) / (1 - plain["occlude-block-50"])
    assert float(own.loc[("corruptions", "")].corruption_error) == pytest.approx((errors + block) / 2)
    told = (out / "robustness_table.md").read_text()
    assert f"| *mean over sound and picture conditions* | *{50 * (plain[noise].mean() + plain.iloc[3]):.1f}* |" in told


def test_the_columns_that_there_were_come_first(rows: pd.DataFrame) -> None:
    """Scripts that read the table go on reading it."""
    assert list(rows.columns)[:15] == [
        *("run", "modalities", "condition", "uar", "accuracy", "low", "high", "drop", "drop_low", "drop_high"),
        *("clips", "speakers", "seeds", "sd_over_seeds", "speakers_uar"),
    ]
