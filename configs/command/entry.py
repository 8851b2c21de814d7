"""How every command starts: its command line, its configuration, and how its errors end."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from cache.files.atomic import write_atomic
from cache.files.place import local_path
from configs.command.again import remembered
from configs.loader import load_config

T = TypeVar("T")


def main(
    kind: type[T],
    run: Callable[[T], int],
    description: str,
    arguments: Sequence[str] | None = None,
    flags: Sequence[str] = (),
) -> int:
    """Entry point shared by every module: parse the command line, load, run, turn ValueError into exit code 2.

    Ctrl-C is 130 and a word, for what has nothing to say about going on.
    `flags`: keys that may also be switched on as `--key`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", type=local_path, required=True, metavar="FILE", help="YAML file")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="overrides, parsed as YAML")
    for flag in flags:
        parser.add_argument(f"--{flag.replace('_', '-')}", action="store_true", help=f"the same as {flag}=true")
    parsed = parser.parse_intermixed_args(arguments)
    switched = [f"{flag}=true" for flag in flags if getattr(parsed, flag)]
    overrides = [*parsed.overrides, *switched]
    try:
        with remembered(parsed.config, overrides):
            return run(load_config(kind, parsed.config, overrides))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def rank_main(work: Callable[[Path, int, int], None], arguments: Sequence[str] | None = None) -> int:
    """Entry point of ranks that end by themselves: a folder to work in, and the file that user errors go to.

    torchrun says which rank this is, of how many, and cannot pass on exit codes.
    """
    folder, error_file = map(Path, sys.argv[1:] if arguments is None else arguments)
    try:
        work(folder, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    except (ValueError, OSError) as error:
        write_atomic(error_file, str(error))
        return 1
    return 0
