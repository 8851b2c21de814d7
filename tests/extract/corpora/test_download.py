"""`make data` against a local server that drops, ignores ranges, lies about checksums and answers nonsense."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import shutil
import socket
import threading
import zipfile
from collections import defaultdict, deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cache.corpus.clips import Clip, read_corpus
from configs.command.entry import main
from configs.loader import load_config
from configs.schema.corpora import DataConfig
from extract.corpora.download import AUDIO_ARCHIVE, CHUNK_BYTES, is_complete, require_space, run
from tests.tiny.places import ROOT

CONFIG = ROOT / "configs" / "ravdess" / "data.yaml"
RECORD = "/api/records/1188976"


def clip_bytes(stem: str) -> bytes:
    """Contents that no zip can shrink and that differ from clip to clip."""
    return random.Random(stem).randbytes(60_000)


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def video_zip(actor: int) -> bytes:
    stems = [f"{m}-{c}-0{e}-01-01-01-{actor:02d}" for m in ("01", "02") for c in ("01", "02") for e in (1, 3)]
    files = {f"Actor_{actor:02d}/{stem}.mp4": clip_bytes(stem) for stem in stems}
    extra = {f"__MACOSX/Actor_{actor:02d}/._{stems[0]}.mp4": b"x", f"Actor_{actor:02d}/": b"", ".DS_Store": b"x"}
    return zipped({**files, **extra})


def audio_zip() -> bytes:
    stems = [f"03-01-0{e}-01-01-01-{actor:02d}" for actor in (1, 2, 24) for e in (1, 3)]
    return zipped({f"Actor_{stem[-2:]}/{stem}.wav": clip_bytes(stem) for stem in stems})


class Zenodo(ThreadingHTTPServer):
    """A record with archives. `moods[path]` says how the next requests for it are answered; then all is well."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.md5: dict[str, str] = {}
        self.moods: defaultdict[str, deque[str]] = defaultdict(deque)
        self.asked: list[tuple[str, str]] = []
        for actor in (1, 2):
            self.add(f"Video_Speech_Actor_{actor:02d}.zip", video_zip(actor))
        self.add(AUDIO_ARCHIVE, audio_zip())

    def add(self, key: str, content: bytes) -> None:
        self.files[key] = content
        self.md5[key] = hashlib.md5(content).hexdigest()

    def will(self, key: str, *moods: str) -> None:
        self.moods[f"/files/{key}"].extend(moods)

    def ranges(self, key: str) -> list[str]:
        return [asked for path, asked in self.asked if path == f"/files/{key}"]

    def record(self) -> bytes:
        files = [
            {
                "key": key,
                "size": len(content),
                "checksum": f"md5:{self.md5[key]}",
                "links": {"self": f"{self.url}/files/{key}"},
            }
            for key, content in self.files.items()
        ]
        return json.dumps({"id": 1188976, "files": files}).encode()


