"""An endpoint of the administrator's, through the whole web application: listed, asked, refused for want of weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.openai_server import OpenAIServer

from terakoya.bootstrap import build_container
from terakoya.config import Settings
from terakoya.exceptions import Conflict
from web_app import web_client

KEY = "sk-very-secret"
ASK = {"model": "Far", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(key=KEY) as running:
        yield running


def write_file(path: Path, url: str, name: str = "Far") -> Path:
    path.write_text(
        f'[[endpoints]]\nname = "{name}"\nurl = "{url}"\nmodel = "org/far"\napi_key_variable = "FAR_KEY"\n'
        'serves = ["chat", "completions", "embeddings"]\n'
    )
    return path


@pytest.fixture
def client(tmp_path: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("FAR_KEY", KEY)
    with web_client(tmp_path / "data", endpoints=write_file(tmp_path / "endpoints.toml", server.url)) as made:
        yield made


def test_it_is_in_the_registry_and_answers_in_every_way(client: TestClient) -> None:
    (model,) = client.get("/api/models").json()["models"]
    assert (model["name"], model["kind"], model["size_bytes"]) == ("Far", "external", 0)
    assert model["card"]["endpoint"]["model"] == "org/far"
    chat = client.post("/v1/chat/completions", json=ASK).json()
    assert chat["choices"][0]["message"]["content"] == "Hello"
    assert chat["system_fingerprint"] == "external org/far"
    assert chat["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    text = client.post("/v1/completions", json={"model": "Far", "prompt": "Once"}).json()
    assert text["choices"][0]["text"] == "Hello"
    vectors = client.post("/v1/embeddings", json={"model": "Far", "input": ["a", "b"]}).json()
    assert [row["embedding"] for row in vectors["data"]] == [[0.0, 1.0], [1.0, 1.0]]
    compared = client.post("/api/models/compare", json={"prompt": "Hi", "models": ["Far"]}).text
    assert '"finished":true' in compared.replace(" ", "")


def test_what_needs_weights_is_refused_by_name(client: TestClient) -> None:
    client.post(
        "/api/datasets", files={"file": ("d.jsonl", b'{"prompt": "a", "completion": "b"}\n' * 20)}, data={"name": "d"}
    )
    for path, body in {
        "/api/train": {"model": "Far", "dataset": "d"},
        "/api/models/Far/export": {"format": "gguf-f16"},
        "/api/models/Far/merge": {},
        "/api/models/pull": {"source": "starter", "base": "Far"},
    }.items():
        answer = client.post(path, json=body)
        assert answer.status_code == 422, (path, answer.text)
        assert "Far" in answer.json()["error"] or "takes no base" in answer.json()["error"]
    for path in ("/api/models/Far/files", "/api/models/Far/files/config.json"):
        assert "'Far' is an endpoint elsewhere" in client.get(path).json()["error"]
    deleted = client.delete("/api/models/Far")
    assert (deleted.status_code, "administrator" in deleted.json()["error"]) == (409, True)
    assert client.patch("/api/models/Far", json={"engine": "pytorch"}).status_code == 422
    assert client.patch("/api/models/Far", json={"tags": ["big"]}).json()["tags"] == ["big"]


def test_no_request_names_an_address(client: TestClient) -> None:
    for source in ("http://127.0.0.1:1/v1", "external:http://127.0.0.1:1/v1", "openai:http://x"):
        assert client.post("/api/models/pull", json={"source": source}).status_code == 422
    for extra in ({"base_url": "http://127.0.0.1:1"}, {"url": "http://127.0.0.1:1"}, {"api_key": "x"}):
        assert client.post("/v1/chat/completions", json=ASK | extra).status_code == 400
    assert client.patch("/api/models/Far", json={"url": "http://127.0.0.1:1"}).status_code == 422


def test_one_that_is_down_is_a_502_in_openais_envelope(client: TestClient, server: OpenAIServer) -> None:
    server.status = (500, {}, {"error": {"message": f"broken {KEY}"}})
    answer = client.post("/v1/chat/completions", json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "bad_gateway")
    compared = client.post("/api/models/compare", json={"prompt": "Hi", "models": ["Far"]}).text
    assert "bad_gateway" in compared


def test_the_key_is_in_no_answer_and_no_file(client: TestClient, tmp_path: Path) -> None:
    client.post("/v1/chat/completions", json=ASK)
    for path in (
        "/api/models",
        "/api/models/Far",
        "/api/models/Far/card",
        "/v1/models",
        "/api/system",
        "/models",
        "/try",
    ):
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert KEY not in answer.text
    assert "Far" in client.get("/models").text
    written = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert b"Far" in written
    assert KEY.encode() not in written


def test_the_registry_follows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_KEY", KEY)
    file = write_file(tmp_path / "endpoints.toml", "http://one.example/v1")

    def listed() -> list[tuple[str, str, tuple[str, ...]]]:
        container = build_container(Settings(data_dir=tmp_path / "data", endpoints=file))
        try:
            from terakoya.domain.models import ModelMarks

            models = container.models.list()
            if models and not models[0].tags:
                container.models.mark("Far", ModelMarks(tags=("kept",)))
            return [(model.name, model.source, model.tags) for model in models]
        finally:
            container.engine.dispose()

    assert listed() == [("Far", "external:http://one.example/v1", ())]
    write_file(file, "http://two.example/v1")
    assert listed() == [("Far", "external:http://two.example/v1", ("kept",))]
    file.write_text("")
    assert listed() == []


def test_a_name_that_is_taken_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from terakoya.domain.tasks import NewModel

    monkeypatch.setenv("FAR_KEY", KEY)
    container = build_container(Settings(data_dir=tmp_path / "data"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    container.models._repository.save_model(NewModel("far", "base", folder, None, "llama", 1, "mit", "folder:x"))
    container.engine.dispose()
    with pytest.raises(Conflict, match="'Far' has the name of a model"):
        build_container(Settings(data_dir=tmp_path / "data", endpoints=write_file(tmp_path / "e.toml", "http://x/v1")))
