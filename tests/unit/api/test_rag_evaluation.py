"""The routes of evaluation over a whole application; nothing works in the background, so evaluations stay queued."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

ROWS = b'{"question": "Where?", "answer": "here"}\n'


@pytest.fixture
def collection(client: TestClient) -> str:
    """A collection without documents, of a name of its own."""
    documents = client.app.state.container.documents._documents  # type: ignore[attr-defined]
    name = f"shop-{len(documents.list_collections())}"
    documents.add_collection(name, embedder_id="e5", embedder_sha256="a" * 64, dimension=8)
    return name


def send(client: TestClient, content: bytes = ROWS, **fields: str) -> Any:
    return client.post("/rag/question-sets", files={"file": ("asked.jsonl", content)}, data=fields)


def test_questions_come_in_are_listed_read_and_deleted(client: TestClient, collection: str) -> None:
    answer = send(client, collection=collection, name="mine")
    assert answer.status_code == 201, answer.text
    added = answer.json()
    assert added.items() >= {"name": "mine", "collection": collection, "origin": "imported", "questions": 1}.items()
    assert [one["id"] for one in client.get(f"/rag/question-sets?collection={collection}").json()["question_sets"]] == [
        added["id"]
    ]
    (question,) = client.get("/rag/question-sets/mine/questions").json()["questions"]
    assert question == {"question": "Where?", "expected": [], "answers": ["here"], "answerable": True}
    assert client.delete("/rag/question-sets/mine").status_code == 204
    assert client.get("/rag/question-sets/mine").status_code == 404


def test_a_file_goes_by_its_own_name(client: TestClient, collection: str) -> None:
    assert send(client, collection=collection).json()["name"] == "asked"
    assert client.delete("/rag/question-sets/asked").status_code == 204


@pytest.mark.parametrize(
    ("content", "fields", "status", "says"),
    [
        (ROWS, {"collection": "nowhere"}, 404, "no collection 'nowhere'"),
        (ROWS, {"colection": "x"}, 422, "a field 'colection'"),
        (ROWS, {"name": "../x"}, 422, "cannot be used"),
        (ROWS, {"name": "x" * 101}, 422, "1 to 100 characters"),
        (b"{}\n", {}, 422, "row 1: the question is empty"),
        (b"\x00\x01", {}, 422, ""),
        (b"question;document\n", {}, 422, "no question"),
    ],
)
def test_what_cannot_be_imported_is_said_and_leaves_nothing(
    client: TestClient, collection: str, content: bytes, fields: dict[str, str], status: int, says: str
) -> None:
    answer = send(client, content, **{"collection": collection} | fields)
    assert (answer.status_code, says in answer.json()["error"]) == (status, True), answer.text
    assert client.get("/rag/question-sets").json()["question_sets"] == []


def test_an_evaluation_of_nothing_is_refused(client: TestClient, collection: str) -> None:
    assert client.post("/rag/evaluate", json={"questions": "none"}).status_code == 404
    send(client, collection=collection, name="asked")
    answer = client.post("/rag/evaluate", json={"questions": "asked"})
    assert (answer.status_code, "holds no document" in answer.json()["error"]) == (409, True)
    made = client.post("/rag/question-sets/generate", json={"name": "made", "collection": collection})
    assert (made.status_code, "no ready document" in made.json()["error"]) == (422, True)
    client.delete("/rag/question-sets/asked")


@pytest.mark.parametrize(
    "configuration",
    [
        {"name": "x", "retrieval": {"fusionn": "rrf"}},
        {"name": "x", "retrieval": {"fusion": "best"}},
        {"name": "x", "retrieval": {"candidates": 10**9}},
        {"name": "x", "answers": "all"},
        {"name": ""},
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_name(client: TestClient, configuration: dict[str, Any]) -> None:
    answer = client.post("/rag/evaluate", json={"questions": "asked", "configurations": [configuration]})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


def test_how_a_collection_is_searched_is_set_and_shown(client: TestClient, collection: str) -> None:
    settings = {"fusion": "weighted", "dense_weight": 0.3, "rrf_k": 60, "candidates": 80}
    changed = client.patch(f"/rag/collections/{collection}", json={"retrieval": settings})
    assert changed.json()["retrieval"] == settings
    assert client.get(f"/rag/collections/{collection}").json()["retrieval"] == settings
    assert client.patch(f"/rag/collections/{collection}", json={"retrieval": {"k": 1}}).status_code == 422
