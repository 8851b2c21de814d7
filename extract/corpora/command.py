"""`make corpus`: metadata.csv, or .parquet, for a folder of clips, what was found in it, and what to type next."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePosixPath

from cache.corpus.clips import REQUIRED, read_corpus, write_metadata
from cache.corpus.labels import TEXT_LIST, listed_labels
from cache.corpus.parquet import SUFFIX, is_parquet, refuse_no_pyarrow
from cache.corpus.ravdess import is_ravdess_id
from cache.corpus.sheet import USUAL_NAMES, columns_of
from cache.files.atomic import write_atomic
from cache.files.commands import make_command, settings_of
from cache.protocols.choice import LEAKING, fitting_protocol
from configs.schema.corpora import CorpusConfig
from extract.corpora.files import KINDS, refuse_no_folder
from extract.corpora.layouts import list_corpus
from extract.corpora.listing import Listing
from extract.corpora.tables import tables

OUR_HEADER = "clip_id,path,label,speaker,"
# More speakers or labels than these do not stand side by side on a screen.
MOST_SPEAKERS, MOST_LABELS = 12, 8
# Where the later stages look when they are told nothing.
DEFAULT_OUT = Path("data/metadata.csv")
# The recipe that corpora of a newcomer's size are served best by; RAVDESS has the default recipe.
OWN_FUSION = "configs/fusion.yaml"


def run(config: CorpusConfig) -> int:
    """Write the metadata and say what is in it."""
    root = Path(config.root)
    out = root / "metadata.csv" if config.out is None else Path(config.out)
    if out.is_dir():
        raise ValueError(f"out={out} is a folder; name the CSV file, e.g. out={out / 'metadata.csv'}")
    refuse_no_folder(root)
    refuse_no_pyarrow(out)
    listing = list_corpus(root, config)
    _write(listing, root, out, config)
    print("\n".join((*listing.notes, listing.summary(), *_table(listing))))
    print(f"wrote {out}")
    if listing.labels:
        print(f"wrote {out.parent / TEXT_LIST}: {', '.join(listing.labels)}")
    if out.parent.resolve() != root.resolve():
        print(f"the clips are not beside it: give the later stages corpus={out} corpus_root={root}")
    # What was written must be readable: a labels.txt of somebody else's beside it may forbid that.
    for note in read_corpus(out, root, config.follow_links).notes:
        print(f"note: {note}")
    print("\n".join(("next:", *(f"  {line}" for line in next_commands(listing, root, out, config.follow_links)))))
    return 0


# What is written


def _write(listing: Listing, root: Path, out: Path, config: CorpusConfig) -> None:
    if not config.overwrite:
        _refuse_foreign(out, root, config)
        _refuse_other_labels(listing, out)
    if listing.labels:
        _refuse_neighbours(out)
        write_atomic(out.parent / TEXT_LIST, "".join(f"{label}\n" for label in listing.labels))
    write_metadata(listing.clips, out, listing.further)


def _refuse_foreign(out: Path, root: Path, config: CorpusConfig) -> None:
    """A table that this command did not write is somebody's work, perhaps the very table that is read."""
    asked = config.csv is not None or config.layout == "csv" or bool(config.columns)
    read = asked and out.resolve() in {file.resolve() for _, file in tables(root, config)}
    if not read and (not out.is_file() or _is_ours(out)):
        return
    what = "is the table that is read" if read else "was written by somebody else"
    raise ValueError(
        f"{out} {what}; give another name: OUT={out.with_name(f'clips{out.suffix}')}, or replace it: SET=overwrite=true"
    )


def _is_ours(file: Path) -> bool:
    """Whether this command wrote a table: its columns begin as ours do."""
    if not is_parquet(file):
        with file.open("rb") as content:
            return content.read(len(OUR_HEADER)) == OUR_HEADER.encode()
    try:
        return tuple(columns_of(file)[: len(REQUIRED)]) == REQUIRED
    # It is no such table, or there is no pyarrow, without which nobody here can have written it.
    except ValueError:
        return False


def _refuse_other_labels(listing: Listing, out: Path) -> None:
    known = listed_labels(out.parent)
    if listing.labels and known is not None and (known[1] != listing.labels or known[0].name != TEXT_LIST):
        raise ValueError(
            f"{known[0]} lists {', '.join(known[1])}, and the layout {', '.join(listing.labels)}; give OUT a folder of "
            "its own, or replace the list: SET=overwrite=true"
        )


def _refuse_neighbours(out: Path) -> None:
    """A list of labels holds for every table of its folder."""
    for file in sorted([*out.parent.glob("*.csv"), *out.parent.glob(f"*{SUFFIX}")]):
        if file.name != out.name and _is_ours(file):
            raise ValueError(
                f"{TEXT_LIST} would hold for {file} as well; give OUT a folder of its own, e.g. "
                f"OUT={out.parent / out.stem / f'metadata{out.suffix}'}"
            )


# What is said


def _table(listing: Listing) -> list[str]:
    """Clips by label and speaker: side by side where that fits, else how many speakers each label has."""
    labels, speakers = listing.label_order, listing.speakers
    cells = Counter((clip.speaker, clip.label) for clip in listing.clips)
    if len(speakers) <= MOST_SPEAKERS and len(labels) <= MOST_LABELS:
        rows = [[speaker, *(str(cells[speaker, label]) for label in labels)] for speaker in speakers]
        return _aligned([["speaker", *labels], *rows])
    of_label = Counter(clip.label for clip in listing.clips)
    of_speaker = Counter(clip.speaker for clip in listing.clips)
    rows = [[label, str(of_label[label]), str(sum(cells[one, label] > 0 for one in speakers))] for label in labels]
    fewest, most = (choose(speakers, key=of_speaker.__getitem__) for choose in (min, max))
    spread = f"clips of a speaker: {of_speaker[fewest]} ({fewest}) to {of_speaker[most]} ({most})"
    if of_speaker[fewest] == of_speaker[most]:
        spread = f"clips of each speaker: {of_speaker[most]}"
    return [*_aligned([["label", "clips", "speakers"], *rows]), spread]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def next_commands(listing: Listing, root: Path, out: Path, follow_links: bool) -> list[str]:
    """The commands of stages one and two for this corpus, whole."""
    shared: dict[str, object] = {}
    own: dict[str, object] = {}
    fusion: dict[str, object] = {}
    if out != DEFAULT_OUT:
        name = re.sub(r"[^\w.-]+", "-", out.parent.resolve().name if out.name in USUAL_NAMES else out.stem)
        shared = {"corpus": str(out), "features_dir": f"features/{name}"}
        fusion["output_dir"] = f"outputs/{name}"
    if out.parent.resolve() != root.resolve():
        own["corpus_root"] = str(root)
    if follow_links:
        own["follow_links"] = True
    if all(KINDS.get(PurePosixPath(clip.path).suffix.lower()) == "audio" for clip in listing.clips):
        own["encoders.video"] = None
        fusion |= {"modalities": ["audio", "text"]}
    ravdess = all(is_ravdess_id(clip.clip_id) for clip in listing.clips)
    if protocol := _protocol(listing):
        fusion["protocol"] = protocol
    return [
        make_command("features", settings_of(shared | own)),
        make_command("train-fusion", settings_of(shared | fusion), None if ravdess else OWN_FUSION),
    ]


def _protocol(listing: Listing) -> str | None:
    """The one that stage two would take by itself, or where it would take none, one that leaks; None: `holdout`."""
    try:
        name = fitting_protocol(listing.clips).name
    except ValueError:
        return LEAKING
    return None if name == "holdout" else name
