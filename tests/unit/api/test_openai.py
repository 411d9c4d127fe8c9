"""The OpenAI-compatible routes over the real service; only the model server is replaced, by one that echoes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from terakoya.domain.datasets import Message
from terakoya.domain.models import ModelArtifact
from terakoya.domain.tasks import NewModel
from terakoya.exceptions import ContextOverflow, TooBusy, Unavailable
from terakoya.models.client import AnswerPart
from terakoya.models.service import ModelService
from terakoya.models.wire import Reranked, Sampling
from web_app import web_client

PATH = "/v1/chat/completions"
ASK = [{"role": "user", "content": "hello"}]


class Echo:
    """Answers with the conversation it was given; breaks off where the question is "break"."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.closed = 0
        self.seeds: list[int] = []

    async def stream(
        self, artifact: ModelArtifact, messages: Sequence[Message], **options: Any
    ) -> AsyncGenerator[AnswerPart, None]:
        self.options = options
        self.seeds.append(options["seed"])
        try:
            if not messages:
                yield AnswerPart(delta=f"{artifact.info.name}: {options['text']}")
                yield AnswerPart(tokens=2, prompt_tokens=5, reason="stop", engine="echo q8_0")
                return
            if messages[-1].content == "overflow":
                raise ContextOverflow("too long")
            if messages[-1].content == "full":
                raise TooBusy("8 requests are waiting")
            yield AnswerPart(delta=f"{artifact.info.name}:")
            if messages[-1].content == "break":
                raise Unavailable("it broke off")
            for message in messages:
                yield AnswerPart(delta=f" {message.role}={message.content}")
            reason = "context" if messages[-1].content == "long" else "stop"
            yield AnswerPart(tokens=7, prompt_tokens=5, reason=reason, engine="echo q8_0")
        finally:
            self.closed += 1

    async def rerank(self, artifact: ModelArtifact, query: str, passages: Sequence[str]) -> Reranked:
        """The longer the better; of the longest only the beginning is read."""
        scores = tuple(len(passage) / 10 for passage in passages)
        return Reranked(scores, (scores.index(max(scores)),), 12)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    root = tmp_path_factory.mktemp("openai")
    with web_client(root / "data") as client:
        container = client.app.state.container  # type: ignore[attr-defined]
        models = container.models
        base = models._repository.save_model(new_model(root, "base"))
        models._repository.save_model(new_model(root, "tuned", kind="adapter", parent_id=base.id))
        models._repository.save_model(new_model(root, "vectors", kind="embedder"))
        models._repository.save_model(new_model(root, "judge", kind="reranker"))
        yield client


def new_model(root: Path, name: str, *, kind: str = "base", parent_id: str | None = None) -> NewModel:
    folder = root / f"new-{name}"
    folder.mkdir()
    (folder / "config.json").write_text(f'{{"name": "{name}"}}')
    return NewModel(name, kind, folder, parent_id, "llama", 1, "Apache-2.0", "folder:x")


@pytest.fixture
def echo(app: TestClient, monkeypatch: pytest.MonkeyPatch) -> Echo:
    echo = Echo()
    models: ModelService = app.app.state.container.models  # type: ignore[attr-defined]
    monkeypatch.setattr(models, "_client", echo)
    return echo


def streamed(answer: Any) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_the_models_are_listed_by_name(app: TestClient) -> None:
    listed = app.get("/v1/models").json()
    assert listed["object"] == "list"
    assert sorted(model["id"] for model in listed["data"]) == ["base", "judge", "tuned", "vectors"]
    assert app.get("/v1/models/base").json()["object"] == "model"
    unknown = app.get("/v1/models/bas")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert "did you mean 'base'" in unknown.json()["error"]["message"]


