"""How a folder says who speaks and what the label is: the layouts of `make corpus`, and which one a folder has."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath

from cache.names import nearest
from configs.loader import load_config
from configs.schema.corpora import FOLDER, LAYOUTS, CorpusConfig, ready_made
from extract.corpora.columns import in_words, label_order
from extract.corpora.files import AUDIO, KINDS, VIDEO, media_files
from extract.corpora.folders import folder_rows, looks_like_labels
from extract.corpora.listing import Listing, listed, path_id
from extract.corpora.pattern import Pattern, read_pattern
from extract.corpora.ravdess import list_clips
from extract.corpora.tables import TableRow, output_columns, placed, stretch_id, table_rows, tables_in

RAVDESS_SHAPE = re.compile(r"[0-9]{2}(-[0-9]{2}){6}")
# What may be said beside the name of a ready-made layout; the rest is what the layout is made of.
BESIDE = ("root", "out", "layout", "kind", "csv", "ids", "follow_links", "overwrite")


def list_corpus(root: Path, config: CorpusConfig) -> Listing:
    """The clips of a folder, by the layout that the configuration says or the folder shows.

    Raises:
        ValueError: one line: nothing there, no layout fits, or what the layout does not allow.
    """
    config, note = _resolved(root, config)
    listing = LISTERS[config.layout or ""](root, config)
    return replace(listing, notes=(note, *listing.notes))


def _ravdess(root: Path, config: CorpusConfig) -> Listing:
    listing = list_clips(root, root, config.channels, config.kind, config.follow_links)
    labels = label_order(config)
    odd = next((clip for clip in listing.clips if labels and clip.label not in labels), None)
    if odd:
        raise ValueError(f"{odd.path}: labels has no {odd.label!r}; it has {', '.join(labels)}; add it")
    return replace(listing, labels=labels)


def _folders(root: Path, config: CorpusConfig) -> Listing:
    rows, taken_for = folder_rows(_media(root, config))
    named = [{**row, "clip_id": _clip_id(row["path"], config)} for row in rows]
    notes = [f"the folders are read as {taken_for}"]
    return _listed([(row["path"], row) for row in named], config, notes)


def _by_pattern(root: Path, config: CorpusConfig) -> Listing:
    patterns = _patterns(config)
    paths = _media(root, config)
    found = [(path, _first_match(patterns, path)) for path in paths]
    odd = [path for path, match in found if match is None]
    shown = " or ".join(pattern.written for pattern in patterns)
    if len(odd) == len(paths):
        raise ValueError(f"{root}: none of {len(paths)} files fits the pattern {shown}, e.g. {odd[0]} does not")
    rows = []
    for path, match in found:
        if match is not None:
            pattern, parts = match
            clip_id = parts.get("clip_id") or _clip_id(str(path), config, pattern)
            rows.append((str(path), {**parts, "path": str(path), "clip_id": clip_id}))
    notes = [f"{len(odd)} files do not fit the pattern {shown} and are left out, first: {odd[0]}"] if odd else []
    return _listed(rows, config, notes)


def _by_table(root: Path, config: CorpusConfig) -> Listing:
    table, notes = table_rows(root, config)
    rows = [(entry.where, row) for entry in table if (row := _table_row(root, config, entry)) is not None]
    null = len(table) - len(rows)
    rows = [(where, row) for where, row in rows if config.kind in (None, _kind(row["path"]))]
    there = [(where, row) for where, row in rows if (root / row["path"]).is_file()]
    if rows and not there:
        where, row = rows[0]
        raise ValueError(f"{where}: no file {root / row['path']}, nor any other of {len(rows)}; is ROOT right?")
    if len(there) < len(rows):
        missing = next(row["path"] for where, row in rows if not (root / row["path"]).is_file())
        notes.append(f"{len(rows) - len(there)} files are not there and are left out, first: {missing}")
    paths = {row["path"] for _, row in there}
    other = [path for path in map(str, _found(root, config)) if path not in paths]
    if other:
        notes.append(f"{len(other)} media files stand in no line and are left out, first: {other[0]}")
    return _finished(there, config, notes, null)


def _table_row(root: Path, config: CorpusConfig, entry: TableRow) -> dict[str, str] | None:
    """What metadata.csv has of a line; None: its clip is left out."""
    words = in_words(entry.cells, config, entry.where)
    if words is None:
        return None
    if not words.get("path"):
        raise ValueError(f"{entry.where}: path is empty")
    try:
        path = placed(root, entry.file, words["path"], config.follow_links)
    except ValueError as error:
        raise ValueError(f"{entry.where}: {error}") from error
    clip_id = words.get("clip_id") or stretch_id(_clip_id(path, config), words)
    return {**output_columns(words), "path": path, "clip_id": clip_id}


LISTERS: Mapping[str, Callable[[Path, CorpusConfig], Listing]] = {
    "ravdess": _ravdess,
    "folders": _folders,
    "pattern": _by_pattern,
    "csv": _by_table,
}


# Which layout


def _resolved(root: Path, config: CorpusConfig) -> tuple[CorpusConfig, str]:
    """The configuration with its layout, and a line about where that is from."""
    if config.layout in LAYOUTS:
        return config, f"layout {config.layout}"
    if config.layout is not None:
        return _ready_made(config.layout, config), f"layout {config.layout}, from configs/corpora/{config.layout}.yaml"
    if config.pattern is not None:
        return replace(config, layout="pattern"), "layout pattern"
    if config.csv is not None or config.columns:
        return replace(config, layout="csv"), "layout csv"
    paths = _media(root, config)
    if any(RAVDESS_SHAPE.fullmatch(path.stem) for path in paths):
        return replace(config, layout="ravdess"), "layout ravdess, by the names of the files"
    for name in ready_made():
        if _names_fit(name, paths):
            return _ready_made(name, config), f"layout {name}, by the names of the files (configs/corpora/{name}.yaml)"
    if looks_like_labels(paths):
        return replace(config, layout="folders"), "layout folders, by where the clips lie"
    raise ValueError(_no_layout(root, paths))


@functools.cache
def _shipped(name: str) -> CorpusConfig:
    return load_config(CorpusConfig, FOLDER / f"{name}.yaml")


def _ready_made(name: str, config: CorpusConfig) -> CorpusConfig:
    plain = CorpusConfig()
    for field in fields(CorpusConfig):
        if field.name not in BESIDE and getattr(config, field.name) != getattr(plain, field.name):
            raise ValueError(
                f"{field.name} is part of the layout {name}; to change it, copy configs/corpora/{name}.yaml and give "
                "the copy as CONFIG="
            )
    shipped = _shipped(name)
    said = {key: getattr(config, key) for key in BESIDE if key not in ("layout", "csv", "ids")}
    return replace(shipped, **said, csv=config.csv or shipped.csv, ids=config.ids or shipped.ids)


def _names_fit(name: str, paths: Sequence[PurePosixPath]) -> bool:
    """Whether all files are named as in a ready-made layout, and say nothing that it does not know."""
    config = _shipped(name)
    if config.layout != "pattern":
        return False
    patterns = _patterns(config)
    try:
        for path in paths:
            match = _first_match(patterns, path)
            if match is None:
                return False
            in_words(match[1], config, str(path))
    except ValueError:
        return False
    return True


def _no_layout(root: Path, paths: Sequence[PurePosixPath]) -> str:
    tables = tables_in(root)
    table = f"; or, if it lists the clips, LAYOUT=csv CSV={tables[0]}" if tables else ""
    return (
        f"{root}: the names do not say how {paths[0]} and {len(paths) - 1} other files are labelled; say where the "
        f'label stands, e.g. make corpus ROOT={root} PATTERN="{{speaker}}_{{label}}_*", or LAYOUT=folders if the '
        f"folders are the labels, or LAYOUT={'|'.join(ready_made())}{table} (docs/corpora.md)"
    )


# What the layouts share


def _media(root: Path, config: CorpusConfig) -> list[PurePosixPath]:
    """Media files, relative to the root.

    Raises:
        ValueError: one line: there are none.
    """
    paths = _found(root, config)
    if not paths:
        usual = [*(VIDEO[:1] if config.kind != "audio" else ()), *(AUDIO[:2] if config.kind != "video" else ())]
        raise ValueError(f"{root} holds no clips: no {' or '.join(usual)} file in it or below, nor any other media")
    return paths


def _found(root: Path, config: CorpusConfig) -> list[PurePosixPath]:
    suffixes = [suffix for suffix, kind in KINDS.items() if config.kind in (None, kind)]
    files = media_files(root, root, suffixes, config.follow_links)
    return [PurePosixPath(path.relative_to(root)) for path in files]


def _kind(path: str) -> str | None:
    return KINDS.get(PurePosixPath(path).suffix.lower())


def _patterns(config: CorpusConfig) -> list[Pattern]:
    written = config.pattern
    if written is None:
        raise ValueError('layout pattern needs a pattern, e.g. PATTERN="{speaker}_{label}_*"')
    patterns = [read_pattern(one) for one in ([written] if isinstance(written, str) else written)]
    made = {*config.fill, *(name for others in config.by.values() for name in others)}
    for pattern in patterns:
        if "label" not in {*pattern.names, *made}:
            close = nearest("label", pattern.names)
            guess = f" (is it {{{close}}}?)" if close else ""
            raise ValueError(f"pattern {pattern.written} has no {{label}}; name so the part that says the label{guess}")
    return patterns


def _first_match(patterns: Sequence[Pattern], path: PurePosixPath) -> tuple[Pattern, dict[str, str]] | None:
    for pattern in patterns:
        parts = pattern.match(path)
        if parts is not None:
            return pattern, parts
    return None


def _clip_id(path: str, config: CorpusConfig, pattern: Pattern | None = None) -> str:
    plain = PurePosixPath(path)
    if config.ids == "name":
        return plain.stem
    return path_id(plain) if pattern is None or config.ids == "path" else pattern.identity(plain)


def _listed(rows: Sequence[tuple[str, dict[str, str]]], config: CorpusConfig, notes: Sequence[str]) -> Listing:
    """Rows, in words, as a listing."""
    words = [(where, in_words(row, config, where)) for where, row in rows]
    kept = [(where, row) for where, row in words if row is not None]
    return _finished(kept, config, notes, len(rows) - len(kept))


def _finished(
    rows: Sequence[tuple[str, dict[str, str]]], config: CorpusConfig, notes: Sequence[str], null: int
) -> Listing:
    """`null`: how many clips have a label that is to be left out."""
    if not rows:
        raise ValueError("nothing is left: the label of every clip is null, or kind leaves them all out")
    listing = listed([row for _, row in rows], label_order(config), notes)
    return replace(listing, skipped={"whose label is null": null} if null else {})
