"""A small server that speaks the hub's API, so that the hub's own client is tested and not a stand-in for it.

It serves the repositories that it is given, at one commit each: listing, metadata, contents with ranges, and the hub's
error codes.
"""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.servers import Quiet

BLOCK = 1 << 16


@dataclass
class Repository:
    """Files by name at one commit; ``large`` ones are listed with a SHA-256, as the hub does with weights."""

    commit: str
    files: dict[str, bytes]
    large: tuple[str, ...] = ("model.safetensors",)
    gated: bool = False
    # Sent instead of what is listed: what a broken mirror does.
    sends: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Hub:
    """The server's state: what it has, how slowly it sends, and what it was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    block_pause_s: float = 0.0
    # (method, path, Range header) of every request
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def asked_for(self, name: str) -> list[str | None]:
        """The Range headers of the GET requests for a file."""
        return [span for method, path, span in self.requests if method == "GET" and path.endswith(f"/{name}")]


class Handler(Quiet, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self) -> None:
        path = self.path.split("?")[0]
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(tree|revision)/([^/]+))?", path)
        content = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = listing or content
        if not found or found[1] not in self.hub.repositories:
            return self.refuse(404, "RepoNotFound")
        repository = self.hub.repositories[found[1]]
        if repository.gated and (content or found[2] == "tree"):
            return self.refuse(403, "GatedRepo")
        revision = (found[3] if listing else found[2]) or "main"
        if revision not in ("main", repository.commit):
            return self.refuse(404, "RevisionNotFound")
        if content:
            return self.send_file(repository, content[3])
        if found[2] == "tree":
            return self.send_json([self.entry(repository, name) for name in repository.files])
        self.send_json({"id": found[1], "sha": repository.commit, "siblings": [], "tags": [], "private": False})

    def entry(self, repository: Repository, name: str) -> dict[str, Any]:
        data = repository.files[name]
        entry = {
            "type": "file",
            "path": name,
            "size": len(data),
            "oid": sha1(b"blob %d\0" % len(data) + data).hexdigest(),
        }
        if name in repository.large:
            entry["lfs"] = {"oid": sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return entry

    def send_json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, repository: Repository, name: str) -> None:
        if name not in repository.files:
            return self.refuse(404, "EntryNotFound")
        entry = self.entry(repository, name)
        data = repository.sends.get(name, repository.files[name])
        start = int(match[1]) if (match := re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")) else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{entry.get("lfs", entry)["oid"]}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        for at in range(start, len(data), BLOCK):
            try:
                self.wfile.write(data[at : at + BLOCK])
            except (BrokenPipeError, ConnectionResetError):
                return  # the client was killed, as a test may want it
            time.sleep(self.hub.block_pause_s)


@contextmanager
def serve() -> Iterator[Hub]:
    """Serve on a free port of this machine until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
