"""What goes over the loopback Hub's wires: requests as they are logged, replies, and the ways a request can fail.

hub.fail("POST", "/commit/", times=2, status=503)
hub.fail("PUT", "/_lfs/", after=1, drop=True)
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

ID = r"(?P<repo>[^/]+/[^/]+)"
REV = r"(?P<rev>[^/]+)"
Route = tuple[
    str, str, Callable[..., "Reply"]
]  # methods, pattern of the path, and what answers: (hub, request, **groups)


@dataclass
class Request:
    """A logged request.

    `state` maps repositories to (private, gated) when it had been answered, `trees` to the files of their main branch.
    """

    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    time: float
    token: str | None = field(repr=False, default=None)
    range: str | None = None
    status: int = 0
    state: dict[str, tuple[bool, str | bool]] = field(default_factory=dict)
    trees: dict[str, dict[str, Any]] = field(repr=False, default_factory=dict)

    def json(self) -> Any:
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


@dataclass
class Fault:
    """How a request fails: with a status, dropped before or after it was handled, its stored blob corrupted, or:

    `cut` sends so many bytes of the body and hangs up, `whole` ignores the range asked for, `more` appends so many
    bytes, `endless` never stops sending, `lies` are headers put over the true ones, `trickle` waits so many seconds
    after every byte, `stall` before the first.
    """

    status: int | None = None
    body: bytes = b'{"error": "injected"}'
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    lose_reply: bool = False
    corrupt: bool = False
    cut: int | None = None
    whole: bool = False
    more: int = 0
    endless: bool = False
    lies: dict[str, str] = field(default_factory=dict)
    trickle: float = 0.0
    stall: float = 0.0

    def shape(self, reply: Reply) -> Reply:
        """The reply as this fault sends it."""
        reply.headers |= self.lies
        reply.body += bytes(self.more)
        reply.cut, reply.endless, reply.trickle = self.cut, self.endless, self.trickle
        reply.stall = self.stall
        return reply


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    endless: bool = False
    trickle: float = 0.0
    stall: float = 0.0

    def pieces(self) -> Iterator[bytes]:
        """The body as it is sent."""
        yield self.body if self.cut is None else self.body[: self.cut]
        while self.endless:
            yield bytes(1 << 16)


class Refused(Exception):
    """An error reply."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: Any) -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message, "Content-Type": "application/json"}
        if code:
            headers["X-Error-Code"] = code
        self.reply = Reply(status, json.dumps({"error": message, **body}).encode(), headers)


class Content(Protocol):
    """A file's bytes, wherever they are kept: sliced when a part is wanted."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


def ranged(request: Request, data: Content, headers: dict[str, str]) -> Reply:
    """A file, or the range of it that the request asks for."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.range or "")
    if not match or match.group(0) == "bytes=-":
        return Reply(200, data[:], headers)
    first, last = match.groups()
    start = int(first) if first else max(0, len(data) - int(last))
    end = min(int(last), len(data) - 1) if first and last else len(data) - 1
    if start >= len(data):
        return Reply(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
    return Reply(206, data[start : end + 1], headers | {"Content-Range": f"bytes {start}-{end}/{len(data)}"})


def found_json(value: Any) -> Reply:
    return Reply(body=json.dumps(value).encode(), headers={"Content-Type": "application/json"})


class Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle is what some tests are about."""


Patience = Callable[[str, str], int | None]  # method and path to the bytes of a body after which the line is cut


def handler(answer: Callable[[Request], Reply | None], patience: Patience) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 64 * 1024  # one packet for head and body; two would wait for each other
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            url = urlsplit(self.path)
            if (limit := patience(self.command, url.path)) is not None:
                self.rfile.read(min(limit, int(self.headers.get("Content-Length", 0))))
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            scheme, _, token = self.headers.get("Authorization", "").partition(" ")
            request = Request(
                method=self.command,
                path=url.path,
                query=parse_qs(url.query),
                body=self._body(),
                time=time.time(),
                token=token if scheme.lower() == "bearer" else None,
                range=self.headers.get("Range"),
            )
            reply = answer(request)
            if reply is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            time.sleep(reply.stall)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.endless:
                self.close_connection = True
            elif "Content-Length" not in reply.headers:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if self.command != "HEAD":
                self._send(reply)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

        def _send(self, reply: Reply) -> None:
            for piece in reply.pieces():
                for part in [piece[n : n + 1] for n in range(len(piece))] if reply.trickle else [piece]:
                    self.wfile.write(part)
                    if reply.trickle:
                        self.wfile.flush()
                        time.sleep(reply.trickle)
            if reply.cut is not None:
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
            """Keep quiet; the hub has its own log."""

    return Handler
