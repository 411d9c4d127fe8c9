"""A model hub on loopback: repositories at commits, served as Hugging Face's API serves them, with the faults that
tests ask for. Large files are served by a second address, as from a content network.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40


@dataclass
class Repository:
    files: dict[str, bytes]
    license: str | None = "apache-2.0"
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, COMMIT: COMMIT})
    is_gated: bool = False
    """Files need a token; the list of them does not."""
    hashed_as: dict[str, bytes] = field(default_factory=dict)
    """Content whose hash is given for a file in place of its own."""


class HubServer:
    """``requests``: every request as (host, path, headers); ``cut_after``: bytes of a body before the line drops."""

    def __init__(self, repositories: dict[str, Repository], *, token: str | None = None) -> None:
        self.repositories, self.token = repositories, token
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.cut_after: list[int] = []
        self.pause_after: int | None = None
        """Bytes after which each answer of a large file waits for ``go_on``."""
        self.go_on = threading.Event()
        self.redirect_to: str | None = None
        """Where large files are, in place of the second address."""
        self.failures = 0
        """So many next requests are answered with 503."""
        self.large_bytes = 1000
        """Files from this size on are in large-file storage."""
        self.has_left = threading.Event()
        self._hub, self._store = _serve(self, "hub"), _serve(self, "store")

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._hub.server_port}"

    @property
    def store(self) -> str:
        return f"http://127.0.0.1:{self._store.server_port}"

    def paths(self, host: str) -> list[str]:
        return [path for where, path, _ in self.requests if where == host]

    def __enter__(self) -> HubServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go_on.set()
        for server in (self._hub, self._store):
            server.shutdown()
            server.server_close()


def repository_of(folder: Path, **options: Any) -> Repository:
    """Return the folder's files as a repository."""
    return Repository({path.name: path.read_bytes() for path in folder.iterdir()}, **options)


def _serve(hub: HubServer, host: str) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.requests.append((host, self.path, dict(self.headers)))
            _answer(hub, host, self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def _answer(hub: HubServer, host: str, request: BaseHTTPRequestHandler) -> None:
    if hub.failures:
        hub.failures -= 1
        return _say(request, 503)
    path = unquote(urlsplit(request.path).path)
    has_token = hub.token is not None and request.headers.get("Authorization") == f"Bearer {hub.token}"
    if path.startswith("/api/models/"):
        name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        return _list(hub, request, name, revision)
    name, _, rest = path.strip("/").partition("/resolve/")
    _, _, file = rest.partition("/")
    repository = hub.repositories[name]
    if repository.is_gated and host == "hub" and not has_token:
        return _say(request, 403, code="GatedRepo")
    content = repository.files[file]
    if host == "hub" and len(content) >= hub.large_bytes:
        return _say(request, 302, Location=hub.redirect_to or f"{hub.store}{request.path}?signature=x")
    return _send(hub, request, content, is_large=host == "store")


def _list(hub: HubServer, request: BaseHTTPRequestHandler, name: str, revision: str) -> None:
    repository = hub.repositories.get(name)
    if repository is None:
        return _say(request, 401 if hub.token is None else 404, code="RepoNotFound")
    if revision not in repository.revisions:
        return _say(request, 404, code="RevisionNotFound")
    siblings = [_entry(hub, repository, file, content) for file, content in repository.files.items()]
    card = {"cardData": {"license": repository.license}} if repository.license else {}
    body = {"id": name, "sha": repository.revisions[revision], "siblings": siblings} | card
    return _say(request, 200, body=json.dumps(body).encode())


def _entry(hub: HubServer, repository: Repository, file: str, content: bytes) -> dict[str, Any]:
    named = repository.hashed_as.get(file, content)
    blob = hashlib.sha1(b"blob %d\0" % len(content) + named, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": blob}
    if len(content) >= hub.large_bytes:
        entry["lfs"] = {"sha256": hashlib.sha256(named).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


def _send(hub: HubServer, request: BaseHTTPRequestHandler, content: bytes, *, is_large: bool) -> None:
    wanted = request.headers.get("Range")
    first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
    request.send_response(206 if wanted else 200)
    if wanted:
        request.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
    request.send_header("Content-Length", str(len(content) - first))
    request.end_headers()
    body = content[first:]
    limit = hub.cut_after.pop(0) if is_large and hub.cut_after else None
    if limit is not None:
        request.wfile.write(body[:limit])
        request.close_connection = True
        return
    if is_large and hub.pause_after is not None:
        request.wfile.write(body[: hub.pause_after])
        request.wfile.flush()
        hub.go_on.wait(60)
        body = body[hub.pause_after :]
    try:
        request.wfile.write(body)
    except (BrokenPipeError, ConnectionResetError):
        hub.has_left.set()


def _say(request: BaseHTTPRequestHandler, status: int, *, code: str = "", body: bytes = b"", **headers: str) -> None:
    request.send_response(status)
    if code:
        request.send_header("X-Error-Code", code)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
