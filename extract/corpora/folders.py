"""Folders that say the label: `<label>/<clip>`, `<speaker>/<label>/<clip>`, or `<train or test>/<label>/<clip>`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

# As Hugging Face's audiofolder and videofolder read a first folder (and our words for these parts of a corpus).
SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
} | dict.fromkeys(("validation", "valid", "val", "dev"), "validation")


def folder_rows(paths: Sequence[PurePosixPath]) -> tuple[list[dict[str, str]], str]:
    """Columns of every clip, and what the folders were taken for.

    Args:
        paths: relative to the corpus root.

    Raises:
        ValueError: one line: the clips do not all lie one folder deep, or all two folders deep.
    """
    depths = {len(path.parts) - 1 for path in paths}
    if depths == {1}:
        return [{"path": str(path), "label": path.parts[0]} for path in paths], "<label>/<clip>"
    if depths == {2}:
        first = {path.parts[0] for path in paths}
        if all(name.casefold() in SPLITS for name in first):
            rows = [
                {"path": str(path), "label": path.parts[1], "split": SPLITS[path.parts[0].casefold()]} for path in paths
            ]
            return rows, "<split>/<label>/<clip>"
        rows = [{"path": str(path), "label": path.parts[1], "speaker": path.parts[0]} for path in paths]
        return rows, '<speaker>/<label>/<clip> (the other way round: PATTERN="{label}/{speaker}/*")'
    examples = {len(path.parts) - 1: path for path in reversed(paths)}
    where = " and ".join(f"{path} lies {depth} folders deep" for depth, path in sorted(examples.items())[:2])
    raise ValueError(f"clips must lie in <label>/ or in <speaker>/<label>/, all of them alike; {where}")


def looks_like_labels(paths: Sequence[PurePosixPath]) -> bool:
    """Whether folders may be taken for labels without being told: two or more, not all numbered (Actor_01, 1002)."""
    try:
        rows, _ = folder_rows(paths)
    except ValueError:
        return False
    labels = {row["label"] for row in rows}
    return len(labels) > 1 and not all(label[-1].isdigit() for label in labels)