def test_a_conversation_is_answered_whole(app: TestClient, echo: Echo) -> None:
    messages = [
        {"role": "system", "content": "kind"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": [{"type": "text", "text": "thr"}, {"type": "text", "text": "ee"}]},
    ]
    body = {"model": "tuned", "messages": messages, "temperature": 0.5, "seed": 3, "max_completion_tokens": 9}
    answer = app.post(PATH, json=body).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "tuned"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "tuned: system=kind user=one assistant=two user=three"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    assert answer["system_fingerprint"] == "echo q8_0"
    assert echo.options == {"max_new_tokens": 9, "temperature": 0.5, "seed": 3, "sampling": Sampling()}
    assert echo.closed == 1


def test_a_stream_has_the_role_the_pieces_the_reason_the_usage_and_an_end(app: TestClient, echo: Echo) -> None:
    body = {"model": "base", "messages": ASK, "stream": True, "stream_options": {"include_usage": True}}
    answer = app.post(PATH, json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, usage, end = streamed(answer)
    assert end == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 12
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == "base: user=hello"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-1] == "stop"


def test_without_usage_asked_no_chunk_speaks_of_it(app: TestClient, echo: Echo) -> None:
    *chunks, end = streamed(app.post(PATH, json={"model": "base", "messages": ASK, "stream": True}))
    assert end == "[DONE]"
    assert not any("usage" in chunk for chunk in chunks)


def test_a_full_window_is_told_as_length(app: TestClient, echo: Echo) -> None:
    body = {"model": "base", "messages": [{"role": "user", "content": "long"}]}
    assert app.post(PATH, json=body).json()["choices"][0]["finish_reason"] == "length"


def test_the_answer_is_the_likeliest_unless_a_temperature_is_given(app: TestClient, echo: Echo) -> None:
    seeds = set()
    for _ in range(2):
        app.post(PATH, json={"model": "base", "messages": ASK})
        assert echo.options["temperature"] == 0.0
        seeds.add(echo.options["seed"])
    assert len(seeds) == 2


@pytest.mark.parametrize("name", ["top_k", "logit_bias", "functions", "user", "metadata", "store", "nonsense"])
def test_a_parameter_that_is_not_supported_is_refused_by_name(app: TestClient, echo: Echo, name: str) -> None:
    answer = app.post(PATH, json={"model": "base", "messages": ASK, name: {"a": 1}})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"], error["type"]) == (name, "unsupported_parameter", "invalid_request_error")
    assert name in error["message"]


@pytest.mark.parametrize("neutral", [{"n": 1}, {"top_p": 1.0}, {"stop": None}, {"logit_bias": None}, {"tools": []}])
def test_a_value_that_asks_for_nothing_may_stand(app: TestClient, echo: Echo, neutral: dict[str, Any]) -> None:
    assert app.post(PATH, json={"model": "base", "messages": ASK} | neutral).status_code == 200


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 10**9}, "n"),
        ({"n": 0}, "n"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"stop": ["x"] * 5}, "stop"),
        ({"top_logprobs": 3}, None),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2049}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages.0.name"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, None),
        ({"stream_options": {"include_usage": True}}, None),
        ({"messages": [{"role": "assistant", "content": "x"}]}, None),
        ({"messages": [{"role": "user", "content": "  "}]}, None),
        ({"messages": [*ASK * 501]}, "messages"),
    ],
)
def test_a_value_out_of_bounds_is_refused(
    app: TestClient, echo: Echo, change: dict[str, Any], param: str | None
) -> None:
    answer = app.post(PATH, json={"model": "base", "messages": ASK} | change)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("body", ["", "null", "[]", "{", '{"model": "\\ud800", "messages": []}'])
def test_what_is_no_request_is_refused_in_the_same_envelope(app: TestClient, body: str) -> None:
    answer = app.post(PATH, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_unknown_models_and_embedders_are_refused(app: TestClient, echo: Echo) -> None:
    unknown = app.post(PATH, json={"model": "gpt-4o", "messages": ASK})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    vectors = app.post(PATH, json={"model": "vectors", "messages": ASK})
    assert (vectors.status_code, vectors.json()["error"]["code"]) == (400, "invalid_config")
    compared = app.post("/api/models/compare", json={"prompt": "x", "models": ["vectors"]})
    assert (compared.status_code, compared.json()["code"]) == (422, "invalid_config")


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_server_is_an_error_with_a_status(app: TestClient, echo: Echo, stream: bool) -> None:
    messages = [{"role": "user", "content": "full"}]
    answer = app.post(PATH, json={"model": "base", "messages": messages, "stream": stream})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["error"]["type"] == "rate_limit_error"


def test_an_error_in_mid_stream_is_its_last_event(app: TestClient, echo: Echo) -> None:
    messages = [{"role": "user", "content": "break"}]
    chunks = streamed(app.post(PATH, json={"model": "base", "messages": messages, "stream": True}))
    assert chunks[-1]["error"]["code"] == "unavailable"
    assert "[DONE]" not in chunks
    assert echo.closed == 1


def test_a_key_is_asked_for_as_elsewhere(tmp_path: Path) -> None:
    with web_client(tmp_path / "data", api_keys=("secret-key-of-the-team-0001",)) as client:
        assert client.get("/v1/models").status_code == 401
        headers = {"authorization": "Bearer secret-key-of-the-team-0001"}
        assert client.get("/v1/models", headers=headers).json() == {"object": "list", "data": []}


def test_everything_that_is_asked_reaches_the_engine(app: TestClient, echo: Echo) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    body = {
        "model": "base",
        "messages": ASK,
        "top_p": 0.5,
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
        "stop": "END",
        "logprobs": True,
        "top_logprobs": 2,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}},
    }
    assert app.post(PATH, json=body).status_code == 200
    assert echo.options["sampling"] == Sampling(0.5, 1.0, -1.0, ("END",), 2, schema)


