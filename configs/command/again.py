"""The command that is running, so that a message can say it again, whole, with what has to change."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from cache.files.commands import make_command

# What each module is called in the Makefile.
TARGETS = {
    "extract": "features",
    "extract.corpus": "corpus",
    "extract.download": "data",
    "extract.preview": "preview",
    "fuse.demo": "demo",
    "fuse.train": "train-fusion",
    "fuse.finetune": "finetune-e2e",
    "fuse.sweep": "sweep",
    "fuse.predict": "predict",
    "fuse.predict.app": "app",
    "configs.command.doctor": "doctor",
    "fuse.robustness": "robustness-table",
    "fuse.studies.report": "report",
    "fuse.studies.compare": "compare",
    "fuse.studies.enrolment": "enrolment",
}


@dataclass(frozen=True)
class Command:
    """A target of the Makefile, its configuration file and what was set beside it, as it was typed."""

    target: str
    config: Path
    settings: tuple[str, ...]


_running: ContextVar[Command | None] = ContextVar("_running", default=None)


@contextmanager
def remembered(config: Path, settings: Sequence[str]) -> Iterator[None]:
    """Within it, `again` knows this command; the target follows from the module that Python was started with."""
    target = TARGETS.get(_module())
    token = _running.set(Command(target, config, tuple(settings)) if target else None)
    try:
        yield
    finally:
        _running.reset(token)


def again(*settings: str) -> str:
    """The running command with these settings (`key=value`) in place of what was said of their keys.

    Outside of a command (in a notebook, in a test) there is none: the settings alone.
    """
    running = _running.get()
    if running is None:
        return f"the same with {' '.join(settings)}"
    keys = [word.partition("=")[0] for word in settings]
    kept = [word for word in running.settings if not any(_below(word.partition("=")[0], key) for key in keys)]
    return make_command(running.target, [*kept, *settings], running.config)


def again_run(*settings: str) -> str:
    """The same with settings of stage two, which a sweep has under `run`."""
    running = _running.get()
    below = "run." if running and running.target == "sweep" else ""
    return again(*(f"{below}{word}" for word in settings))


def beside(pattern: str, key: str, value: str) -> Path | None:
    """A configuration file of such a name beside that of the running command, or above it, which says this of a key."""
    running = _running.get()
    folders = (running.config.parent, running.config.parent.parent) if running else ()
    files = [file for folder in folders for file in sorted(folder.glob(pattern))]
    return next((file for file in files if f"{key}: {value}" in file.read_text(encoding="utf-8").splitlines()), None)


def _below(key: str, other: str) -> bool:
    """Whether a key is another or stands in its section: `augment.audio` in `augment`."""
    return key == other or key.startswith(f"{other}.")


def _module() -> str:
    """Dotted name of what `python -m` was given; "" where Python was started otherwise."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec else ""
