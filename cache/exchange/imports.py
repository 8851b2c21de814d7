"""`python -m cache import`: features that others computed become a named modality, or another encoder of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cache.conditions import CLEAN, parse_condition
from cache.corpus.clips import read_corpus
from cache.exchange.feature_file import FeatureFile, read_feature_file
from cache.features.rows import ArraySpec, UnitRows
from cache.features.store import FeatureStore, open_store
from cache.features.units import unit_count, unit_rows
from cache.files.hashes import sha256_of
from cache.files.lock import locked

TOOL = "import"
# A folder of the store each; modalities are keys of configurations and of models, too.
MODALITY = re.compile(r"[a-z][a-z0-9_]*")
ENCODER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Import:
    """What is imported as what.

    Attributes:
        file: CSV or npz, see `cache.exchange.feature_file`.
        features_dir: folder of the stores.
        modality: name that stage two knows the features by.
        name: used in place of an encoder's name; "": the stem of the file.
        condition: the condition that the features were computed under.
        corpus: metadata.csv; needed where there is no store yet.
        skip: columns of a CSV to leave out.
    """

    file: Path
    features_dir: Path
    modality: str
    name: str = ""
    condition: str = CLEAN
    corpus: Path | None = None
    skip: tuple[str, ...] = ()


def import_features(what: Import) -> str:
    """Import; returns what was done. The same file again: nothing to do.

    Raises:
        ValueError: the file, a name or the corpus does not fit, or other features are there under that name.
    """
    name = what.name or what.file.stem
    for key, value, pattern in (("modality", what.modality, MODALITY), ("name", name, ENCODER)):
        if not pattern.fullmatch(value) or value == "clip_id":
            raise ValueError(f"--{key} {value!r} must match {pattern.pattern}")
    features = read_feature_file(what.file, what.skip)
    spec = _spec(what, name, features)
    clip_ids = _clip_ids(what)
    known = set(clip_ids) & set(features.clip_ids)
    if not known:
        raise ValueError(
            f"{what.file} has no row of any of the {len(clip_ids)} clips: "
            f"its first is {features.clip_ids[0]!r}, theirs is {clip_ids[0]!r}"
        )
    with locked(what.features_dir, 0.0):
        store = FeatureStore.create(what.features_dir / f"{what.condition}.zarr", clip_ids)
        store.require(spec)
        written = _write(store, spec, features, f"no row in {what.file.name}")
    return _summary(store, spec, features, written)


def _spec(what: Import, name: str, features: FeatureFile) -> ArraySpec:
    _, layers, width = features.hidden_BLD.shape
    provenance = {
        "tool": TOOL,
        "encoder": name,
        "random_weights": False,
        "sha256": sha256_of(what.file),
        "columns": list(features.columns),
        "dtype": "float32",
        "condition": asdict(parse_condition(what.condition)),
    }
    return ArraySpec(what.modality, name, layers, width, provenance)


def _clip_ids(what: Import) -> Sequence[str]:
    """The clips of the store, or of the clean one, or of the corpus; where there are several they must agree."""
    stores = [what.features_dir / f"{name}.zarr" for name in (what.condition, CLEAN)]
    known = [open_store(store).clip_ids for store in stores if store.exists()][:1]
    if what.corpus is not None:
        # The store refuses other clips than its own.
        return [clip.clip_id for clip in read_corpus(what.corpus, follow_links=True).clips]
    if not known:
        raise ValueError(f"{what.features_dir} has no {CLEAN}.zarr to take the clips from; add --corpus metadata.csv")
    return known[0]


def _write(store: FeatureStore, spec: ArraySpec, features: FeatureFile, reason: str) -> int:
    """Write the units that are not there yet; returns how many."""
    row_of = {clip_id: row for row, clip_id in enumerate(features.clip_ids)}
    units = [u for u in range(unit_count(len(store.clip_ids))) if store.unit_is_pending(spec.path, u)]
    for unit in units:
        span = unit_rows(len(store.clip_ids), unit)
        rows = UnitRows.empty(len(span), spec)
        for row, clip_id in enumerate(store.clip_ids[span.start : span.stop]):
            if clip_id in row_of:
                rows.done(row, features.hidden_BLD[row_of[clip_id]])
            else:
                rows.absent(row, reason)
        store.write_unit(spec, unit, rows)
    return len(units)


def _summary(store: FeatureStore, spec: ArraySpec, features: FeatureFile, written: int) -> str:
    if not written:
        return f"{store.path} {spec.path}: nothing to do, this file has been imported"
    clips = set(store.clip_ids)
    others = [clip_id for clip_id in features.clip_ids if clip_id not in clips]
    lacking = len(clips - set(features.clip_ids))
    lines = [f"{store.path} {spec.path}: {len(clips) - lacking} clips, {spec.layers} x {spec.width} numbers each"]
    if lacking:
        lines.append(f"{lacking} clips have no row: absent")
    if others:
        lines.append(f"{len(others)} rows are of other clips and were left out, first {others[0]}")
    return "\n".join(lines)
