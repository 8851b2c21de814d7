"""What a page is about: the right predictions of the right runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fuse.scores.predictions import read_predictions, write_predictions
from fuse.studies.report.page.subjects import read_subjects, short_names
from tests.fuse.studies.report.page.conftest import CONDITIONS, SUBSETS, Written


def test_a_table_beside_a_run_is_found_and_one_that_is_named(written: Written, tmp_path: Path) -> None:
    (found,) = read_subjects([written.run], None)
    assert found.conditions == list(CONDITIONS)
    assert set(found.test.modalities) == set(SUBSETS)
    assert len(found.table) == len(CONDITIONS) * len(SUBSETS)
    shutil.copytree(written.robustness, tmp_path / "elsewhere")
    (named,) = read_subjects([written.run], [str(tmp_path / "elsewhere")])
    np.testing.assert_array_equal(named.test.probabilities_NC, found.test.probabilities_NC)
    (without,) = read_subjects([written.run], [])
    assert without.conditions == ["clean"]
    assert without.table == ()


def test_a_run_without_a_table_is_what_it_said_itself(written: Written) -> None:
    _, other = read_subjects([written.run, written.other], None)
    own = read_predictions(written.other / "predictions.csv").select(split="test")
    np.testing.assert_array_equal(other.test.probabilities_NC, own.probabilities_NC)
    assert (other.name, other.conditions) == ("two", ["clean"])
    # A condition that it was not tested under does not change what is known of it.
    assert len(other.under("noise-white-0db")) == len(own)


def test_a_table_of_an_earlier_state_of_the_run_is_left_out(written: Written, tmp_path: Path) -> None:
    """Its numbers would stand beside those of another training under one name."""
    shutil.copytree(written.run, tmp_path / "one")
    shutil.copytree(written.robustness, tmp_path / "robustness")
    (tmp_path / "robustness/config.yaml").write_text(f"runs: ['{tmp_path / 'one'}']\n")
    (fresh,) = read_subjects([tmp_path / "one"], None)
    assert len(fresh.conditions) == len(CONDITIONS)
    changed = read_predictions(written.other / "predictions.csv")
    write_predictions(changed, tmp_path / "one/predictions.csv")
    (stale,) = read_subjects([tmp_path / "one"], None)
    assert stale.conditions == ["clean"]
    assert stale.table == ()
    assert "earlier state" in stale.notes[0]


def test_mistakes_are_named(written: Written, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make robustness-table"):
        read_subjects([written.run], [str(tmp_path)])
    with pytest.raises(ValueError, match="no run in"):
        read_subjects([tmp_path], None)


def test_names_are_as_short_as_they_can_be() -> None:
    assert short_names([Path("/a/b/fusion")]) == ["fusion"]
    assert short_names([Path("/a/x/fusion"), Path("/a/y/fusion")]) == ["x-fusion", "y-fusion"]
