"""The table's numbers and rules, for predictions whose scores are known in advance."""

from __future__ import annotations

import numpy as np
import pytest

from cache.conditions import UNCHANGED, parse_joint
from cache.features.table import FeatureTable
from fuse.robustness.missing import Missing, missing_clips, scenarios
from fuse.robustness.numbers import Evaluated, table_of
from fuse.robustness.rows import Group, RobustnessTable, Row, place_of
from fuse.robustness.rules import Verdict, verdicts
from tests.fuse.robustness.answers import answered
from tests.tiny.features import tiny_clips

BOTH = "audio+face"
OURS = {
    (BOTH, "clean"): 0.9,
    (BOTH, "noise-white-10db"): 0.8,
    (BOTH, "noise-white-0db"): 0.6,
    (BOTH, "band-telephone"): 0.7,
    (BOTH, "noise-white-0db+drop-frames-30"): 0.4,
    (BOTH, "missing-50"): 0.6,
    (BOTH, "gain-track-minus1db"): 0.8,
    ("audio", "clean"): 0.7,
    ("audio", "noise-white-10db"): 0.5,
    ("audio", "noise-white-0db"): 0.2,
    ("audio", "band-telephone"): 0.6,
    ("audio", "noise-white-0db+drop-frames-30"): 0.2,
    ("audio", "gain-track-minus1db"): 0.7,
    ("face", "clean"): 0.7,
}
PLAIN = {**OURS, (BOTH, "clean"): 0.8, (BOTH, "noise-white-10db"): 0.6, (BOTH, "noise-white-0db"): 0.4}


@pytest.fixture(scope="module")
def table() -> RobustnessTable:
    return table_of([Evaluated("plain", answered(PLAIN)), Evaluated("ours", answered(OURS))], "plain", "plain")


def row(table: RobustnessTable, condition: str, run: str = "ours", modalities: str = BOTH) -> Row:
    (found,) = [one for one in table.rows if (one.run, one.condition, one.modalities) == (run, condition, modalities)]
    return found


def group(table: RobustnessTable, section: str, family: str = "", run: str = "ours") -> Group:
    keys = (run, BOTH, section, family)
    (found,) = [one for one in table.groups if (one.run, one.modalities, one.section, one.family) == keys]
    return found


def test_a_row_holds_what_was_made_up(table: RobustnessTable) -> None:
    noisy = row(table, "noise-white-0db")
    assert (noisy.uar, noisy.accuracy, noisy.drop) == pytest.approx((0.6, 0.6, 0.3))
    assert noisy.relative_drop == pytest.approx(1 / 3)
    assert noisy.corruption_error == pytest.approx(0.4 / 0.6)
    assert noisy.changed == pytest.approx(0.3)
    assert noisy.worst_speaker_uar == pytest.approx(0.6)
    assert noisy.female_minus_male == pytest.approx(0.0)
    # All answers are given with 0.7, of which 0.6 are right.
    assert noisy.ece == pytest.approx(0.1)
    assert noisy.difference == pytest.approx(0.2)
    assert (noisy.clips, noisy.speakers) == (400, 10)
    assert (noisy.section, noisy.family, noisy.level) == ("sound", "noise-white", 0)
    clean = row(table, "clean")
    assert (clean.drop, clean.relative_drop, clean.changed) == (None, None, None)


def test_p_is_of_the_other_runs_and_corrected_over_all_rows(table: RobustnessTable) -> None:
    own = [one for one in table.rows if one.run == "ours"]
    assert all((one.p, one.p_holm, one.difference) == (None, None, None) for one in table.rows if one.run == "plain")
    # Ten speakers who all gained, and who all gained alike: two patterns of 1024.
    assert row(table, "clean").p == pytest.approx(2 / 1024)
    assert row(table, "clean").p_holm == pytest.approx(len(own) * 2 / 1024)
    assert row(table, "band-telephone").p == 1.0


