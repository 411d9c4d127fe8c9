"""A conversation with the real starter model over the OpenAI-compatible routes and the command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.integration.servers import COMMAND, STARTER, Server, environment, run_cli, running_server

from terakoya import Client
from terakoya.exceptions import InvalidConfig, ModelNotFound

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
# One that the model is sure about: with "What is the capital of France?" rounding decides how it begins.
QUESTION = [{"role": "user", "content": "Name the capital of France."}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, folder_with_starter: Callable[[Path], Path]) -> Iterator[Server]:
    with running_server(folder_with_starter(tmp_path_factory.mktemp("chat") / "data")) as running:
        yield running


def test_whole_and_streamed_answers_are_the_same_text_with_the_same_usage(server: Server) -> None:
    body = {"model": STARTER, "messages": QUESTION, "max_tokens": 24}
    with httpx.Client(base_url=server.url, timeout=120) as http:
        whole = http.post("/v1/chat/completions", json=body).json()
        stream = body | {"stream": True, "stream_options": {"include_usage": True}}
        lines = http.post("/v1/chat/completions", json=stream).text.splitlines()
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line and "[DONE]" not in line]
    choice = whole["choices"][0]
    assert "Paris" in choice["message"]["content"]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1]) == choice["message"]["content"]
    assert chunks[-1]["usage"] == whole["usage"]
    assert 0 < whole["usage"]["completion_tokens"] <= 24
    assert whole["usage"]["prompt_tokens"] > 10


def test_what_was_said_before_counts(server: Server) -> None:
    with Client(server.url) as client:
        first = "".join(client.chat(STARTER, QUESTION, max_tokens=24))
        follow_up = [*QUESTION, {"role": "assistant", "content": first}, {"role": "user", "content": "Say it again."}]
        again = "".join(client.chat(STARTER, follow_up, max_tokens=24))
        cold = "".join(client.chat(STARTER, follow_up[-1:], max_tokens=24))
    assert again != cold
    assert "Paris" in again


def test_a_reader_who_leaves_frees_the_model(server: Server) -> None:
    with Client(server.url) as client:
        story = [{"role": "user", "content": "Write a very long story about a ship."}]
        pieces = client.chat(STARTER, story, max_tokens=2048)
        next(pieces)
        pieces.close()
        assert "Paris" in "".join(client.chat(STARTER, QUESTION, max_tokens=24))


def test_errors_arrive_as_what_they_are(server: Server) -> None:
    with Client(server.url) as client:
        with pytest.raises(ModelNotFound, match="nobody"):
            list(client.chat("nobody", QUESTION))
        with pytest.raises(InvalidConfig, match="reads"):
            list(client.chat(STARTER, [{"role": "user", "content": "1a" * 15_000}]))


def test_the_command_answers_a_prompt_and_a_pipe(server: Server) -> None:
    asked = run_cli(server.data_dir, "chat", STARTER, "--prompt", QUESTION[0]["content"], "--max-tokens", "24")
    assert (asked.returncode, "Paris" in asked.stdout) == (0, True), asked.stderr
    piped = subprocess.run(
        [*COMMAND, "chat", "--max-tokens", "24", "--json"],
        env=environment(server.data_dir),
        input=QUESTION[0]["content"],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert json.loads(piped.stdout) == {"model": STARTER, "answer": asked.stdout.rstrip("\n")}
