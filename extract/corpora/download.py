"""`make data`: RAVDESS from its Zenodo record, resumable and checksummed, then metadata.csv.

The clips come to lie in `<root>/ravdess/<kind>/Actor_XX/`. An actor's folder is done when its
`.complete.json` says so and every file it lists is there in full: what is done is not fetched again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import time
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util.retry import Retry

from cache.corpus.clips import write_metadata
from cache.corpus.ravdess import ACTORS, RavdessName, parse_ravdess_name
from cache.files.atomic import fsync_path, revealed, write_atomic
from configs.schema.corpora import DataConfig
from extract.corpora.ravdess import list_clips

AUDIO_ARCHIVE = "Audio_Speech_Actors_01-24.zip"
MODALITY = {"video": "audio-video", "audio": "audio-only"}
# Bytes on disk per byte of the archive: wav shrinks in a zip, mp4 does not, and half of each video
# archive is the same pictures without sound, which stay packed. Checked exactly before unpacking.
UNPACKED = {"video": 0.6, "audio": 3.0}
# What of a chunk has arrived when the connection drops is lost, so chunks are small.
CHUNK_BYTES = 1 << 16
LONGEST_PAUSE_SECONDS = 60.0
BUSY = (429, 500, 502, 503, 504)
MARK = ".complete.json"


@dataclass(frozen=True)
class Archive:
    """A file of the record; `size` in bytes."""

    key: str
    size: int
    md5: str
    url: str


@dataclass(frozen=True)
class Client:
    """How the server is asked: the session, the time limit and the patience."""

    session: requests.Session
    timeout_seconds: float
    attempts: int
    backoff_seconds: float

    def get(self, url: str, headers: dict[str, str] | None = None) -> requests.Response:
        """Start a GET; the body is not read yet."""
        limits = (self.timeout_seconds, self.timeout_seconds)
        # Identity: a compressed transfer would count other bytes than the record and the range do.
        asked = {"Accept-Encoding": "identity", **(headers or {})}
        return self.session.get(url, headers=asked, stream=True, timeout=limits)

    def pause(self, attempt: int) -> None:
        """Wait before the next attempt, twice as long each time."""
        time.sleep(min(self.backoff_seconds * 2**attempt, LONGEST_PAUSE_SECONDS))


def open_client(config: DataConfig) -> Client:
    """A session that repeats a request which a busy server has turned away, and respects Retry-After."""
    # A refused connection is not repeated here: `fetch` does so once a download has begun, and
    # offline is to be said at once.
    retry = Retry(
        connect=0,
        read=0,
        status=min(4, config.attempts - 1),
        status_forcelist=BUSY,
        backoff_factor=config.backoff_seconds,
        retry_after_max=int(LONGEST_PAUSE_SECONDS),
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return Client(session, config.timeout_seconds, config.attempts, config.backoff_seconds)


def read_record(client: Client, url: str) -> dict[str, Archive]:
    """The record's files by name.

    Raises:
        ValueError: one line: offline, refused, or not a Zenodo record.
    """
    try:
        response = client.get(url)
        _refuse_status(response, url)
        tree: Any = json.loads(response.content)
    except requests.RequestException as error:
        raise ValueError(f"cannot reach {url}: {_cause(error)}; are you online? run the same command again") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{url} answered, but not with a Zenodo record (a login page or a proxy?)") from error
    try:
        archives = [_archive(entry) for entry in tree["files"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{url} is not a Zenodo record with a list of files (key, size, md5, link)") from error
    return {archive.key: archive for archive in archives}


def fetch(client: Client, archive: Archive, target: Path, bar: tqdm[Any]) -> None:
    """Download one archive to `target`; an interrupted one lies beside it as `.part` and is continued.

    Raises:
        ValueError: one line: too many drops (run again to continue), wrong checksum (the part is deleted).
    """
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    cause = ""
    for attempt in range(client.attempts):
        if part.stat().st_size == archive.size:
            break
        if attempt:
            client.pause(attempt - 1)
        try:
            _continue(client, archive, part, bar)
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            cause = f" ({_cause(error)})"
        except requests.RequestException as error:
            raise ValueError(f"cannot fetch {archive.url}: {_cause(error)}") from error
    got = part.stat().st_size
    if got < archive.size:
        raise ValueError(
            f"the connection dropped {client.attempts} times while fetching {archive.key}{cause};"
            f" {_bytes(got)} of {_bytes(archive.size)} are kept: run the same command again to continue"
        )
    _verify(archive, part)
    fsync_path(part)
    part.replace(target)


def unpack(archive: Path, folder: Path, kind: str, actors: Collection[int]) -> dict[int, dict[str, int]]:
    """Unpack the chosen clips to `folder/Actor_XX/`, each file complete or not at all.

    Returns:
        For every actor, the names and sizes in bytes of the files.

    Raises:
        ValueError: one line: not a zip, an entry that leaves the folder, too little space, no such clips.
    """
    unpacked: defaultdict[int, dict[str, int]] = defaultdict(dict)
    try:
        with zipfile.ZipFile(archive) as zipped:
            chosen = _chosen(zipped, archive, kind, actors)
            require_space(folder, sum(info.file_size for info, _ in chosen), f"unpack {archive.name}")
            for info, name in chosen:
                file = actor_folder(folder, int(name.actor)) / PurePosixPath(info.filename).name
                with zipped.open(info) as packed, revealed(file) as part, part.open("wb") as stream:
                    shutil.copyfileobj(packed, stream)
                unpacked[int(name.actor)][file.name] = info.file_size
    # zipfile answers a compression it does not know, or a password, with the last two.
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{archive} cannot be unpacked ({error}); delete it and run the same command again") from error
    missing = [actor for actor in actors if actor not in unpacked]
    if missing:
        raise ValueError(f"{archive.name} holds no {kind} speech clips of actor {', '.join(map(str, missing))}")
    return dict(unpacked)


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse to begin what the disk cannot hold; `needed` in bytes."""
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ValueError(
            f"not enough disk space in {folder} to {purpose}: {_bytes(needed)} needed, {_bytes(free)} free;"
            " choose fewer actors or another root"
        )