def test_groups_are_means_and_mce_counts_each_family_once(table: RobustnessTable) -> None:
    noise = group(table, "sound", "noise-white")
    assert noise.conditions == 2
    assert [noise.uar, noise.drop] == pytest.approx([0.7, 0.2])
    assert noise.corruption_error == pytest.approx((0.2 + 0.4) / (0.4 + 0.6))
    # Ours adds 0.1 and 0.3 to its clean errors, plain 0.2 and 0.4.
    assert noise.relative_corruption_error == pytest.approx(0.4 / 0.6)
    assert noise.relative_robustness == pytest.approx((0.9 + 0.8) / 4 + (0.8 + 0.6) / 4)
    assert noise.effective_robustness == pytest.approx(((0.8 - 0.7) + (0.6 - 0.5)) / 2)
    telephone = group(table, "sound", "band-telephone")
    assert telephone.corruption_error == pytest.approx(1.0)
    assert telephone.relative_corruption_error == pytest.approx(0.2 / 0.1)
    assert telephone.relative_robustness is None
    corruptions = group(table, "corruptions")
    assert corruptions.conditions == 3
    assert corruptions.corruption_error == pytest.approx((0.6 + 1.0) / 2)
    assert corruptions.uar == pytest.approx((0.7 + 0.7) / 2)
    assert group(table, "corruptions", run="plain").corruption_error == pytest.approx(1.0)


def test_a_single_run_is_compared_with_nothing() -> None:
    alone = table_of([Evaluated("ours", answered(OURS))])
    assert {one.corruption_error for one in alone.rows} == {one.p for one in alone.rows} == {None}
    assert (
        {one.corruption_error for one in alone.groups} == {one.effective_robustness for one in alone.groups} == {None}
    )


def test_runs_of_other_speakers_have_no_p() -> None:
    fewer = answered(PLAIN, speakers=4)
    found = table_of([Evaluated("plain", fewer), Evaluated("ours", answered(OURS))], "plain", "plain")
    assert row(found, "clean").p is None
    assert row(found, "clean").corruption_error == pytest.approx(0.5)


def test_every_name_has_its_place() -> None:
    assert (place_of("clean").section, place_of("noise-pink-minus5db").severity) == ("clean", 5)
    assert (place_of("shift-picture-4px").section, place_of("occlude-block-50").section) == ("stability", "picture")
    assert place_of("noise-white-0db+occlude-block-50").family == "noise-white+occlude-block"
    assert (place_of("missing-30").family, place_of("missing-30").level) == ("missing", 30)
    assert (place_of("missing-audio-30").family, place_of("missing-audio-30").severity) == ("missing-audio", 30)
    assert place_of("missing-audio-20+missing-face-60").family == "missing-mixed"
    with pytest.raises(ValueError, match="unknown condition"):
        place_of("rain")


# Rules


def judged(shares: dict[tuple[str, str], float], same_words: bool = False) -> dict[str, Verdict]:
    one = Evaluated("ours", answered(shares), same_words=same_words)
    return {verdict.rule: verdict for verdict in verdicts(table_of([one]), [one])}


def test_what_is_damaged_must_not_drag_down_what_is_whole() -> None:
    rule = "audio + face is not below face alone when audio is damaged or missing"
    found = judged(OURS)[rule]
    # The face has 0.7: noise at 0 dB leaves 0.6, and the pair 0.4; the telephone and 10 dB hold.
    assert (found.passed, found.held, found.conditions) == (False, 2, 4)
    assert found.condition == "noise-white-0db+drop-frames-30"
    assert [found.uar, found.against] == pytest.approx([0.4, 0.7])
    better = {**OURS, (BOTH, "noise-white-0db"): 0.7, (BOTH, "noise-white-0db+drop-frames-30"): 0.7}
    assert judged(better)[rule].passed
    gone = {**better, (BOTH, "missing-audio-30"): 0.6}
    assert judged(gone)[rule].condition == "missing-audio-30"
    # What both lack says nothing of either.
    assert judged({**better, (BOTH, "missing-50"): 0.1})[rule].passed


def test_fusion_owes_the_best_modality_of_each_condition() -> None:
    rule = "audio + face is not more than a point below the best single modality"
    assert judged(OURS)[rule].condition == "noise-white-0db+drop-frames-30"
    better = {**OURS, (BOTH, "noise-white-0db"): 0.7, (BOTH, "noise-white-0db+drop-frames-30"): 0.7}
    assert judged(better)[rule].passed
    # A run of one modality in the same table is a single modality as well.
    alone = Evaluated("voice", answered({("audio", "clean"): 1.0}))
    one = Evaluated("ours", answered(better))
    told = {
        verdict.rule: verdict for verdict in verdicts(table_of([one, alone], "ours"), [one]) if verdict.run == "ours"
    }
    assert not told[rule].passed
    assert told[rule].against == pytest.approx(1.0)


