"""What a table is made under when nothing is said: the conditions that are cached, and what to type for the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cache.conditions import JointCondition
from cache.features.cached import cached_conditions, lacking, touches
from cache.files.remedy import features_command
from configs.schema.features import DEFAULT_CONDITIONS
from configs.schema.studies import RobustnessConfig
from fuse.runs.checkpoint import read_stage_two
from fuse.runs.folder import CHECKPOINT
from fuse.runs.tables import trained_config


def with_cached(config: RobustnessConfig, leaves: Sequence[Path]) -> tuple[RobustnessConfig, list[str]]:
    """The configuration with the conditions that are cached for every run; and what was left out, in words."""
    kept = [read_stage_two(leaf / CHECKPOINT) for leaf in leaves]
    trained = [
        trained_config(*pair, config.corpus, config.features_dir, config.labels)
        for pair in zip(leaves, kept, strict=True)
    ]
    # Of two corpora, the one that is tested on.
    trained = [replace(one, features_dir=one.target.features_dir) if one.target else one for one in trained]
    found: dict[JointCondition, None] = {}
    missing: dict[str, list[str]] = {}
    for one in trained:
        ground = (Path(one.features_dir), one.modalities, one.encoders)
        there, begun = cached_conditions(*ground)
        found |= dict.fromkeys(there)
        usual = [joint for joint in DEFAULT_CONDITIONS if joint not in there and touches(ground[0], joint, *ground[1:])]
        missing[one.features_dir] = list(dict.fromkeys((*missing.get(one.features_dir, ()), *map(str, usual), *begun)))
    everywhere = [
        joint
        for joint in sorted(found, key=_order)
        if not any(lacking(Path(one.features_dir), joint, one.modalities, one.encoders) for one in trained)
    ]
    lines = [
        f"left out, not cached: {', '.join(names)}; to have them: {features_command(Path(folder), names)}"
        for folder, names in missing.items()
        if names
    ]
    return replace(config, conditions=tuple(everywhere)), lines


def _order(condition: JointCondition) -> tuple[int, str]:
    """Those of the default recipe in its order, then the others by name."""
    known = condition in DEFAULT_CONDITIONS
    return (DEFAULT_CONDITIONS.index(condition) if known else len(DEFAULT_CONDITIONS), condition.name)