class Answer(BaseHTTPRequestHandler):
    server: Zenodo

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.asked.append((self.path, asked))
        moods = self.server.moods[self.path]
        mood = moods.popleft() if moods else "well"
        content = self.server.record() if self.path == RECORD else self.server.files[self.path.split("/")[-1]]
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            # As some servers do for a whole answer; sizes and ranges then count other bytes than the record.
            self.reply(200, gzip.compress(content), {"Content-Encoding": "gzip"})
        elif mood.isdigit():
            self.reply(int(mood), b"sorry", {"Retry-After": "0"})
        elif mood == "html":
            self.reply(200, b"<html>please log in</html>", {"Content-Type": "text/html"})
        elif mood.startswith("json "):
            self.reply(200, mood.removeprefix("json ").encode())
        elif asked and mood != "ignore range":
            self.part(content, int(asked.removeprefix("bytes=").removesuffix("-")), mood)
        else:
            self.reply(200, content, half=mood == "drop", length=mood != "no length")

    def part(self, content: bytes, start: int, mood: str) -> None:
        if start >= len(content):
            self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        told = 0 if mood == "wrong range" else start
        headers = {"Content-Range": f"bytes {told}-{len(content) - 1}/{len(content)}"}
        self.reply(206, content[told:], headers, half=mood == "drop")

    def reply(
        self,
        code: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        half: bool = False,
        length: bool = True,
    ) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if half else body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Keep quiet."""


@pytest.fixture
def zenodo() -> Iterator[Zenodo]:
    with Zenodo() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def data(root: Path, url: str, *overrides: str) -> int:
    fixed = [f"root={root}", f"record_url={url}{RECORD}", "backoff_seconds=0", "timeout_seconds=5"]
    return main(DataConfig, run, "test", ["--config", str(CONFIG), *fixed, *overrides])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


FIRST = "Video_Speech_Actor_01.zip"
ONE = "actors=[1]"


def assert_first_actor(root: Path) -> None:
    folder = root / "ravdess" / "video" / "Actor_01"
    stems = ["01-01-01-01-01-01-01", "01-01-03-01-01-01-01"]
    assert sorted(path.name for path in folder.glob("[!.]*")) == [f"{stem}.mp4" for stem in stems]
    for stem in stems:
        assert (folder / f"{stem}.mp4").read_bytes() == clip_bytes(stem)
    assert [clip.clip_id for clip in read_corpus(root / "metadata.csv").clips] == stems


def test_video_of_chosen_actors(zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data(tmp_path, zenodo.url, "actors=[2,1,2]") == 0
    corpus = read_corpus(tmp_path / "metadata.csv")
    assert corpus.clips[1] == Clip(
        "01-01-01-01-01-01-02",
        "ravdess/video/Actor_02/01-01-01-01-01-01-02.mp4",
        "neutral",
        "2",
        "Kids are talking by the door",
        "normal",
        "1",
        "female",
        "train",
    )
    assert len(corpus.clips) == 4
    assert all(corpus.source(clip).read_bytes() == clip_bytes(clip.clip_id) for clip in corpus.clips)
    assert not (tmp_path / "ravdess" / "zips").exists()
    out = capsys.readouterr().out
    size = len(zenodo.files[FIRST])
    assert f"  {FIRST}  {size / 1e6:.1f} MB" in out
    assert f"wrote {tmp_path / 'metadata.csv'}" in out


def test_audio_takes_one_archive_and_unpacks_the_chosen_actors(zenodo: Zenodo, tmp_path: Path) -> None:
    assert data(tmp_path, zenodo.url, "kind=audio", "actors=[24,2]", "keep_zips=true") == 0
    clips = read_corpus(tmp_path / "metadata.csv").clips
    assert {clip.speaker for clip in clips} == {"2", "24"}
    assert sorted(path.name for path in (tmp_path / "ravdess" / "audio").iterdir()) == ["Actor_02", "Actor_24"]
    # The kept archive serves a later choice; only the record is asked for again.
    assert data(tmp_path, zenodo.url, "kind=audio", "actors=[1]", "keep_zips=true") == 0
    assert len(zenodo.ranges(AUDIO_ARCHIVE)) == 1
    assert len(read_corpus(tmp_path / "metadata.csv").clips) == 6


def test_a_second_run_asks_for_nothing(zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data(tmp_path, zenodo.url, ONE) == 0
    metadata = (tmp_path / "metadata.csv").read_bytes()
    zenodo.asked.clear()
    assert data(tmp_path, zenodo.url, ONE) == 0
    assert zenodo.asked == []
    assert "are in" in capsys.readouterr().out
    assert (tmp_path / "metadata.csv").read_bytes() == metadata


@pytest.mark.parametrize("harm", ["delete", "truncate", "mark"])
def test_what_was_lost_is_fetched_again(harm: str, zenodo: Zenodo, tmp_path: Path) -> None:
    assert data(tmp_path, zenodo.url, "actors=[1,2]") == 0
    folder = tmp_path / "ravdess" / "video" / "Actor_01"
    clip = folder / "01-01-01-01-01-01-01.mp4"
    if harm == "delete":
        clip.unlink()
    elif harm == "truncate":
        clip.write_bytes(b"short")
    else:
        (folder / ".complete.json").write_text("{")
    assert not is_complete(folder)
    assert data(tmp_path, zenodo.url, "actors=[1,2]") == 0
    assert clip.read_bytes() == clip_bytes(clip.stem)
    assert len(zenodo.ranges(FIRST)) == 2
    assert len(zenodo.ranges("Video_Speech_Actor_02.zip")) == 1


def test_a_dropped_connection_is_continued(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.will(FIRST, "drop", "drop")
    assert data(tmp_path, zenodo.url, ONE) == 0
    first, second, third = zenodo.ranges(FIRST)
    half = len(zenodo.files[FIRST]) // 2
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in (second, third)]
    assert first == ""
    assert half - CHUNK_BYTES < starts[0] <= half < starts[1]
    assert_first_actor(tmp_path)


def test_too_many_drops_are_told_and_the_next_run_continues(
    zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zenodo.will(FIRST, "drop", "drop")
    assert data(tmp_path, zenodo.url, ONE, "attempts=2") == 2
    error = one_line(capsys)
    assert f"the connection dropped 2 times while fetching {FIRST}" in error
    assert "run the same command again to continue" in error
    part = tmp_path / "ravdess" / "zips" / f"{FIRST}.part"
    kept = part.stat().st_size
    assert zenodo.files[FIRST].startswith(part.read_bytes())
    assert kept > 0
    assert data(tmp_path, zenodo.url, ONE, "attempts=2") == 0
    assert zenodo.ranges(FIRST)[-1] == f"bytes={kept}-"
    assert f"({kept / 1e6:.1f} MB already here)" in capsys.readouterr().out
    assert_first_actor(tmp_path)


@pytest.mark.parametrize("mood", ["ignore range", "wrong range", "416", "no length"])
def test_a_server_that_does_not_resume_sends_it_all_again(mood: str, zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.will(FIRST, "drop", mood)
    assert data(tmp_path, zenodo.url, ONE) == 0
    assert_first_actor(tmp_path)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 10**6])
def test_a_strange_part_is_not_trusted(
    content: bytes, zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "ravdess" / "zips" / f"{FIRST}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    if content == b"short":
        # It cannot be told from a good beginning before the end; the checksum tells.
        assert data(tmp_path, zenodo.url, ONE) == 2
        assert "it was deleted" in one_line(capsys)
    assert data(tmp_path, zenodo.url, ONE) == 0
    assert_first_actor(tmp_path)


def test_a_finished_part_is_checked_and_used_without_a_request(zenodo: Zenodo, tmp_path: Path) -> None:
    part = tmp_path / "ravdess" / "zips" / f"{FIRST}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(zenodo.files[FIRST])
    assert data(tmp_path, zenodo.url, ONE) == 0
    assert zenodo.ranges(FIRST) == []
    assert_first_actor(tmp_path)


def test_a_wrong_checksum_deletes_the_archive(
    zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right, zenodo.md5[FIRST] = zenodo.md5[FIRST], "0" * 32
    assert data(tmp_path, zenodo.url, ONE) == 2
    assert f"{FIRST} arrived with md5 {right} but the record says {'0' * 32}" in one_line(capsys)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    zenodo.md5[FIRST] = right
    assert data(tmp_path, zenodo.url, ONE) == 0
    assert_first_actor(tmp_path)


def test_a_busy_server_is_asked_again(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.moods[RECORD].append("429")
    zenodo.will(FIRST, "503", "500", "drop", "502")
    assert data(tmp_path, zenodo.url, ONE) == 0
    assert_first_actor(tmp_path)


@pytest.mark.parametrize(
    ("moods", "message"),
    [
        (["404"], "answered 404 Not Found; check record_url"),
        (["403"], "answered 403 Forbidden"),
        (["500"] * 9, "answered 500 Internal Server Error: the server is busy or has trouble"),
        (["html"], "is there a login page or a proxy in between?"),
        (["drop"] * 9, "the connection dropped 6 times"),
    ],
)
@pytest.mark.parametrize("place", ["record", "archive"])
def test_answers_that_are_not_the_file_end_in_one_line(
    moods: list[str],
    message: str,
    place: str,
    zenodo: Zenodo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    zenodo.moods[RECORD if place == "record" else f"/files/{FIRST}"].extend(moods)
    if place == "record":
        # The record is read whole: what it cannot be is told apart less finely.
        message = {"html": "not with a Zenodo record", "drop": "cannot reach"}.get(moods[0], message)
    assert data(tmp_path, zenodo.url, ONE) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "metadata.csv").exists()


@pytest.mark.parametrize(
    "record",
    [
        "[]",
        "{}",
        "3",
        '{"files": 3}',
        '{"files": [{}]}',
        '{"files": {"entries": 1}}',
        '{"files": [{"key": "a", "size": "b", "checksum": "md5:1", "links": {"self": "c"}}]}',
        '{"files": [{"key": "a", "size": 1, "checksum": "sha:1", "links": {"self": "c"}}]}',
    ],
)
def test_a_record_of_another_shape(
    record: str, zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zenodo.moods[RECORD].append(f"json {record}")
    assert data(tmp_path, zenodo.url, ONE) == 2
    assert "is not a Zenodo record with a list of files" in one_line(capsys)


def test_an_archive_that_the_record_does_not_list(
    zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert data(tmp_path, zenodo.url, "actors=[1,3]") == 2
    assert "does not list Video_Speech_Actor_03.zip; it lists Audio_Speech" in one_line(capsys)


def test_offline_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: nobody answers
        assert data(tmp_path, f"http://127.0.0.1:{closed.getsockname()[1]}", ONE) == 2
    error = one_line(capsys)
    assert "Connection refused; are you online?" in error
    assert "HTTPConnection" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["not a url", "file:///etc/passwd", "http://"])
def test_a_record_url_that_is_none(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data(tmp_path, url, ONE) == 2
    assert "cannot reach" in one_line(capsys)


def test_a_full_disk_is_told_before_the_first_byte(
    zenodo: Zenodo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    size = len(zenodo.files[FIRST])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=size))
    assert data(tmp_path, zenodo.url, ONE) == 2
    error = one_line(capsys)
    assert f"not enough disk space in {tmp_path} to download and unpack this" in error
    assert f"{size / 1e6:.1f} MB free" in error
    assert zenodo.ranges(FIRST) == []
    # The archive and what comes out of it: 1.6 times the archive is enough for video.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=int(1.6 * size) + 1))
    assert data(tmp_path, zenodo.url, ONE) == 0


def test_space_is_asked_of_the_disk_that_will_hold_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    usage = shutil.disk_usage(tmp_path)

    def ask(path: Path) -> object:
        asked.append(path)
        return usage

    monkeypatch.setattr(shutil, "disk_usage", ask)
    require_space(tmp_path / "not" / "yet" / "there", 1, "test")
    monkeypatch.chdir(tmp_path)
    require_space(Path("relative") / "folder", 1, "test")
    assert asked == [tmp_path, tmp_path]


@pytest.mark.parametrize(
    "name", ["../01-01-01-01-01-01-01.mp4", "/01-01-01-01-01-01-01.mp4", "a/../../x.txt", "..\\x.mp4"]
)
def test_an_archive_that_would_leave_the_folder_is_refused_whole(
    name: str, zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    zenodo.add(FIRST, zipped({"Actor_01/01-01-03-01-01-01-01.mp4": b"fine", name: b"evil"}))
    assert data(root, zenodo.url, ONE) == 2
    assert "would leave the folder; nothing was unpacked" in one_line(capsys)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [FIRST]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"this is no zip", "cannot be unpacked"),
        (zipped({"Actor_02/01-01-03-01-01-01-02.mp4": b"x"}), "holds no video speech clips of actor 1"),
        (zipped({}), "holds no video speech clips of actor 1"),
    ],
)
def test_an_archive_without_the_clips(
    content: bytes, message: str, zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zenodo.add(FIRST, content)
    assert data(tmp_path, zenodo.url, ONE) == 2
    assert message in one_line(capsys)


def test_a_damaged_member_does_not_become_a_clip(
    zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "Actor_01/01-01-03-01-01-01-01.mp4"
    damaged = bytearray(zipped({name: clip_bytes("x")}))
    damaged[len(name) + 3000] ^= 0xFF
    zenodo.add(FIRST, bytes(damaged))
    assert data(tmp_path, zenodo.url, ONE) == 2
    assert "cannot be unpacked" in one_line(capsys)
    assert list((tmp_path / "ravdess" / "video" / "Actor_01").iterdir()) == []


def test_one_broken_archive_does_not_cost_the_others(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.will("Video_Speech_Actor_02.zip", "404")
    assert data(tmp_path, zenodo.url, "actors=[1,2]") == 2
    assert is_complete(tmp_path / "ravdess" / "video" / "Actor_01")
    assert data(tmp_path, zenodo.url, "actors=[1,2]") == 0
    assert len(zenodo.ranges(FIRST)) == 1


def test_an_interruption_says_how_to_continue(
    zenodo: Zenodo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("extract.corpora.download._verify", interrupt)
    assert data(tmp_path, zenodo.url, ONE) == 130
    assert "run the same command again to continue" in capsys.readouterr().err
    monkeypatch.undo()
    assert data(tmp_path, zenodo.url, ONE) == 0
    assert len(zenodo.ranges(FIRST)) == 1
    assert_first_actor(tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("actors=[0]", "actors.0: "),
        ("actors=[25]", "actors.0: "),
        ("actors=[]", "actors: "),
        ("actors=1", "actors: "),
        ("kind=both", "kind: "),
        ("attempts=0", "attempts: "),
        ("actor=[1]", "did you mean actors?"),
    ],
)
def test_wrong_choices(override: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data(tmp_path, "http://127.0.0.1:1", override) == 2
    assert message in one_line(capsys)


def test_the_shipped_file_spells_out_the_defaults() -> None:
    assert load_config(DataConfig, CONFIG) == DataConfig()
