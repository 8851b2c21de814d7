"""`python -m cache`: look after the stores of a features folder.

Exit codes: 0 done; 1 verify found damage; 2 bad input, one line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from cache.care.garbage import collect
from cache.care.info import info
from cache.care.repair import repair
from cache.care.sources import changed_sources
from cache.care.verify import verify
from cache.conditions import CLEAN
from cache.corpus.clips import read_corpus
from cache.exchange.exports import Export, export
from cache.exchange.imports import Import, import_features
from cache.files.place import local_path
from cache.remote.mirror import pull, push


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see python -m cache --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "info": _info,
        "verify": _verify,
        "repair": _repair,
        "gc": _gc,
        "export": _export,
        "import": _import,
        "push": _push,
        "pull": _pull,
    }
    try:
        return commands[options.command](options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _info(options: argparse.Namespace) -> int:
    print("\n".join(info(options.features_dir)))
    return 0


def _verify(options: argparse.Namespace) -> int:
    if options.sources and options.corpus is None:
        raise ValueError("--sources needs --corpus metadata.csv to find the media files")
    report = verify(options.features_dir)
    if options.sources and not report.damage:
        corpus = read_corpus(options.corpus, options.corpus_root, options.follow_links)
        report.damage += changed_sources(options.features_dir, corpus)
    print(report)
    return 1 if report.damage else 0


def _repair(options: argparse.Namespace) -> int:
    print("\n".join(repair(options.features_dir)))
    return 0


def _gc(options: argparse.Namespace) -> int:
    print("\n".join(collect(options.features_dir, options.yes)))
    return 0


def _export(options: argparse.Namespace) -> int:
    layers = tuple(options.layers or ())
    print(export(Export(options.features_dir, options.to, options.condition, options.modality, layers)))
    return 0


def _import(options: argparse.Namespace) -> int:
    what = Import(
        options.file,
        options.features_dir,
        options.modality,
        options.name,
        options.condition,
        options.corpus,
        tuple(options.skip),
    )
    print(import_features(what))
    return 0


def _push(options: argparse.Namespace) -> int:
    print(push(options.features_dir, options.address))
    return 0


def _pull(options: argparse.Namespace) -> int:
    print(pull(options.address, options.features_dir))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m cache", description="Look after the stores of a features folder.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    _folder(commands.add_parser("info", help="what is there: arrays, states, sizes, provenance"))
    checked = _folder(commands.add_parser("verify", help="name every flipped bit and lost chunk; exit code 1 if any"))
    checked.add_argument("--sources", action="store_true", help="hash the media files again, too")
    checked.add_argument("--corpus", type=local_path, metavar="FILE", help="metadata.csv, for --sources")
    checked.add_argument(
        "--corpus-root", type=local_path, metavar="DIR", help="folder of its paths; default: the CSV's"
    )
    checked.add_argument("--follow-links", action="store_true", help="read clips behind links out of that folder")
    _folder(commands.add_parser("repair", help="set what is damaged back to pending; print what computes it"))
    garbage = _folder(commands.add_parser("gc", help="list what nothing needs any more"))
    garbage.add_argument("--yes", action="store_true", help="delete it")
    exported = _folder(commands.add_parser("export", help="write done rows to one file, joined by clip id"))
    exported.add_argument("--to", type=local_path, required=True, metavar="FILE", help="name.h5, name.npz or name.csv")
    exported.add_argument("--modality", default="", help="default: all of the condition")
    exported.add_argument("--condition", default=CLEAN)
    exported.add_argument("--layers", nargs="+", help="numbers, last or all; default: all, in a CSV the last")
    _add_import(commands.add_parser("import", help="take features that others computed, keyed by clip id"))
    pushed = _folder(commands.add_parser("push", help="copy what is complete to an object store, verified"))
    pushed.add_argument("address", metavar="s3://bucket/name")
    pulled = commands.add_parser("pull", help="copy what an object store has and a folder lacks")
    pulled.add_argument("address", metavar="s3://bucket/name")
    _folder(pulled)
    return parser


def _folder(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("features_dir", type=local_path, help="folder of the stores")
    return parser


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=local_path, help="CSV (clip_id and columns) or npz (clip_id and features)")
    parser.add_argument("--features-dir", type=local_path, required=True, metavar="DIR", help="folder of the stores")
    parser.add_argument("--modality", required=True, help="name for stage two, e.g. face")
    parser.add_argument("--name", default="", help="name of what computed them; default: the file's stem")
    parser.add_argument("--condition", default=CLEAN, help="condition they were computed under")
    parser.add_argument("--corpus", type=local_path, metavar="FILE", help="metadata.csv, where there is no store yet")
    parser.add_argument("--skip", nargs="+", default=[], metavar="COLUMN", help="columns to leave out")


if __name__ == "__main__":
    sys.exit(main())