def test_several_answers_have_their_own_seeds_and_indices(app: TestClient, echo: Echo) -> None:
    answer = app.post(PATH, json={"model": "base", "messages": ASK, "n": 3, "seed": 7}).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 21, "total_tokens": 26}
    assert sorted(echo.seeds) == [7, 8, 9]
    assert echo.closed == 3


def test_several_answers_are_streamed_side_by_side(app: TestClient, echo: Echo) -> None:
    *chunks, end = streamed(app.post(PATH, json={"model": "base", "messages": ASK, "n": 2, "stream": True}))
    assert end == "[DONE]"
    for index in range(2):
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in own) == "base: user=hello"
        assert own[-1]["finish_reason"] == "stop"


def test_texts_are_gone_on_with(app: TestClient, echo: Echo) -> None:
    body = {"model": "base", "prompt": ["one", "two"], "n": 2, "max_tokens": 5, "logprobs": 1}
    answer = app.post("/v1/completions", json=body).json()
    assert answer["object"] == "text_completion"
    assert [choice["text"] for choice in answer["choices"]] == ["base: one", "base: one", "base: two", "base: two"]
    assert answer["usage"]["prompt_tokens"] == 10  # each prompt is counted once
    assert echo.options["max_new_tokens"] == 5
    *chunks, end = streamed(app.post("/v1/completions", json={"model": "base", "prompt": "one", "stream": True}))
    assert end == "[DONE]"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "base: one"
    many = app.post("/v1/completions", json={"model": "base", "prompt": ["x"] * 8, "n": 2})
    assert (many.status_code, "8 answers" in many.json()["error"]["message"]) == (400, True)


def test_a_prompt_longer_than_the_window_is_400_by_how_much(app: TestClient, echo: Echo) -> None:
    answer = app.post(PATH, json={"model": "base", "messages": [{"role": "user", "content": "overflow"}]})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_models_that_answer_embed_nothing_and_tokens_are_no_texts(app: TestClient) -> None:
    body: dict[str, Any] = {"model": "base", "input": "x"}
    assert app.post("/v1/embeddings", json=body).status_code == 400
    for wrong in ([], [[1, 2]], "", ["x"] * 257):
        assert app.post("/v1/embeddings", json={"model": "vectors", "input": wrong}).status_code == 400


def test_documents_come_back_in_order_of_their_scores(app: TestClient, echo: Echo) -> None:
    body = {"model": "judge", "query": "q", "documents": ["aa", {"text": "aaaa"}, "a"], "return_documents": True}
    answer = app.post("/v1/rerank", json=body).json()
    assert [(found["index"], found["relevance_score"], found["truncated"]) for found in answer["results"]] == [
        (1, 0.4, True),
        (0, 0.2, False),
        (2, 0.1, False),
    ]
    assert answer["results"][0]["document"] == {"text": "aaaa"}
    assert answer["usage"] == {"prompt_tokens": 12, "total_tokens": 12}
    assert len(app.post("/v1/rerank", json=body | {"top_n": 2}).json()["results"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "base"}, "is of the kind 'base' and no reranker"),
        ({"model": "vectors"}, "is of the kind 'embedder' and no reranker"),
        ({"documents": []}, "at least 1 item"),
        ({"documents": ["a"] * 257}, "at most 256 items"),
        ({"query": "q" * 20_001}, "at most 20000 characters"),
        ({"top_n": 10**9}, "less than or equal to 256"),
        ({"rank_fields": []}, "'rank_fields' is not supported"),
    ],
)
def test_what_cannot_be_reranked_is_refused(app: TestClient, echo: Echo, change: dict[str, Any], message: str) -> None:
    answer = app.post("/v1/rerank", json={"model": "judge", "query": "q", "documents": ["a"]} | change)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_a_reranker_is_not_chatted_with(app: TestClient) -> None:
    answer = app.post(PATH, json={"model": "judge", "messages": ASK})
    assert answer.status_code == 400
    assert "of the kind 'reranker'" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "a valid string or Input should be a"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages.0.content.0.type",
            "Input should be 'text'",
        ),
        ({"messages": [{"role": "user", "content": "x" * 32_001}]}, "messages.0.content", "at most 32000 characters"),
        ({"stop": ["a"] * 5}, "stop", "at most 4 items"),
        ({"stop": ["a", ""]}, "stop.1", "at least 1 character"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "Field required"),
        ({"n": 10**9}, "n", "less than or equal to 8"),
        ({"max_tokens": 10**9}, "max_tokens", "less than or equal to 2048"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
    ],
)
def test_what_is_wrong_is_said_of_the_field_as_the_client_wrote_it(
    app: TestClient, change: dict[str, Any], param: str, message: str
) -> None:
    answer = app.post(PATH, json={"model": "base", "messages": ASK} | change)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert message in answer.json()["error"]["message"]
