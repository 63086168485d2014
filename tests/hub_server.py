"""A server on this machine that speaks the hub's protocol, as far as hf_hub_download uses it, and can be made to fail.

Large files come as from the hub: its own address answers with a redirection that tells their size and sha256, and
another host has the bytes. `/plain/FILE` is an ordinary web server, for the data sets.
"""

import contextlib
import hashlib
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

import pytest
from huggingface_hub import constants

LARGE = (".bin", ".safetensors")  # as if in Git LFS
CUT = 4096  # bytes that come before a connection is cut
CODES = {401: "", 403: "GatedRepo", 404: "EntryNotFound", 416: "", 500: ""}  # the hub's X-Error-Code of a status


class Request(NamedTuple):
    method: str
    path: str
    range: str | None
    token: str | None


class Revision(NamedTuple):
    commit: str
    folder: Path


class HubServer(ThreadingHTTPServer):
    """Serves from its making until `close`.

    plain: the folder behind /plain/
    statuses: file name -> the status with which every request for it is refused
    faults: file name -> what goes wrong with its bytes (Handler.send_file), and how many times yet
    """

    def __init__(self, plain: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.plain = plain
        self.revisions: dict[tuple[str, str], Revision] = {}
        self.statuses: dict[str, int] = {}
        self.faults: dict[str, tuple[str, float]] = {}
        self.requests: list[Request] = []
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def add(self, repository: str, folder: Path, revision: str = "main", commit: str = "") -> None:
        """Serve `folder` as a revision: a commit, or a branch that is at `commit`."""
        self.revisions[repository, revision] = Revision(commit or revision, folder)

    def fail(self, file: str, fault: str, times: float = math.inf) -> None:
        self.faults[file] = (fault, times)

    def heal(self) -> None:
        self.faults.clear()
        self.statuses.clear()

    def next_fault(self, file: str) -> str:
        fault, times = self.faults.get(file, ("", 0))
        self.faults[file] = (fault, times - 1)
        return fault if times > 0 else ""

    def ranges(self, file: str) -> list[str | None]:
        """The Range of every request for the bytes of `file`, in their order."""
        places = [place for place in self.requests if place.method == "GET" and place.path.endswith("/" + file)]
        return [place.range for place in places if "/resolve/" not in place.path or not file.endswith(LARGE)]

    def handle_error(self, *given: object) -> None:
        """A client that has gone away is no error."""

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        asked = Request(self.command, path, self.headers.get("Range"), self.headers.get("Authorization"))
        self.server.requests.append(asked)
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[-1] in self.server.statuses:
            status = self.server.statuses[parts[-1]]
            self.refuse(status, CODES[status])
        elif parts[0] == "plain":
            self.send_file(self.server.plain / parts[1])
        elif parts[0] == "cdn":
            self.send_file(self.server.revisions[f"{parts[1]}/{parts[2]}", parts[3]].folder / parts[4])
        elif parts[:2] == ["api", "models"]:
            self.tell("/".join(parts[2:4]), parts[5] if parts[4:5] == ["revision"] else "main")
        elif parts[2:3] == ["resolve"]:
            self.resolve(f"{parts[0]}/{parts[1]}", parts[3], parts[4])
        else:
            self.refuse(404, "RepoNotFound")

    do_HEAD = do_GET

    def tell(self, repository: str, name: str) -> None:
        """/api/models/OWNER/NAME[/revision/REVISION]: the commit, and each file with its size and, if large, sha256."""
        known = [revision for owner, revision in self.server.revisions if owner == repository]
        if name not in known:
            self.refuse(404, "RevisionNotFound" if known else "RepoNotFound")
            return
        revision = self.server.revisions[repository, name]
        siblings = []
        for path in sorted(revision.folder.iterdir()):
            data = path.read_bytes()
            sibling = {"rfilename": path.name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            if path.suffix in LARGE:
                sibling["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append(sibling)
        told = {"id": repository, "modelId": repository, "sha": revision.commit, "private": False, "tags": []}
        told |= {"siblings": siblings, "cardData": {"license": "cc-by-4.0"}}
        self.send(200, {"Content-Type": "application/json"}, json.dumps(told).encode())

    def resolve(self, repository: str, name: str, file: str) -> None:
        """/OWNER/NAME/resolve/REVISION/FILE"""
        revision = self.server.revisions.get((repository, name))
        if revision is None:
            self.refuse(404, "RevisionNotFound")
            return
        path = revision.folder / file
        headers = {"X-Repo-Commit": revision.commit}
        if not path.is_file():
            self.refuse(404, "EntryNotFound", headers)
            return
        data = path.read_bytes()
        if path.suffix not in LARGE:
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            self.send_file(path, headers | {"ETag": f'"{git}"'})
            return
        headers["X-Linked-Size"] = str(len(data))
        headers["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        port = self.server.server_port
        headers["Location"] = f"http://localhost:{port}/cdn/{repository}/{quote(name, safe='')}/{file}"
        self.send(302, headers, b"")

    def send_file(self, path: Path, headers: dict[str, str] | None = None) -> None:
        """What was asked for of the file, but for a fault: cut, wrong bytes, wrong length, no ranges, slow, endless,
        drip, or a status, as 429."""
        if not path.is_file():
            self.refuse(404, "EntryNotFound")
            return
        data, headers = path.read_bytes(), headers or {}
        fault = self.server.next_fault(path.name) if self.command == "GET" else ""
        if fault.isdigit():
            self.refuse(int(fault), "", {"Retry-After": "7"})
            return
        if fault in ("endless", "drip"):
            self.send_without_end(b"0" if fault == "drip" else bytes(1 << 16), pause=0.02 if fault == "drip" else 0)
            return
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and "no ranges" not in fault else 0
        if start >= len(data) > 0:
            self.refuse(416, "", {"Content-Range": f"bytes */{len(data)}"})
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if "wrong bytes" in fault:
            data = bytes(byte ^ 0xFF for byte in data)
        if "wrong length" in fault:
            data += b"more"
        if "slow" in fault:
            self.server.closing.wait(30)
        self.send(206 if start else 200, headers, data[start:], cut="cut" in fault)

    def send_without_end(self, part: bytes, pause: float) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):  # until the client has enough
            while not self.server.closing.wait(pause):
                self.wfile.write(part)
        self.close_connection = True

    def refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.send(status, {"X-Error-Code": code, **(headers or {})}, b"")

    def send(self, status: int, headers: dict[str, str], body: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:CUT] if cut else body)
        self.close_connection |= cut

    def log_message(self, *given: object) -> None:
        """Nothing on stderr: HubServer.requests is the log."""


def connect(monkeypatch: pytest.MonkeyPatch, server: HubServer, home: Path) -> None:
    """What HF_ENDPOINT and HF_HOME do, which huggingface_hub reads once, when it is imported."""
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(home / "assets"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # huggingface_hub waits before it tries again
