"""An OpenAI-compatible endpoint on loopback that answers from a script, with the faults that tests ask for."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class OpenAIServer:
    def __init__(self, *, key: str | None = None) -> None:
        self.key = key
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.pieces = ["Hel", "lo"]
        self.status: tuple[int, dict[str, str], Any] | None = None
        """Status, headers and body of every answer, in place of an answer."""
        self.raw_lines: list[str] | None = None
        """Lines of the stream, in place of a sound one."""
        self.is_endless = False
        self.pause_seconds = 0.0
        self.has_left = threading.Event()
        self._server = _serve(self)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> OpenAIServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.has_left.set()
        self._server.shutdown()
        self._server.server_close()


def _serve(endpoint: OpenAIServer) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _say(self, 200, {"object": "list", "data": []})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            endpoint.requests.append((self.path, body, dict(self.headers)))
            if endpoint.status is not None:
                status, headers, said = endpoint.status
                return _say(self, status, said, **headers)
            if endpoint.key is not None and self.headers.get("Authorization") != f"Bearer {endpoint.key}":
                return _say(self, 401, {"error": {"message": f"bad key {self.headers.get('Authorization')}"}})
            if self.path.endswith("/embeddings"):
                rows = [{"index": number, "embedding": [float(number), 1.0]} for number in range(len(body["input"]))]
                return _say(self, 200, {"data": rows[::-1], "usage": {"prompt_tokens": 7, "total_tokens": 7}})
            return _stream(endpoint, self, is_chat="messages" in body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def _stream(endpoint: OpenAIServer, request: BaseHTTPRequestHandler, *, is_chat: bool) -> None:
    request.send_response(200)
    request.send_header("Content-Type", "text/event-stream")
    request.send_header("Connection", "close")
    request.close_connection = True
    request.end_headers()
    try:
        if endpoint.pause_seconds:
            endpoint.has_left.wait(endpoint.pause_seconds)
        while endpoint.is_endless and not endpoint.has_left.is_set():
            _line(request, "data: " + json.dumps({"choices": [_piece("x", is_chat)]}))
            endpoint.has_left.wait(0.01)
        for line in endpoint.raw_lines if endpoint.raw_lines is not None else _sound_lines(endpoint, is_chat):
            _line(request, line)
    except (BrokenPipeError, ConnectionResetError):
        endpoint.has_left.set()


def _sound_lines(endpoint: OpenAIServer, is_chat: bool) -> list[str]:
    chunks: list[dict[str, Any]] = [{"choices": [_piece(piece, is_chat)]} for piece in endpoint.pieces]
    chunks.append({"choices": [_piece("", is_chat) | {"finish_reason": "length"}]})
    chunks.append({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}})
    return [": comment", *("data: " + json.dumps(chunk) for chunk in chunks), "data: [DONE]"]


def _piece(text: str, is_chat: bool) -> dict[str, Any]:
    return {"index": 0, "finish_reason": None} | ({"delta": {"content": text}} if is_chat else {"text": text})


def _line(request: BaseHTTPRequestHandler, line: str) -> None:
    request.wfile.write(line.encode() + b"\n\n")
    request.wfile.flush()


def _say(request: BaseHTTPRequestHandler, status: int, body: Any, **headers: str) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(raw)))
    request.end_headers()
    request.wfile.write(raw)
