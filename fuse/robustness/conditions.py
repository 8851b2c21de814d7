"""What a table is made under: the conditions that are cached, and what to type for those that are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cache.conditions import JointCondition, parse_joint
from cache.features.cached import cached_conditions, lacking, touches
from cache.files.remedy import features_command
from configs.command.again import again
from configs.schema.features import DEFAULT_CONDITIONS
from configs.schema.fusion import FusionConfig
from configs.schema.studies import MISSING_RATES, RobustnessConfig
from fuse.robustness.rows import SECTIONS, place_of
from fuse.runs.tables import fetch, refuse_no_features

# What the stability rows are of.
STABILITY_CONDITIONS = tuple(map(parse_joint, ("gain-track-minus1db", "cut-start-20ms", "shift-picture-4px")))


def settled(config: RobustnessConfig, trained: Sequence[FusionConfig]) -> tuple[RobustnessConfig, list[str]]:
    """The configuration with everything said that it left open, and what it cannot have, in words.

    Args:
        config: as typed.
        trained: the configurations of its runs.

    Raises:
        ValueError: a condition is asked for whose features are not cached; with the command that makes all of them.
    """
    for one in trained:
        fetch(one, config.conditions)
    # What the source of two corpora has, its target might have as well.
    sources = {
        one.target.features_dir: cached_conditions(Path(one.features_dir), one.modalities, one.encoders)[0]
        for one in trained
        if one.target
    }
    # Of two corpora, the one that is tested on.
    trained = [
        replace(one, features_dir=one.target.features_dir, remote=None) if one.target else one for one in trained
    ]
    for one in trained:
        refuse_no_features(one)
    if config.conditions is None:
        return _with_cached(config, trained, sources)
    missing = _missing(config.conditions, trained)
    if missing and not config.available:
        told = "; ".join(_told(folder, names, trained) for folder, names in missing.items())
        raise ValueError(f"{told}; or leave them out: {again('available=true')}")
    there = [
        joint
        for joint in config.conditions
        if not any(part.name in names for names in missing.values() for part in joint.parts)
    ]
    return replace(config, conditions=tuple(there)), _left_out(missing)


def _with_cached(
    config: RobustnessConfig, trained: Sequence[FusionConfig], hoped: Mapping[str, Sequence[JointCondition]]
) -> tuple[RobustnessConfig, list[str]]:
    """All conditions that are cached for every run, their pairs, and clips that lack modalities.

    `hoped`: by folder of features, conditions that are missed where they are not there, beside the usual ones.
    """
    found: dict[JointCondition, None] = {}
    missing: dict[str, list[str]] = {}
    unstable: dict[str, list[str]] = {}
    for one in trained:
        ground = (Path(one.features_dir), one.modalities, one.encoders)
        there, begun = cached_conditions(*ground)
        found |= dict.fromkeys(there)
        usual, small = (
            [str(joint) for joint in known if joint not in there and touches(ground[0], joint, *ground[1:])]
            for known in ((*DEFAULT_CONDITIONS, *hoped.get(one.features_dir, ())), STABILITY_CONDITIONS)
        )
        missing[one.features_dir] = list(dict.fromkeys((*missing.get(one.features_dir, ()), *usual, *begun)))
        unstable[one.features_dir] = list(dict.fromkeys((*unstable.get(one.features_dir, ()), *small)))
    everywhere = [joint for joint in sorted(found, key=_order) if not _missing([joint], trained)]
    lines = [*_left_out(missing), *(f"stability: {line}" for line in _left_out(unstable))]
    joint = True if config.joint is None else config.joint
    rates = MISSING_RATES if config.missing is None else config.missing
    return replace(config, conditions=tuple(everywhere), joint=joint, missing=rates), lines


def _missing(conditions: Sequence[JointCondition], trained: Sequence[FusionConfig]) -> dict[str, list[str]]:
    """By folder of features, the conditions of which it lacks something that a run looks at."""
    found: dict[str, dict[str, None]] = {}
    for one in trained:
        for joint in conditions:
            names = lacking(Path(one.features_dir), joint, one.modalities, one.encoders)
            if names:
                found.setdefault(one.features_dir, {}).update(dict.fromkeys(names))
    return {folder: list(names) for folder, names in found.items()}


def _told(folder: str, names: Sequence[str], trained: Sequence[FusionConfig]) -> str:
    """What is not cached, and the command that makes it."""
    lacked = [
        name
        for one in trained
        if one.features_dir == folder
        for condition in names
        for name in touches(Path(folder), parse_joint(condition), one.modalities, one.encoders)
    ]
    modalities = " and ".join(dict.fromkeys(lacked))
    command = features_command(Path(folder), names)
    return f"no cached {modalities} features for {', '.join(names)} in {folder}; run: {command}"


def _left_out(missing: dict[str, list[str]]) -> list[str]:
    return [
        f"left out, not cached: {', '.join(names)}; to have them: {features_command(Path(folder), names)}"
        for folder, names in missing.items()
        if names
    ]


def _order(condition: JointCondition) -> tuple[int, int, str, float]:
    """Section by section; families of the default recipe before others, and levels from the mildest on."""
    place = place_of(condition.name)
    usual = [place_of(known.name).family for known in DEFAULT_CONDITIONS]
    rank = usual.index(place.family) if place.family in usual else len(usual)
    return (SECTIONS.index(place.section), rank, place.family, place.severity)