def test_under_a_joint_condition_a_modality_is_held_to_the_part_that_touches_it() -> None:
    """Its row has that part's name; without one of the whole name it counted as clean, and fusion failed against it."""
    joint = "noise-white-0db+drop-frames-30"
    apart = {**OURS, (BOTH, joint): 0.5, (BOTH, "noise-white-0db"): 0.7, ("face", "drop-frames-30"): 0.4}
    apart = {key: share for key, share in apart.items() if key not in (("audio", joint), ("face", joint))}
    found = judged(apart)["audio + face is not more than a point below the best single modality"]
    assert found.passed, found


def test_text_is_at_chance_where_words_tell_nothing() -> None:
    rule = "text alone is at chance on clean speech"
    shares = {("audio+text", "clean"): 0.9, ("audio", "clean"): 0.9, ("text", "clean"): 0.2}
    assert rule not in judged(shares)
    assert judged(shares, same_words=True)[rule].passed
    leaking = judged({**shares, ("text", "clean"): 0.4}, same_words=True)[rule]
    assert not leaking.passed
    assert [leaking.uar, leaking.against] == pytest.approx([0.4, 0.25])


def test_robustness_is_not_paid_for_on_clean_clips(table: RobustnessTable) -> None:
    rule = "ours is not more than half a point below plain on clean clips"
    runs = [Evaluated("plain", answered(PLAIN)), Evaluated("ours", answered({**OURS, (BOTH, "clean"): 0.7}))]
    found = {verdict.rule: verdict for verdict in verdicts(table_of(runs, "plain"), runs)}
    assert not found[rule].passed
    kept = {verdict.rule: verdict for verdict in verdicts(table, [Evaluated("ours", answered(OURS))])}
    assert kept[rule].passed


# Clips that lack modalities


def test_what_is_missing_stays_missing_at_higher_rates() -> None:
    names = [f"clip-{number}" for number in range(2000)]
    rates = range(10, 100, 20)
    gone = {rate: missing_clips(names, "audio", rate) for rate in rates}
    for low, high in zip(rates, list(rates)[1:], strict=False):
        assert not (gone[low] & ~gone[high]).any()
    assert [gone[rate].mean() for rate in rates] == pytest.approx([rate / 100 for rate in rates], abs=0.03)
    # Another modality is missing in other clips, and a clip's lot is its own, whatever stands beside it.
    both = gone[50] & missing_clips(names, "video", 50)
    assert both.mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(missing_clips(names[::-1], "audio", 30)[::-1], gone[30])


def test_rates_are_equal_of_one_modality_and_of_ones_own() -> None:
    found = scenarios([10, {"audio": 20, "video": 60}, {"smell": 5}], ("audio", "video"))
    assert [one.name for one in found] == [
        *("missing-10", "missing-audio-10", "missing-video-10", "missing-audio-20+missing-video-60"),
    ]
    assert [one.name for one in scenarios([10], ("audio",))] == ["missing-10"]


def test_rows_that_are_missing_are_absent_and_the_others_as_they_were() -> None:
    clips = tuple(tiny_clips((1, 2)))
    rows = {name: np.ones((len(clips), 2), np.float32) for name in ("audio", "video")}
    present = {name: np.ones(len(clips), bool) for name in rows}
    table = FeatureTable(clips, rows, present, (), False, UNCHANGED.name)
    fewer = Missing.unequal({"audio": 40}).withheld(table)
    gone = missing_clips([clip.clip_id for clip in clips], "audio", 40)
    assert 0 < gone.sum() < len(clips)
    np.testing.assert_array_equal(np.isnan(fewer.features["audio"]).all(axis=1), gone)
    np.testing.assert_array_equal(fewer.present["audio"], ~gone)
    assert fewer.features["video"] is rows["video"]
    assert not np.isnan(rows["audio"]).any()
    assert fewer.condition == "missing-audio-40"
    assert str(parse_joint("clean")) == table.condition
