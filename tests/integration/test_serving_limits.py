"""What clients may not ask for, and what they may do badly, against a real server with a tiny real model."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.integration.servers import Server, running_server
from tests.tiny_model import build_tiny_model

from terakoya.domain.tasks import NewModel
from terakoya.storage.database import open_database
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
PATH = "/v1/chat/completions"


@pytest.fixture(scope="module", params=["llama.cpp", "pytorch"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("limits")
    data_dir = DataDir(folder / "data").create()
    engine = open_database(data_dir)
    build_tiny_model(folder / "base")
    repository = SqlModelRepository(engine, data_dir)
    repository.save_model(NewModel("base", "base", folder / "base", None, "llama", 1, "MIT", "folder:base"))
    engine.dispose()
    with running_server(data_dir.root, TERAKOYA_MODEL_THREADS="1") as server:
        httpx.patch(f"{server.url}/api/models/base", json={"engine": request.param}).raise_for_status()
        httpx.post(f"{server.url}/api/models/base/load", timeout=100).raise_for_status()
        yield server


def ask(server: Server, **change: Any) -> httpx.Response:
    body = {"model": "base", "messages": [{"role": "user", "content": "寺子屋?"}], "max_tokens": 8} | change
    return httpx.post(server.url + PATH, json=body, timeout=100)


@pytest.mark.parametrize("change", [{"n": 10**9}, {"max_tokens": 10**9}, {"logprobs": True, "top_logprobs": 10**9}])
def test_a_billion_of_anything_is_refused_at_once(server: Server, change: dict[str, Any]) -> None:
    began = time.monotonic()
    answer = ask(server, **change)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in change
    assert time.monotonic() - began < 5


def test_an_answer_ends_where_the_window_does(server: Server) -> None:
    answer = ask(server, max_tokens=2048, messages=[{"role": "user", "content": "a" * 960}], temperature=1.0).json()
    assert answer["choices"][0]["finish_reason"] in ("length", "stop")
    assert answer["usage"]["total_tokens"] <= 1024


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_longer_than_the_context_is_told_by_how_much(server: Server, stream: bool) -> None:
    turns = [{"role": role, "content": "a" * 400} for role in ("user", "assistant", "user", "assistant", "user")]
    answer = ask(server, messages=turns, stream=stream)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "context_length_exceeded"
    asked = sum(len(f"<s>{turn['role']}\n{turn['content']}<e>\n") - 4 for turn in turns) + len("<s>assistant\n") - 2
    assert f"has {asked} tokens" in error["message"]
    assert f"{asked - 1024 + 1} too long" in error["message"]


def test_a_megabyte_of_headers_is_refused_and_the_next_is_served(server: Server) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        heard = b""
        try:
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * (1 << 20))
            heard = connection.recv(1000)
        except OSError:  # closed before all of it was sent
            pass
    assert heard == b"" or heard.startswith(b"HTTP/1.1 4")
    assert ask(server).status_code == 200


def test_a_client_that_stops_reading_holds_neither_the_model_nor_the_others(server: Server) -> None:
    body = {
        "model": "base",
        "messages": [{"role": "user", "content": "a"}],
        "max_tokens": 1000,
        "temperature": 2.0,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 20,  # half a megabyte and more: beyond what the connection holds by itself
        "n": 8,
    }
    text = json.dumps(body).encode()
    address = urlsplit(server.url)
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.connect((address.hostname, address.port))
    try:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        stalled.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
        assert stalled.recv(100).startswith(b"HTTP/1.1 200")
        # All eight places are its: whoever comes next is served when the model has written them, read or not.
        answer = ask(server)
        assert answer.status_code == 200
        assert answer.json()["usage"]["completion_tokens"] >= 1
        assert not is_asked(server)
    finally:
        stalled.close()


def is_asked(server: Server) -> bool:
    """Whether the model server still writes, a moment after the last answer."""
    transport = httpx.HTTPTransport(uds=str(server.data_dir / "model-server.sock"))
    with httpx.Client(transport=transport, base_url="http://x") as direct:
        deadline = time.monotonic() + 60
        while asked := direct.get("/health").json()["asked"]:
            if time.monotonic() > deadline:
                return bool(asked)
            time.sleep(0.1)
    return False
