"""``terakoya chat`` against a client that echoes."""

from __future__ import annotations

import io
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from terakoya.cli import chat, main
from terakoya.cli.connection import Connection
from terakoya.exceptions import InvalidConfig, ModelNotFound, Unavailable


class EchoClient:
    """Answers with the number of messages and the last of them; "fail" fails, "wait" is interrupted in mid-answer."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, Any]]] = []
        self.models = self

    def get(self, name: str) -> dict[str, Any]:
        return {"name": name}

    def list(self) -> list[dict[str, Any]]:
        return [{"name": "vectors", "kind": "embedder"}, {"name": "newest", "kind": "adapter"}]

    def chat(self, model: str, messages: list[dict[str, Any]], **options: Any) -> Generator[str, None, None]:
        self.asked.append([dict(message) for message in messages])
        last = messages[-1]["content"]
        yield f"{model} {len(messages)}: "
        if last == "fail":
            raise Unavailable("8 requests are waiting")
        if last == "wait":
            raise KeyboardInterrupt
        yield last


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> EchoClient:
    client = EchoClient()

    @contextmanager
    def connect() -> Iterator[Connection]:
        yield Connection(client, is_temporary=False)  # type: ignore[arg-type]

    monkeypatch.setattr("terakoya.cli.connection.connect", connect)
    return client


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the person types, line by line; then the input ends."""
    typed: list[str] = []

    def read(prompt: str) -> str:
        if not typed:
            raise EOFError
        return typed.pop(0)

    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    monkeypatch.setattr("builtins.input", read)
    return typed


def test_a_prompt_gets_one_answer_of_the_newest_model_that_can_answer(client: EchoClient) -> None:
    answer = CliRunner().invoke(main.app, ["chat", "--prompt", "Where is it?", "--system", "Be kind."])
    assert answer.exit_code == 0
    assert answer.stdout == "newest 2: Where is it?\n"
    assert [message["role"] for message in client.asked[0]] == ["system", "user"]


def test_a_pipe_is_the_question(client: EchoClient) -> None:
    answer = CliRunner().invoke(main.app, ["chat", "tuned", "--json"], input="二行の\n質問\n")
    assert json.loads(answer.stdout) == {"model": "tuned", "answer": "tuned 1: 二行の\n質問"}


@pytest.mark.parametrize("text", ["", " \n", "x" * 32_001])
def test_an_empty_or_endless_pipe_is_refused(client: EchoClient, text: str) -> None:
    answer = CliRunner().invoke(main.app, ["chat"], input=text)
    assert isinstance(answer.exception, InvalidConfig)
    assert client.asked == []


def test_a_conversation_remembers_and_begins_anew(
    client: EchoClient, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines += ["one", "", "two", "/new", "three", "/bye", "never asked"]
    chat.chat("tuned", system="Be kind.")
    assert [[message["content"] for message in asked] for asked in client.asked] == [
        ["Be kind.", "one"],
        ["Be kind.", "one", "tuned 2: one", "two"],
        ["Be kind.", "three"],
    ]
    assert "tuned 4: two" in capsys.readouterr().out


def test_a_question_that_failed_is_taken_back(
    client: EchoClient, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines += ["fail", "again"]
    chat.chat("tuned")
    assert [message["content"] for message in client.asked[1]] == ["again"]
    assert "8 requests are waiting" in capsys.readouterr().err


def test_an_interrupt_stops_the_answer_and_keeps_what_is_there(client: EchoClient, lines: list[str]) -> None:
    lines += ["wait", "go on"]
    chat.chat("tuned")
    assert [message["content"] for message in client.asked[1]] == ["wait", "tuned 1: ", "go on"]


def test_without_a_model_it_says_how_to_get_one(client: EchoClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EchoClient, "list", lambda self: [])
    answer = CliRunner().invoke(main.app, ["chat", "--prompt", "x"])
    assert isinstance(answer.exception, ModelNotFound)
    assert "terakoya models pull" in str(answer.exception)
