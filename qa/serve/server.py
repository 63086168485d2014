"""The server: for this machine alone, and deaf to what a page of somebody else could make a browser send."""

import base64
import errno
import hashlib
import io
import json
import select
import socket
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from minitransformer.pages.page import STYLE
from minitransformer.system.errors import DataError, RunError, UserError
from qa.serve.reader import MOST_TOKENS, Reader, TooLongError

ADDRESS, PORT, LAST_PORT = "127.0.0.1", 8765, 65_535
NAMES = (ADDRESS, "localhost")  # by which a browser on this machine calls it
LARGEST = 2_000_000  # bytes of a request
SENDING = 30  # seconds that a client may take to send a request
PATIENCE = 60  # seconds after which a request is given up
MOST_CONNECTIONS = 512  # at once, a thread each

PAGE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8").replace("/* STYLE */", STYLE)
SCRIPT = PAGE.partition("<script>")[2].rpartition("</script>")[0]
POLICY = (  # the page runs its own script and no other, asks its own server and no other, and stands in no frame
    f"default-src 'none'; script-src 'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'; "
    "style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

# What can be asked: the fields of a request, by its path. Each path is a method of Reader.
FIELDS = {
    "/answer": {"passage": str, "question": str},
    "/window": {"passage": str, "question": str, "window": int},
    "/attention": {"passage": str, "question": str, "window": int, "layer": int, "head": int},
}


class Server(ThreadingHTTPServer):
    """Threads, since browsers open connections that they do not use yet; they take turns at the model."""

    daemon_threads = True  # a client that is slow to send must not hold up the end
    request_queue_size = 128  # connections that the system keeps until they are accepted; with 5 many are reset

    def __init__(self, reader: Reader, port: int) -> None:
        """port 0: any that is free. Raises RunError where the port cannot be had."""
        self.reader = reader
        self.free = threading.Semaphore(MOST_CONNECTIONS)
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise RunError(f"port {port} is in use; choose another: --port {port % LAST_PORT + 1}") from error
            raise RunError(f"port {port}: {error.strerror}; choose another --port") from error

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            request.setblocking(False)
            request.send(b"HTTP/1.0 503 Too many connections\r\nRetry-After: 1\r\n\r\n")
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):  # a browser that has gone is no error
            super().handle_error(request, client_address)


class _RefusedError(Exception):
    """A request that gets no answer, and why."""

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class _Arriving(io.RawIOBase):
    """What a client sends, all of it within SENDING seconds: a byte now and then does not hold a thread for ever."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.deadline = connection, time.monotonic() + SENDING

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.connection.settimeout(max(self.deadline - time.monotonic(), 0.001))
        return self.connection.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    """GET gives the page at /, and /health; POST to /answer, /window and /attention takes and gives JSON."""

    server: Server  # pyrefly: ignore[bad-override-mutable-attribute] - no other makes a Handler
    timeout = SENDING  # of a write too
    default_request_version = "HTTP/1.0"  # what cannot be read is answered with headers, the policy among them

    def setup(self) -> None:
        super().setup()
        self.began = time.monotonic()
        self.rfile = io.BufferedReader(_Arriving(self.connection))

    def do_GET(self) -> None:
        try:
            self.check_origin()
            if self.path == "/":
                self.reply("text/html", PAGE)
            elif self.path == "/health":
                waiting = len(self.server.reader.turns)
                self.reply_json({"waiting": waiting, "most_tokens": MOST_TOKENS, "patience": PATIENCE})
            else:
                raise _RefusedError(HTTPStatus.NOT_FOUND, "there are only / and /health")
        except _RefusedError as refused:
            self.reply_json({"error": str(refused)}, refused.status)

    def do_POST(self) -> None:
        try:
            self.check_origin()
            if self.path not in FIELDS:
                raise _RefusedError(HTTPStatus.NOT_FOUND, f"there are only {', '.join(FIELDS)}")
            fields = read_fields(self.body(), FIELDS[self.path])
            self.reply_json(getattr(self.server.reader, self.path[1:])(self.check_wanted, **fields))
        except _RefusedError as refused:
            self.reply_json({"error": str(refused)}, refused.status)
        except TooLongError as error:
            self.reply_json({"error": str(error)}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        except UserError as error:
            self.reply_json({"error": str(error)}, HTTPStatus.BAD_REQUEST)

    def check_wanted(self) -> None:
        """Raises where there is no answer to be given any more: the client has gone, or it has taken too long."""
        if select.select([self.connection], [], [], 0)[0] and not self.connection.recv(1, socket.MSG_PEEK):
            raise ConnectionAbortedError
        if time.monotonic() - self.began > PATIENCE:
            raise _RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"no answer within {PATIENCE} seconds, {len(self.server.reader.turns) - 1} others wait: ask again "
                "later, or shorten the passage",
            )

    def check_origin(self) -> None:
        """Refuse what comes by another name, or from another page.

        A hostile page may have its own name point to 127.0.0.1 (DNS rebinding): then it is in `Host`, which it cannot
        change. Or it may send a request to our name: then it is in `Origin`.
        """
        host = self.headers.get("Host", "")
        if host.removesuffix(f":{self.server.server_port}") not in NAMES:
            raise _RefusedError(HTTPStatus.FORBIDDEN, f"this server is called {' or '.join(NAMES)}, and nothing else")
        if self.headers.get("Origin", f"http://{host}") != f"http://{host}":
            raise _RefusedError(HTTPStatus.FORBIDDEN, "only the page of this server may ask it")

    def body(self) -> bytes:
        if self.headers.get_content_type() != "application/json":  # a form of another page cannot send this one
            raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length")
        if len(length) > len(str(LARGEST)) or int(length) > LARGEST:
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {LARGEST:,} bytes: shorten the passage")
        return self.rfile.read(int(length))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server refuses itself, a method or a request line, is refused as all else is."""
        self.close_connection = True
        self.reply_json({"error": message or HTTPStatus(code).phrase}, HTTPStatus(code))

    def reply_json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.reply("application/json", json.dumps(value), status)

    def reply(self, kind: str, text: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(data))),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
            *([("Retry-After", "1")] if status == HTTPStatus.SERVICE_UNAVAILABLE else []),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not told: what is asked is nobody's business, and a path may command a terminal."""


def read_fields(data: bytes, fields: dict[str, type]) -> dict[str, Any]:
    """The values of exactly these fields, from a JSON object. Raises DataError."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        raise DataError("the request is not JSON in UTF-8") from None
    if not isinstance(values, dict) or set(values) != set(fields):
        raise DataError(f"the request is no object of {', '.join(fields)}")
    for name, kind in fields.items():
        if type(values[name]) is not kind:
            raise DataError(f"{name} is no {'text' if kind is str else 'whole number'}")
    return values
