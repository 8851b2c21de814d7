"""Which conditions are cached, and the command that makes the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache.conditions import parse_joint
from cache.features.cached import cached_conditions, lacking, touches
from cache.features.store import open_store
from cache.files.remedy import features_command
from tests.tiny.features import tiny_clips, write_tiny_features

NOISE, BLOCK = parse_joint("noise-white-0db"), parse_joint("occlude-block-50")


@pytest.fixture
def features(tmp_path: Path) -> Path:
    write_tiny_features(tmp_path, tiny_clips(range(1, 5)), {"noise-white-0db": 1.0, "occlude-block-50": 1.0})
    (tmp_path / "notes.zarr").mkdir()
    return tmp_path


def test_conditions_that_change_what_is_looked_at_are_found(features: Path) -> None:
    assert cached_conditions(features, ("audio", "video"), {}) == ((NOISE, BLOCK), ())
    assert cached_conditions(features, ("audio",), {"audio": "tiny"}) == ((NOISE,), ())
    # No recogniser: noise does not reach the text.
    assert cached_conditions(features, ("text",), {}) == ((), ())
    assert touches(features, parse_joint("noise-white-0db+occlude-block-50"), ("text", "video"), {}) == ["video"]


def test_a_condition_that_was_only_begun_is_named_and_not_used(features: Path) -> None:
    open_store(features / "noise-white-0db.zarr").reset_unit("audio/tiny", 0)
    assert cached_conditions(features, ("audio", "video"), {}) == ((BLOCK,), ("noise-white-0db",))
    joint = parse_joint("noise-white-0db+occlude-block-25")
    assert lacking(features, joint, ("audio", "video"), {}) == ["noise-white-0db", "occlude-block-25"]
    assert lacking(features, joint, ("text",), {}) == []


def test_another_encoder_s_rows_do_not_count(features: Path) -> None:
    assert lacking(features, NOISE, ("audio",), {"audio": "hubert"}) == ["noise-white-0db"]


def test_the_command_names_the_configuration_of_stage_one_where_it_is_kept(tmp_path: Path) -> None:
    """Without it, features were made by the default encoders, of the default corpus, in the default folder."""
    folder = tmp_path / "my features"
    folder.mkdir()
    plain = features_command(folder, ["noise-white-0db"], corpus="a.csv")
    assert plain == f"make features SET=\"corpus=a.csv 'features_dir={folder}' conditions=[noise-white-0db]\""
    (folder / "config.yaml").write_text("corpus: a.csv\n")
    whole = features_command(folder, ["clean", "noise-white-0db"], ["max_failed=3"], corpus="a.csv")
    assert (
        whole == f"make features CONFIG='{folder}/config.yaml' SET=\"conditions=[clean,noise-white-0db] max_failed=3\""
    )