def actor_folder(folder: Path, actor: int) -> Path:
    """Where the clips of one actor lie."""
    return folder / f"Actor_{actor:02d}"


def is_complete(folder: Path) -> bool:
    """Whether an actor's folder says that it is done and every file it lists is there in full."""
    try:
        files = json.loads((folder / MARK).read_text(encoding="utf-8"))["files"]
        return bool(files) and all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def run(config: DataConfig) -> int:
    """Fetch what is missing, then write the metadata of everything of that kind that is there."""
    folder = Path(config.root) / "ravdess" / config.kind
    actors = sorted(set(config.actors))
    missing = [actor for actor in actors if not is_complete(actor_folder(folder, actor))]
    try:
        if missing:
            _download(config, folder, missing)
        else:
            print(f"the {config.kind} clips of actors {', '.join(map(str, actors))} are in {folder} already")
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to continue", file=sys.stderr)
        return 130
    listing = list_clips(folder, Path(config.root), kind=config.kind)
    metadata = Path(config.root) / "metadata.csv"
    write_metadata(listing.clips, metadata)
    print(listing.summary())
    print("RAVDESS: Livingstone & Russo 2018, CC BY-NC-SA 4.0, https://doi.org/10.1371/journal.pone.0196391")
    print(f"wrote {metadata}")
    return 0


def _download(config: DataConfig, folder: Path, actors: Sequence[int]) -> None:
    client = open_client(config)
    zips = Path(config.root) / "ravdess" / "zips"
    archives = _pick(read_record(client, config.record_url), config, actors)
    here = {archive.key: _arrived(zips / archive.key, archive) for archive, _ in archives}
    _announce(config, [archive for archive, _ in archives], here, actors)
    total = sum(archive.size for archive, _ in archives)
    with tqdm(total=total, initial=sum(here.values()), desc="RAVDESS", unit="B", unit_scale=True, disable=None) as bar:
        for archive, of_actors in archives:
            target = zips / archive.key
            if not _is_here(target, archive):
                fetch(client, archive, target, bar)
            for actor, files in unpack(target, folder, config.kind, of_actors).items():
                mark = {"archive": archive.key, "md5": archive.md5, "files": files}
                write_atomic(actor_folder(folder, actor) / MARK, json.dumps(mark, indent=1))
            if not config.keep_zips:
                target.unlink()
            tqdm.write(f"{archive.key}: fetched, checked and unpacked")
    if not config.keep_zips and not any(zips.iterdir()):
        zips.rmdir()


def _pick(
    record: dict[str, Archive], config: DataConfig, actors: Sequence[int]
) -> list[tuple[Archive, tuple[int, ...]]]:
    """The archives to fetch, each with the actors to take from it."""
    if config.kind == "audio":
        wanted = {AUDIO_ARCHIVE: tuple(actors)}
    else:
        wanted = {f"Video_Speech_Actor_{actor:02d}.zip": (actor,) for actor in actors}
    absent = [key for key in wanted if key not in record]
    if absent:
        listed = ", ".join(sorted(record)) or "no files"
        raise ValueError(f"{config.record_url} does not list {', '.join(absent)}; it lists {listed}")
    return [(record[key], of_actors) for key, of_actors in wanted.items()]


