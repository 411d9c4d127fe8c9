"""Merge and export tasks over HTTP: what comes out is opened again by its own engine, and what differs is not kept."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.integration.servers import Server, running_server
from tests.tiny_model import build_tiny_adapter, build_tiny_model

from terakoya import Client
from terakoya.domain.tasks import NewModel
from terakoya.storage.database import open_database
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("export")
    data_dir = DataDir(folder / "data").create()
    engine = open_database(data_dir)
    models = SqlModelRepository(engine, data_dir)
    build_tiny_model(folder / "base")
    build_tiny_adapter(folder / "tuned", folder / "base")
    card = {"provenance": "Dequantised from a Q4_1 GGUF."}
    base = models.save_model(
        NewModel("base", "base", folder / "base", None, "llama", 1, "MIT", "folder:base", card=card)
    )
    models.save_model(NewModel("tuned", "adapter", folder / "tuned", base.id, "llama", 1, "MIT", "folder:tuned"))
    engine.dispose()
    with running_server(data_dir.root, TERAKOYA_MODEL_THREADS="1") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def finished(client: Client, task_id: str) -> dict[str, object]:
    events = list(client.watch(task_id))
    assert events[-1]["status"] == "succeeded", client.tasks.logs(task_id) + str(events[-1])
    return client.models.get(events[-1]["model_id"])


def said(client: Client, model: str) -> str:
    events = client.compare("寺子屋?", [model], max_tokens=8)
    return "".join(event.get("delta", "") for event in events)


def test_an_adapter_is_merged_exported_and_answers_as_it_did(client: Client, server: Server) -> None:
    merged = finished(client, client.models.merge("tuned", name="whole"))
    assert (merged["kind"], merged["name"]) == ("merged", "whole")
    assert len(merged["lineage"]) == 3  # type: ignore[arg-type]
    check = merged["card"]["check"]  # type: ignore[index]
    assert (check["passed"], check["prompts"], check["top1_agreement"]) == (True, 100, 1.0)
    assert "Q4_1" in merged["card"]["provenance"]  # type: ignore[index]

    exported = finished(client, client.models.export("tuned", "gguf-f16"))
    check = exported["card"]["check"]  # type: ignore[index]
    assert check["passed"]
    assert check["top1_agreement"] >= 0.99
    assert check["tokenized_alike"] == 100
    names = {file["name"] for file in client.models.files("tuned-gguf-f16")}
    assert {"model.gguf", "Modelfile", "tokenizer.json"} <= names
    start = httpx.get(f"{server.url}/api/models/tuned-gguf-f16/files/model.gguf").content[:4]
    assert start == b"GGUF"
    assert httpx.get(f"{server.url}/api/models/tuned-gguf-f16/files/..%2f..%2fterakoya.db").status_code == 404
    card = client.models.card("tuned-gguf-f16")
    assert "- Made of: tuned" in card
    assert "Q4_1" in card
    assert said(client, "tuned-gguf-f16")
    assert said(client, "whole")

    refused = httpx.delete(f"{server.url}/api/models/tuned")
    assert refused.status_code == 409
    assert "whole" in refused.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("base/merge", {}, "whole model"),
        ("tuned/export", {"format": "gguf-q2_k"}, "gguf-q8_0"),
        ("tuned/export", {"format": "gguf-q4_k_m"}, "llama-quantize model.gguf"),
        ("tuned/merge", {"name": "base"}, "already"),
        ("nobody/merge", {}, "no model"),
        ("tuned/merge", {"into": "x"}, "into"),
    ],
)
def test_what_cannot_be_is_refused_at_once(server: Server, path: str, body: dict[str, str], said: str) -> None:
    answer = httpx.post(f"{server.url}/api/models/{path}", json=body)
    assert 400 <= answer.status_code < 500
    assert said in answer.text


def test_what_people_say_of_a_model_is_kept_and_the_engine_obeys(client: Client, server: Server) -> None:
    marked = client.models.mark("tuned", notes="for the shop", tags=["a", "b", "a"], stage="approved")
    assert (marked["notes"], marked["tags"], marked["stage"], marked["engine"]) == (
        "for the shop",
        ["a", "b"],
        "approved",
        "auto",
    )
    client.models.mark("tuned", engine="pytorch")
    asked = {"model": "tuned", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=asked, timeout=100).json()
    assert answer["system_fingerprint"] == "pytorch"
    assert client.models.mark("tuned", engine="auto")["stage"] == "approved"
    assert httpx.patch(f"{server.url}/api/models/tuned", json={"stage": "live"}).status_code == 422


def test_a_model_is_opened_ahead_and_closed(server: Server) -> None:
    opened = httpx.post(f"{server.url}/api/models/tuned/load", timeout=100).json()
    assert opened["engine"] == "llama.cpp"
    assert httpx.post(f"{server.url}/api/models/tuned/unload", timeout=100).status_code == 204
