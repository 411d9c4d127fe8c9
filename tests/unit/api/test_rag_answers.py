"""The routes over a real application, with passages that are given and traces in a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rag_stand_ins import DIMENSION, ScriptedChat, WordEmbedder, honest
from terakoya.api import rag_answers
from terakoya.api.dependencies import get_rag_app
from terakoya.domain.document_ports import DocumentRepository
from terakoya.domain.documents import CollectionInfo, Hit, Passage
from terakoya.domain.ports import ModelRepository
from terakoya.exceptions import CollectionNotFound, InvalidQuery, ModelNotFound, Unavailable
from terakoya.rag.app import RAGApplication
from terakoya.rag.retrieval.analysis import language_of, terms_of
from terakoya.rag.retrieval.retriever import Retrieved, Retriever
from terakoya.storage.database import open_database
from terakoya.storage.files import DataDir, new_id
from terakoya.storage.probe_repository import SqlProbeRepository
from terakoya.storage.trace_repository import SqlTraceRepository
from terakoya.web import errors

TEXT = "Returns\n\nLamps may be returned within 21 days of delivery. Cushions cannot be returned once opened."
QUESTION = "Within how many days of delivery may lamps be returned?"


class GivenDocuments:
    def find_collection(self, id_or_name: str) -> CollectionInfo:
        if id_or_name != "default":
            raise CollectionNotFound(f"no collection {id_or_name!r}")
        return CollectionInfo("collection_1", "default", "e5", "a" * 64, DIMENSION, 9.0, datetime.now(UTC), 1, 40)


class GivenModels:
    def load_model(self, id_or_name: str) -> Any:
        raise ModelNotFound(f"no model {id_or_name!r}")


class GivenPassages:
    def __init__(self) -> None:
        self.is_there = True

    async def search(self, collection: CollectionInfo, query: str, **options: Any) -> Retrieved:
        if not any(map(str.isalnum, query)) or len(query) > 8000:
            raise InvalidQuery(f"a question has 1 to 8,000 characters; got {len(query)}")
        if not self.is_there:
            raise Unavailable("the index is being rebuilt")
        vector = (await WordEmbedder().embed_queries("e5", [query]))[0]
        hits = []
        if "lamps" in query:
            passage = Passage("p1", "document_1", 1, 0, 100, 100 + len(TEXT), TEXT, 2, ("Rules", "Returns"))
            hits.append(Hit(passage, "Handbook", 1.0, 0.92, 1, 20.0, 1))
        return Retrieved(query, language_of(query), terms_of(query), vector, tuple(hits), {"dense": 0.001})


@pytest.fixture
def passages() -> GivenPassages:
    return GivenPassages()


@pytest.fixture
def client(tmp_path: Path, passages: GivenPassages) -> Iterator[TestClient]:
    data_dir = DataDir(tmp_path / "data").create()
    engine = open_database(data_dir)
    application = RAGApplication(
        documents=cast(DocumentRepository, GivenDocuments()),
        retriever=cast(Retriever, passages),
        embedder=WordEmbedder(),
        models=cast(ModelRepository, GivenModels()),
        chat=ScriptedChat(honest),
        traces=SqlTraceRepository(engine),
        probes=SqlProbeRepository(engine),
        new_id=new_id,
    )
    app = FastAPI()
    errors.install(app)
    app.include_router(rag_answers.router)
    app.dependency_overrides[get_rag_app] = lambda: application
    with TestClient(app) as client:
        yield client
    engine.dispose()


def events_of(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_search_gives_passages_and_a_trace(client: TestClient) -> None:
    found = client.post("/rag/search", json={"query": "lamps"}).json()
    (hit,) = found["hits"]
    assert hit == {
        "document_id": "document_1",
        "passage_id": "p1",
        "title": "Handbook",
        "page": 2,
        "heading": ["Rules", "Returns"],
        "text": TEXT,
        "start": 100,
        "end": 100 + len(TEXT),
        "score": 1.0,
    }
    trace = client.get(f"/rag/traces/{found['trace_id']}").json()
    assert (trace["kind"], trace["query"], trace["collection_id"]) == ("search", "lamps", "collection_1")


def test_a_question_is_answered_with_citations(client: TestClient) -> None:
    answer = client.post("/rag/query", json={"query": QUESTION}).json()
    assert answer.keys() == {
        *("answer", "mode", "citations", "verdict", "trace_id", "model", "evidence", "details"),
    }
    assert (answer["mode"], answer["verdict"], answer["model"]) == ("extractive", "answered", None)
    citation = answer["citations"][0]
    assert citation["quote"] == TEXT[citation["start"] - 100 : citation["end"] - 100]
    assert answer["answer"][citation["answer_start"] : citation["answer_end"]] == citation["quote"]
    assert client.get("/rag/query", params={"query": QUESTION}).json()["answer"] == answer["answer"]


def test_what_is_not_in_the_documents_has_no_answer(client: TestClient) -> None:
    answer = client.post("/rag/query", json={"query": "Who painted the ceiling?"}).json()
    assert (answer["verdict"], answer["answer"], answer["citations"]) == ("not_in_documents", "", [])


def test_the_stream_ends_with_the_whole(client: TestClient) -> None:
    response = client.post("/rag/query/stream", json={"query": QUESTION})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response.text)
    assert [event["type"] for event in events][:1] + [event["type"] for event in events][-2:] == [
        *("hit", "verdict", "done"),
    ]
    assert "".join(event["text"] for event in events if event["type"] == "token") == events[-1]["answer"]["answer"]


@pytest.mark.parametrize("path", ["/rag/search", "/rag/query", "/rag/query/stream"])
@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"query": ""}, 422, "invalid_query"),
        ({"query": "?!。"}, 422, "invalid_query"),
        ({"query": "x" * 100_000}, 422, "invalid_query"),
        ({"query": "lamps", "collection": "nowhere"}, 404, "collection_not_found"),
        ({"query": "lamps", "top_k": 0}, 422, "validation_error"),
        ({"query": "lamps", "top_k": 51}, 422, "validation_error"),
        ({"query": "lamps", "colection": "default"}, 422, "validation_error"),
        ({}, 422, "validation_error"),
    ],
)
def test_bad_questions_are_refused_with_a_reason(
    path: str, fields: dict[str, Any], status: int, code: str, client: TestClient
) -> None:
    response = client.post(path, json=fields)
    assert (response.status_code, response.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"mode": "generative"}, 422, "invalid_config"),
        ({"mode": "extractive", "model": "writer"}, 422, "invalid_config"),
        ({"mode": "auto", "model": "writer"}, 404, "model_not_found"),
        ({"mode": "poetic"}, 422, "validation_error"),
    ],
)
def test_a_choice_that_contradicts_itself_is_refused(
    fields: dict[str, Any], status: int, code: str, client: TestClient
) -> None:
    for path in ("/rag/query", "/rag/query/stream"):
        response = client.post(path, json={"query": QUESTION, **fields})
        assert (response.status_code, response.json()["code"]) == (status, code)


def test_an_unavailable_index_is_a_503(client: TestClient, passages: GivenPassages) -> None:
    passages.is_there = False
    assert client.post("/rag/query/stream", json={"query": QUESTION}).status_code == 503


def test_a_trace_that_is_gone_is_a_404(client: TestClient) -> None:
    assert client.get("/rag/traces/trace_nothing").status_code == 404