def _announce(config: DataConfig, archives: Sequence[Archive], here: dict[str, int], actors: Sequence[int]) -> None:
    """Say the sizes and check the disk, before the first byte."""
    to_fetch = [archive.size - here[archive.key] for archive in archives]
    share = len(actors) / len(ACTORS) if config.kind == "audio" else 1.0
    unpacked = int(sum(archive.size for archive in archives) * UNPACKED[config.kind] * share)
    # Archives that are not kept are there one at a time.
    zipped = sum(to_fetch) if config.keep_zips else max(to_fetch)
    needed = zipped + unpacked
    print(
        f"RAVDESS {config.kind}, actors {', '.join(map(str, actors))}: {_bytes(sum(to_fetch))} to download"
        f" ({_bytes(sum(here.values()))} already here), about {_bytes(unpacked)} unpacked"
    )
    for archive, size in zip(archives, to_fetch, strict=True):
        rest = "" if size == archive.size else f", {_bytes(size)} to go"
        print(f"  {archive.key}  {_bytes(archive.size)}{rest}")
    require_space(Path(config.root), needed, "download and unpack this")


def _continue(client: Client, archive: Archive, part: Path, bar: tqdm[Any]) -> None:
    """One request: append to the part what is missing, or start over where the server does not resume."""
    start = part.stat().st_size
    with client.get(archive.url, {"Range": f"bytes={start}-"} if start else None) as response:
        if response.status_code == 416:
            _start_over(part, start, bar)
            return
        _refuse_status(response, archive.url)
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if start and not (response.status_code == 206 and resumed):
            start = _start_over(part, start, bar)
        _refuse_other_size(response, archive, start)
        with part.open("ab") as stream:
            for chunk in response.iter_content(CHUNK_BYTES):
                stream.write(chunk)
                bar.update(len(chunk))
                if stream.tell() > archive.size:
                    break  # not the file; the checksum will say so


def _start_over(part: Path, start: int, bar: tqdm[Any]) -> int:
    part.write_bytes(b"")
    bar.update(-start)
    return 0


def _refuse_status(response: requests.Response, url: str) -> None:
    code = response.status_code
    if code in BUSY:
        raise ValueError(
            f"{url} answered {code} {response.reason}: the server is busy or has trouble;"
            " run the same command again later, what has arrived is kept"
        )
    if not response.ok:
        raise ValueError(f"{url} answered {code} {response.reason}; check record_url, or whether the record has moved")


def _refuse_other_size(response: requests.Response, archive: Archive, start: int) -> None:
    """A login page or a proxy's error answers 200 too; stop before it is taken for the archive."""
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and start + int(length) != archive.size:
        kind = response.headers.get("Content-Type", "no type given")
        raise ValueError(
            f"{archive.url} answered with {_bytes(start + int(length))} ({kind}) where the record lists"
            f" {_bytes(archive.size)}: not the file; is there a login page or a proxy in between?"
        )


def _verify(archive: Archive, part: Path) -> None:
    with part.open("rb") as stream:
        md5 = hashlib.file_digest(stream, "md5").hexdigest()
    if md5 != archive.md5:
        part.unlink()
        raise ValueError(
            f"{archive.key} arrived with md5 {md5} but the record says {archive.md5};"
            " it was deleted, run the same command again to fetch it anew"
        )


def _archive(entry: dict[str, Any]) -> Archive:
    algorithm, _, digest = entry["checksum"].partition(":")
    if algorithm != "md5":
        raise ValueError(f"unknown checksum {algorithm}")
    return Archive(str(entry["key"]), int(entry["size"]), digest, str(entry["links"]["self"]))


def _arrived(target: Path, archive: Archive) -> int:
    """Bytes of an archive that an earlier run has left; a whole one was checked before it got its name."""
    if _is_here(target, archive):
        return archive.size
    part = target.with_name(f"{target.name}.part")
    size = part.stat().st_size if part.is_file() else 0
    return size if size <= archive.size else 0


def _is_here(target: Path, archive: Archive) -> bool:
    return target.is_file() and target.stat().st_size == archive.size


def _chosen(
    zipped: zipfile.ZipFile, archive: Path, kind: str, actors: Collection[int]
) -> list[tuple[zipfile.ZipInfo, RavdessName]]:
    entries = [info for info in zipped.infolist() if not info.is_dir()]
    _refuse_escape(archive, entries)
    named = [(info, name) for info in entries if (name := _ravdess(info.filename)) is not None]
    return [
        (info, name)
        for info, name in named
        if (name.modality, name.channel) == (MODALITY[kind], "speech") and int(name.actor) in actors
    ]


def _refuse_escape(archive: Path, entries: Iterable[zipfile.ZipInfo]) -> None:
    for info in entries:
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{archive} holds {info.filename!r}, which would leave the folder; nothing was unpacked")


def _ravdess(file: str) -> RavdessName | None:
    try:
        return parse_ravdess_name(PurePosixPath(file))
    except ValueError:
        return None  # e.g. macOS's ._ files; an archive whose checksum is right needs no complaint


def _cause(error: Exception) -> str:
    """The innermost reason: requests wraps urllib3, which wraps the system's error."""
    while error.args and isinstance(inner := getattr(error.args[-1], "reason", error.args[-1]), Exception):
        error = inner
    text = re.sub(r"^HTTPS?Connection(Pool)?\(.*?\): ", "", " ".join(str(error).split()))
    return text or type(error).__name__


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
