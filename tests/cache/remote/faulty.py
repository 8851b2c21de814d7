"""A proxy before an S3 server that fails as networks and object stores do, where a test says so."""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUSY, UNAVAILABLE, CUT, LOST = "429", "503", "cut", "lost"
FAULTS = (BUSY, UNAVAILABLE, CUT, LOST)
ADDRESS, SECRET = "s3://lab/features/one", "a-secret-that-nobody-may-read"


def healthy(*_: str) -> str:
    """No request fails."""
    return ""


class FaultyProxy(ThreadingHTTPServer):
    """Hands requests on, and fails with those that `fault` names one for.

    `429`, `503`: the request is not handed on. `cut`: the connection ends in the middle of the body, of a PUT's before
    the server has seen any of it, of an answer's on its way back. `lost`: the request is done, and no answer comes.
    """

    daemon_threads = True

    def __init__(self, server_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = server_port
        self.fault: Callable[[str, str], str] = healthy
        self.seen: list[tuple[str, str, str]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """A client that has gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def _handle(self) -> None:
        fault = self.server.fault(self.command, self.path)
        self.server.seen.append((self.command, self.path, fault))
        size = int(self.headers.get("Content-Length", 0))
        if fault == CUT and self.command == "PUT":
            self.rfile.read(size // 2)
            self._hang_up()
            return
        body = self.rfile.read(size)
        if fault in (BUSY, UNAVAILABLE):
            self._answer(int(fault), {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        status, headers, content = self._handed_on(body)
        if fault == LOST:
            self._hang_up()
        elif fault == CUT:
            self._answer(status, headers, content, sent=len(content) // 2)
            self._hang_up()
        else:
            self._answer(status, headers, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    def _handed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        answer = connection.getresponse()
        content, headers = answer.read(), dict(answer.getheaders())
        connection.close()
        return answer.status, headers, content

    def _answer(self, status: int, headers: dict[str, str], content: bytes, sent: int | None = None) -> None:
        self.send_response_only(status)
        kept = {name.lower(): value for name, value in headers.items()}
        length = kept.pop("content-length", str(len(content))) if self.command == "HEAD" else str(len(content))
        for name, value in kept.items():
            if name not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:sent])
            self.wfile.flush()

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(2)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def now_and_then(seed: int, share: float) -> Callable[[str, str], str]:
    """So large a share of all requests fails."""
    draw = random.Random(seed)
    return lambda *_: draw.choice(FAULTS) if draw.random() < share else ""
