"""What is kept of an unfinished fine-tune, and how the next start of the same command finds it.

A folder beside the run that is being made, with one folder per position that replaces the one before:

    settings.json              what it is a training of; other settings are refused
    epoch-3-step-12/           weights.safetensors, average.safetensors (where there is one), state.pt
    best-2.safetensors         weights after epoch 2, the best so far; not there while the start is
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cache.files.atomic import fsync_path, write_atomic
from cache.files.difference import difference
from configs.command.again import again
from fuse.stack.job import History

RESUME = "resume"
SETTINGS, WEIGHTS, AVERAGE, STATE = "settings.json", "weights.safetensors", "average.safetensors", "state.pt"
POSITION = re.compile(r"epoch-(\d+)-step-(\d+)")
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class TrainingState:
    """A training between two steps.

    Attributes:
        epoch, step: what comes next, both from 0.
        loss_sum: of the clips of this epoch so far, over all ranks.
        weights: those that learn.
        average: their moving average; empty where none is kept.
        adamw, schedule, scaler: as their `state_dict` gives them.
        history: what happened so far.
        best_NC: validation logits of the best epoch, or of the start.
        best: weights of that epoch; empty while it is the start.
        before: logits of validation and test before training.
        waited: epochs since the best.
    """

    epoch: int
    step: int
    loss_sum: float
    weights: Weights
    average: Weights
    adamw: Mapping[str, Any]
    schedule: Mapping[str, Any]
    scaler: Mapping[str, Any]
    history: History
    best_NC: Tensor
    best: Weights
    before: tuple[Tensor, ...]
    waited: int

    @property
    def just_best(self) -> bool:
        """Whether the epoch that has just ended is the best: a file of its weights may be of a killed attempt."""
        return self.waited == 0 and self.step == 0


# What has a file of its own.
OWN_FILES = ("weights", "average", "best")


class Keeper:
    """Writes a training's state, on rank 0, and reads it on all."""

    def __init__(self, folder: Path, minutes: float) -> None:
        """`minutes` between two states inside an epoch."""
        self.folder, self._seconds, self._last = folder, minutes * 60, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last one is old enough."""
        return time.monotonic() - self._last >= self._seconds

    def save(self, state: TrainingState) -> None:
        """The state, complete or not at all; the one before it goes when it is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"epoch-{state.epoch}-step-{state.step}"
        if (self.folder / name).is_dir():
            # A position has one state. To put another in its place would leave none for a moment.
            self._last = time.monotonic()
            return
        part, best = self.folder / f".{name}.part", self.folder / _best_name(state.history)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        save_file(dict(state.weights), part / WEIGHTS)
        if state.average:
            save_file(dict(state.average), part / AVERAGE)
        torch.save(_plain(state), part / STATE)
        # Better no state than one that cannot be loaded again.
        torch.load(part / STATE, weights_only=True, map_location="cpu")
        for path in (*part.iterdir(), part):
            fsync_path(path)
        if state.best and (not best.exists() or state.just_best):
            whole = self.folder / f".{best.name}.part"
            save_file(dict(state.best), whole)
            fsync_path(whole)
            os.replace(whole, best)
        os.replace(part, self.folder / name)
        fsync_path(self.folder)
        self._forget_but(name, best.name)
        self._last = time.monotonic()

    def load(self) -> TrainingState | None:
        """The last state; None where training has to start.

        Raises:
            ValueError: it cannot be read, lacks a key or has one that is not known.
        """
        folder = last_position(self.folder)
        if folder is None:
            return None
        try:
            kept = torch.load(folder / STATE, weights_only=True, map_location="cpu")
            return _state(kept, folder)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError, TypeError) as error:
            raise ValueError(
                f"{folder} is no state of a fine-tune ({' '.join(str(error).split())}); "
                f"start it anew: {again('overwrite=true')}"
            ) from error

    def forget(self) -> None:
        """Nothing is left to continue."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _forget_but(self, *names: str) -> None:
        for path in self.folder.iterdir():
            if path.name not in (*names, SETTINGS):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def last_position(folder: Path) -> Path | None:
    """The last state in a folder of states; None where there is none."""
    positions = {tuple(map(int, found.groups())): path for path, found in _positions(folder)}
    return positions[max(positions)] if positions else None


def in_words(position: Path) -> str:
    """A position for people, who count from one."""
    found = POSITION.fullmatch(position.name)
    assert found is not None
    epoch, step = map(int, found.groups())
    return f"epoch {epoch + 1}, step {step + 1}"


def begin(folder: Path, settings: Mapping[str, Any], anew: bool) -> None:
    """Say what a training is of; an interrupted one of the same settings will be continued.

    Args:
        folder: of states.
        settings: everything that its outcome depends on, as JSON knows it.
        anew: forget an interrupted one of other settings.

    Raises:
        ValueError: there is one of other settings; names the first that differs.
    """
    wanted = json.loads(json.dumps(settings))
    if last_position(folder) is not None:
        there = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        differs = difference(there, wanted)
        if not differs:
            return
        if not anew:
            raise ValueError(
                f"{folder.parent.parent} holds an interrupted fine-tune of other settings ({differs}); set them as "
                f"they were to continue it, or start anew: {again('overwrite=true')}"
            )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_atomic(folder / SETTINGS, json.dumps(wanted, indent=1) + "\n")


def _positions(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return [(path, found) for path in paths if (found := POSITION.fullmatch(path.name))]


def _best_name(history: History) -> str:
    return f"best-{history.best_epoch}.safetensors"


def _plain(state: TrainingState) -> dict[str, Any]:
    """Tensors, numbers, text, tuples, lists and dicts; what has a file of its own is only named here."""
    kept = {one.name: getattr(state, one.name) for one in fields(state) if one.name not in OWN_FILES}
    return {**kept, "history": asdict(state.history), "files": [name for name in OWN_FILES if getattr(state, name)]}


def _state(kept: Any, folder: Path) -> TrainingState:
    if not isinstance(kept, dict):
        raise TypeError("it holds no record")
    known = {one.name for one in fields(TrainingState)} - set(OWN_FILES) | {"files"}
    if kept.keys() != known:
        missing, unknown = sorted(known - kept.keys()), sorted(map(str, kept.keys() - known))
        raise TypeError(f"it lacks {', '.join(missing) or 'nothing'} and has unknown {', '.join(unknown) or 'nothing'}")
    rest = {name: value for name, value in kept.items() if name != "files"}
    history = History(**rest.pop("history"))
    paths = {
        "weights": folder / WEIGHTS,
        "average": folder / AVERAGE,
        "best": folder.parent / _best_name(history),
    }
    weights = {name: load_file(path) if name in kept["files"] else {} for name, path in paths.items()}
    return TrainingState(**{**rest, "history": history, **weights})
