"""Clients that other people wrote, against a real server with tiny real models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr
from tests.integration.servers import Server, running_server
from tests.tiny_embedder import build_tiny_embedder
from tests.tiny_model import build_tiny_adapter, build_tiny_model

from terakoya.domain.tasks import NewModel
from terakoya.storage.database import open_database
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
KEY = "secret-key-of-the-team-0001"
ASK = [{"role": "user", "content": "寺子屋?"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("clients")
    data_dir = DataDir(folder / "data").create()
    engine = open_database(data_dir)
    models = SqlModelRepository(engine, data_dir)
    build_tiny_model(folder / "base")
    build_tiny_adapter(folder / "tuned", folder / "base")
    build_tiny_embedder(folder / "vectors")
    base = models.save_model(NewModel("base", "base", folder / "base", None, "llama", 1, "MIT", "folder:base"))
    models.save_model(NewModel("tuned", "adapter", folder / "tuned", base.id, "llama", 1, "MIT", "folder:tuned"))
    models.save_model(NewModel("vectors", "embedder", folder / "vectors", None, "bert", 1, "MIT", "folder:vectors"))
    engine.dispose()
    with running_server(data_dir.root, TERAKOYA_API_KEYS=KEY, TERAKOYA_MODEL_THREADS="1") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"base", "tuned", "vectors"}
    assert client.models.retrieve("tuned").owned_by == "terakoya"
    with pytest.raises(openai.NotFoundError, match="did you mean 'tuned'"):
        client.models.retrieve("tunde")


def test_a_chat_is_answered_whole_and_streamed_alike(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tuned", messages=ASK, max_tokens=12)  # type: ignore[call-overload]
    assert whole.usage.completion_tokens <= 12
    assert whole.system_fingerprint == "llama.cpp q8_0"
    stream = client.chat.completions.create(
        model="tuned",
        messages=ASK,  # type: ignore[arg-type]
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


def test_an_answer_is_an_instance_of_the_schema(client: openai.OpenAI) -> None:
    class Done(BaseModel):
        model_config = {"extra": "forbid"}

        done: bool
        number: int

    parsed = client.chat.completions.parse(model="base", messages=ASK, response_format=Done, max_tokens=60)  # type: ignore[arg-type]
    assert parsed.choices[0].finish_reason in ("stop", "length")
    if parsed.choices[0].finish_reason == "stop":
        assert isinstance(parsed.choices[0].message.parsed, Done)
    with pytest.raises(openai.BadRequestError, match="'pattern'"):
        client.chat.completions.create(
            model="base",
            messages=ASK,  # type: ignore[arg-type]
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "string", "pattern": "("}},
            },
        )


def test_options_of_the_api_are_taken(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="base",
        messages=ASK,  # type: ignore[arg-type]
        n=3,
        seed=1,
        temperature=1.0,
        top_p=0.9,
        presence_penalty=0.5,
        frequency_penalty=0.5,
        logprobs=True,
        top_logprobs=2,
        stop=["\n\n"],
        max_tokens=6,
    )
    assert len({choice.message.content for choice in answer.choices}) > 1
    for choice in answer.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content
        assert all(len(entry.top_logprobs) == 2 for entry in choice.logprobs.content)


def test_texts_are_gone_on_with(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="base", prompt=["ab", "cd"], max_tokens=4, logprobs=1)
    assert len(answer.choices) == 2
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4
    stream = client.completions.create(model="base", prompt="ab", max_tokens=4, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text


def test_texts_become_vectors_of_length_one(client: openai.OpenAI) -> None:
    """The client asks for base64 of its own accord."""
    answer = client.embeddings.create(model="vectors", input=["寺子屋", "school"])
    floats = client.embeddings.create(model="vectors", input="寺子屋", encoding_format="float")
    assert answer.data[0].embedding == pytest.approx(floats.data[0].embedding, abs=5e-3)  # bfloat16
    assert sum(number**2 for number in answer.data[1].embedding) == pytest.approx(1.0, abs=1e-3)
    assert answer.usage.prompt_tokens > 0


def test_errors_are_the_clients_own(client: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.BadRequestError) as overflow:
        client.chat.completions.create(model="base", messages=[{"role": "user", "content": "a" * 2000}])
    assert overflow.value.code == "context_length_exceeded"
    assert "too long" in str(overflow.value)
    with pytest.raises(openai.BadRequestError, match="n"):
        client.chat.completions.create(model="base", messages=ASK, n=10**9)  # type: ignore[call-overload]
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0).models.list()


def test_langchain_chats_streams_and_embeds(server: Server) -> None:
    chat = ChatOpenAI(
        model="tuned", base_url=f"{server.url}/v1", api_key=SecretStr(KEY), max_completion_tokens=8, max_retries=0
    )
    whole = chat.invoke("寺子屋?")
    assert whole.content == "".join(str(chunk.content) for chunk in chat.stream("寺子屋?"))
    embeddings = OpenAIEmbeddings(
        model="vectors",
        base_url=f"{server.url}/v1",
        api_key=SecretStr(KEY),
        check_embedding_ctx_length=False,  # else it sends tokens of OpenAI's vocabulary in place of texts
    )
    assert len(embeddings.embed_documents(["a", "b"])) == 2


def test_llm_answers_by_its_table_of_extra_models(server: Server, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: mine\n  model_name: tuned\n  api_base: {server.url}/v1\n  api_key_name: mine\n"
    )
    (tmp_path / "keys.json").write_text(json.dumps({"mine": KEY}))
    asked = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "mine", "--no-log", "-o", "max_tokens", "8", "寺子屋?"],
        env={**os.environ, "LLM_USER_PATH": str(tmp_path)},
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr.decode()
