"""The command `trifuse`: make's targets by the same names, for where there is no Makefile.

    trifuse features --config my/features.yaml corpus=data/metadata.csv
    trifuse predict CLIP=x.mp4 RUN=outputs/fusion

Exit codes are those of the modules that it runs; 2 for a command that does not exist.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.names import did_you_mean
from configs.command.launch import module_name
from configs.loader import FOLDER


@dataclass(frozen=True)
class Command:
    """A module to run, its usual configuration ("": it takes none), and what it does."""

    module: str
    config: str
    what: str


COMMANDS = {
    "demo": Command("fuse.demo", "demo/demo.yaml", "the whole pipeline on a corpus that it synthesises itself"),
    "data": Command("extract.download", "ravdess/data.yaml", "RAVDESS from Zenodo: ACTORS=1,2 KIND=video"),
    "corpus": Command("extract.corpus", "ravdess/corpus.yaml", "metadata for a folder of clips: ROOT=dir OUT=file.csv"),
    "preview": Command("extract.preview", "demo/preview.yaml", "a clip under every condition: CLIP=x.mp4"),
    "features": Command("extract", "ravdess/features.yaml", "stage one: features of every clip"),
    "train-fusion": Command("fuse.train", "ravdess/fusion.yaml", "stage two: fusion heads on cached features"),
    "finetune-e2e": Command("fuse.finetune", "ravdess/finetune.yaml", "encoders and head together"),
    "sweep": Command("fuse.sweep", "sweeps/modalities.yaml", "every configuration of a grid"),
    "report": Command(
        "fuse.studies.report", "ravdess/studies/report.yaml", "one HTML file about runs: RUN=outputs/fusion"
    ),
    "compare": Command("fuse.studies.compare", "ravdess/studies/compare.yaml", "is one run better? Paired by speaker"),
    "enrolment": Command("fuse.studies.enrolment", "ravdess/studies/enrolment.yaml", "how many clips adaptation needs"),
    "robustness-table": Command("fuse.robustness", "ravdess/robustness.yaml", "what noise and occlusion cost"),
    "predict": Command("fuse.predict", "predict.yaml", "what a run says of clips: CLIP=x.mp4 RUN=outputs/fusion"),
    "app": Command("fuse.predict.app", "predict.yaml", "a page to try a run on clips: RUN=outputs/fusion"),
    "doctor": Command("configs.command.doctor", "ravdess/features.yaml", "will it run on this machine?"),
    "random-encoders": Command("extract.random_encoders", "demo/encoders.yaml", "small untrained encoders, for trials"),
    "cache": Command("cache", "", "look after stores: info, verify, repair, gc, export, import"),
}
# make's variables; everything else is a setting as it stands.
VARIABLES = {
    "CLIP": "clip",
    "RUN": "run",
    "ROOT": "root",
    "OUT": "out",
    "LAYOUT": "layout",
    "PATTERN": "pattern",
    "CSV": "csv",
    "LABEL": "columns.label",
    "SPEAKER": "columns.speaker",
    "ACTORS": "actors",
    "KIND": "kind",
    "ENGINE": "engine.name",
    "REMOTE": "remote",
}
# Those that commands read from their environment, where make puts them.
ENVIRONMENT = ("RANKS", "NODES", "NODE_RANK", "RENDEZVOUS")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code, or leaves with it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("help", "-h", "--help"):
        print(usage())
        return 0 if given else 2
    name, *rest = given
    if name not in COMMANDS:
        print(
            f"error: no command {name}{did_you_mean(name, COMMANDS)}; there are: {', '.join(COMMANDS)}", file=sys.stderr
        )
        return 2
    command = COMMANDS[name]
    rest = into_environment(rest)
    sys.argv = [f"trifuse {name}", *(with_config(command, rest) if command.config else rest)]
    runpy.run_module(module_name(command.module), run_name="__main__", alter_sys=True)
    return 0


def into_environment(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that belong into the environment, which has them now."""
    pairs = [(one, *one.partition("=")) for one in arguments]
    os.environ |= {name: value for _, name, equals, value in pairs if name in ENVIRONMENT and equals}
    return [one for one, name, equals, _ in pairs if not (name in ENVIRONMENT and equals)]


def usage() -> str:
    """What `trifuse --help` prints."""
    listed = "\n".join(f"  trifuse {name:17} {command.what}" for name, command in COMMANDS.items())
    return (
        f"usage: trifuse COMMAND [--config FILE] [a.b=value ...]\n\n{listed}\n\n"
        "Where a message says make COMMAND SET=..., type trifuse COMMAND ... here; RANKS=2 as with make."
    )


def with_config(command: Command, arguments: Sequence[str]) -> list[str]:
    """The arguments with make's variables as settings, and the usual configuration where none is named."""
    translated = [part for one in arguments for part in _translate(one)]
    if "--config" not in translated:
        return ["--config", str(FOLDER / command.config), *translated]
    at = translated.index("--config") + 1
    if at < len(translated):
        translated[at] = _shipped(translated[at])
    return translated


def _translate(argument: str) -> Iterator[str]:
    name, equals, value = argument.partition("=")
    if name in ("CONFIG", "--config") and equals:
        yield from ("--config", value)
    elif name == "ACTORS" and equals:
        yield f"actors=[{value}]"
    elif name in VARIABLES and equals:
        # As YAML text, whatever it holds: braces, colons, "#".
        yield "{}='{}'".format(VARIABLES[name], value.replace("'", "''"))
    else:
        yield argument


def _shipped(config: str) -> str:
    """`configs/sweeps/heads.yaml` is a file of the package where there is none of that name here."""
    inside = FOLDER.parent / config
    return str(inside) if not Path(config).exists() and inside.is_file() else config


if __name__ == "__main__":
    sys.exit(main())
