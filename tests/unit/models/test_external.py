"""Endpoints elsewhere, against one on loopback: what is sent, what comes back, and what their faults become."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.openai_server import OpenAIServer

from terakoya.domain.datasets import Message
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.exceptions import AppException, BadGateway, ContextOverflow, InvalidConfig, TooBusy
from terakoya.models.client import AnswerPart
from terakoya.models.endpoints import Endpoint, read_endpoints
from terakoya.models.external import ExternalClient
from terakoya.models.factory import create_model_loader, loader_type
from terakoya.models.wire import Sampling

KEY = "sk-very-secret"
QUESTION = [Message("system", "Be brief."), Message("user", "Hello?")]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(key=KEY) as running:
        yield running


def endpoint(url: str, **changes: Any) -> Endpoint:
    fields: dict[str, Any] = {"name": "Far", "url": url, "model": "org/far-8b", "api_key": KEY, "timeout_seconds": 5.0}
    return Endpoint(**fields | {"serves": ("chat", "completions", "embeddings")} | changes)


def artifact(there: Endpoint) -> ModelArtifact:
    listed = there.listed
    info = ModelInfo(
        id="model_x",
        name=listed.name,
        kind=ModelKind.EXTERNAL,
        architecture="",
        parameters=0,
        size_bytes=0,
        content_sha256=listed.configuration_sha256,
        source=listed.source,
        license=listed.license,
        created_at=datetime.now(UTC),
        card=listed.card,
    )
    return ModelArtifact(info, Path())


async def ask(there: Endpoint, **options: Any) -> list[AnswerPart]:
    options = {"max_new_tokens": 9} | options
    return [part async for part in ExternalClient([there]).stream(artifact(there), QUESTION, **options)]


async def test_a_conversation_is_sent_as_openai_has_it_and_streamed_back(server: OpenAIServer) -> None:
    parts = await ask(endpoint(server.url), temperature=0.5, seed=3)
    assert [part.delta for part in parts] == ["Hel", "lo", ""]
    assert parts[-1] == AnswerPart(tokens=2, prompt_tokens=5, reason="length", engine="external org/far-8b")
    ((path, body, headers),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "org/far-8b",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "seed": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_every_option_is_passed_on(server: OpenAIServer) -> None:
    sampling = Sampling(0.9, 0.1, 0.2, ("END",), 3, {"type": "object"})
    await ask(endpoint(server.url), sampling=sampling)
    body = server.requests[0][1]
    assert (body["top_p"], body["presence_penalty"], body["frequency_penalty"]) == (0.9, 0.1, 0.2)
    assert (body["stop"], body["logprobs"], body["top_logprobs"]) == (["END"], True, 3)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


async def test_a_text_is_gone_on_with(server: OpenAIServer) -> None:
    parts = await ask(endpoint(server.url), text="Once upon")
    assert "".join(part.delta for part in parts) == "Hello"
    path, body, _ = server.requests[0]
    assert (path, body["prompt"], "messages" in body) == ("/v1/completions", "Once upon", False)


async def test_vectors_come_in_the_order_of_their_texts(server: OpenAIServer) -> None:
    vectors, tokens = await ExternalClient([endpoint(server.url)]).embed("far", ["a", "b", "c"])
    assert vectors.tolist() == [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]
    assert tokens == 7


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        ((500, {}, {"error": {"message": f"oops {KEY}"}}), BadGateway, "failed.*oops \\*\\*\\*"),
        ((503, {}, b"<html>"), BadGateway, "status 503"),
        ((401, {}, {"error": "no"}), BadGateway, "refuses the key"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), BadGateway, "not followed"),
        ((429, {"Retry_After": "7"}, {"error": {"message": "slow down"}}), TooBusy, "slow down"),
        ((404, {}, {"error": {"message": "no such model"}}), InvalidConfig, "no such model"),
        ((400, {}, {"error": {"message": "too long", "code": "context_length_exceeded"}}), ContextOverflow, "too long"),
    ],
)
async def test_a_refusal_is_the_error_it_means_without_the_key(
    server: OpenAIServer, status: tuple[int, dict[str, str], Any], kind: type[AppException], said: str
) -> None:
    server.status = status
    with pytest.raises(kind, match=f"'Far'.*{said}") as caught:
        await ask(endpoint(server.url))
    assert KEY not in f"{caught.value} {caught.value.headers} {caught.value.__cause__!r}"
    assert caught.value.headers.get("Retry-After") == ("7" if kind is TooBusy else None)


@pytest.mark.parametrize(
    "lines",
    [
        ["data: {"],
        ["data: []"],
        ['data: {"choices": [{"delta": {"content": 3}}]}'],
        ['data: {"choices": 3}'],
        ["data: [DONE]"],
        [],
        ["<html>"],
        ['data: {"error": {"message": "ran out of memory"}}'],
    ],
)
async def test_what_makes_no_sense_is_a_bad_gateway(server: OpenAIServer, lines: list[str]) -> None:
    server.raw_lines = lines
    with pytest.raises(BadGateway, match="'Far'"):
        await ask(endpoint(server.url))


async def test_one_that_is_down_or_silent_is_said_in_time(server: OpenAIServer) -> None:
    with pytest.raises(BadGateway, match="cannot be reached"):
        await ask(endpoint("http://127.0.0.1:9/v1"))
    server.pause_seconds = 20
    started = time.monotonic()
    with pytest.raises(BadGateway, match=r"silent for 0\.3 s"):
        await ask(endpoint(server.url, timeout_seconds=0.3))
    assert time.monotonic() - started < 10


async def test_hanging_up_stops_the_work_there(server: OpenAIServer) -> None:
    server.is_endless = True
    there = endpoint(server.url)
    async with aclosing(ExternalClient([there]).stream(artifact(there), QUESTION, max_new_tokens=9)) as parts:
        async for _ in parts:
            break
    assert await asyncio.to_thread(server.has_left.wait, 10)


async def test_it_is_asked_only_for_what_it_serves(server: OpenAIServer) -> None:
    there = endpoint(server.url, serves=("embeddings",))
    assert not artifact(there).info.can_answer
    with pytest.raises(InvalidConfig, match="serves embeddings, not chat"):
        await ask(there)
    with pytest.raises(InvalidConfig, match="serves chat, not embeddings"):
        await ExternalClient([endpoint(server.url, serves=("chat",))]).embed("Far", ["a"])
    assert server.requests == []


async def test_it_can_be_tried_and_has_nothing_to_close(server: OpenAIServer) -> None:
    there = endpoint(server.url)
    assert (await ExternalClient([there]).load(artifact(there)))["engine"] == "external"
    with pytest.raises(InvalidConfig, match="nothing here to be closed"):
        await ExternalClient([there]).unload(artifact(there))


def test_the_factory_has_a_loader_for_it_that_refuses_by_name() -> None:
    model = artifact(endpoint("http://far.example/v1"))
    assert loader_type(model) == "external"
    with pytest.raises(InvalidConfig, match="'Far' is an endpoint elsewhere"):
        create_model_loader("external").load(model)


def test_the_key_is_in_nothing_that_is_listed_or_shown() -> None:
    there = endpoint("http://far.example/v1")
    assert KEY not in f"{there!r} {there.listed!r}"


FILE = """
[[endpoints]]
name = "Far"
url = "https://far.example/v1/"
model = "org/far-8b"
serves = ["chat", "embeddings"]
api_key_variable = "FAR_KEY"
"""


def test_the_file_names_endpoints_and_the_variables_of_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_text(FILE)
    (there,) = read_endpoints(path, {"FAR_KEY": KEY})
    assert (there.name, there.url, there.serves, there.api_key) == (
        *("Far", "https://far.example/v1"),
        ("chat", "embeddings"),
        KEY,
    )
    assert read_endpoints(None, {}) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FILE, "FAR_KEY, which is not set"),
        (FILE.replace("FAR_KEY", "OTHER"), "OTHER"),
        (FILE.replace('"chat"', '"speech"'), r"endpoints\.0\.serves"),
        (FILE.replace("https://", "file://"), r"endpoints\.0\.url"),
        (FILE.replace("https://", "https://user:pw@"), r"endpoints\.0\.url"),
        (FILE + 'api_key = "sk-plain"', r"endpoints\.0\.api_key"),
        (FILE.replace('"Far"', '"a/b"').replace("api_key_variable", "# "), "cannot be used"),
        (FILE.replace("api_key_variable", "# ") * 2, "two called 'Far'"),
        ("[[endpoints", "cannot be read"),
        ('endpoint = "x"', "endpoint"),
    ],
)
def test_a_bad_file_is_told_by_its_entry_and_shows_no_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=said) as caught:
        read_endpoints(path, {})
    assert "sk-plain" not in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read"):
        read_endpoints(tmp_path / "none.toml", {})
