"""The routes of chains over real services: shapes of answers, statuses of refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.chain_links import add_chained_model, flip_a_byte

from terakoya.domain.tasks import NewModel
from web_app import ROWS, web_client

CHAIN_ID = "chain_01kb2x0000000000000000000a"
MATRIX = {"tasks": [{"task": "one"}], "measures": {"loss": {"r": [[2.0], [1.0]]}}}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with web_client(tmp_path / "data") as client:
        container: Any = client.app.state.container  # type: ignore[attr-defined]
        folder = tmp_path / "tiny"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"tiny")
        models, data_dir = container.models._repository, container.data_dir
        base = models.save_model(NewModel("tiny", "base", folder, None, "llama", 100_000, "apache-2.0", "folder:made"))
        where = {"chain_id": CHAIN_ID, "base": base}
        one = add_chained_model(models, data_dir, tmp_path / "one", "one", **where)
        add_chained_model(models, data_dir, tmp_path / "two", "two", after=one, metrics={"matrix": MATRIX}, **where)
        client.put("/api/datasets/rows", content=ROWS)
        yield client


def test_a_chain_is_listed_shown_and_checked(client: TestClient) -> None:
    (listed,) = client.get("/api/chains").json()["chains"]
    assert (listed["id"], listed["tasks"], listed["heads"], listed["problem"]) == (CHAIN_ID, 2, ["two"], None)
    shown = client.get("/api/chains/two").json()
    assert [link["model"]["name"] for link in shown["links"]] == ["one", "two"]
    assert shown["links"][0]["dataset"] == "rows of one"
    assert shown["erasing_costs"]
    assert client.post(f"/api/chains/{CHAIN_ID}/verify").json()["intact"] is True
    container: Any = client.app.state.container  # type: ignore[attr-defined]
    name = shown["links"][0]["link"]
    flip_a_byte(container.data_dir.chain(CHAIN_ID) / name / "replay.jsonl")
    verdict = client.post("/api/chains/one/verify").json()
    assert verdict["intact"] is False
    assert verdict["links"][0]["damages"] == [{"file": "replay.jsonl", "problem": "changed"}]


def test_the_matrix_is_the_one_of_the_model_that_is_named(client: TestClient) -> None:
    found = client.get(f"/api/chains/{CHAIN_ID}/matrix").json()
    assert (found["model"]["name"], found["measures"]) == ("two", MATRIX["measures"])
    missing = client.get("/api/chains/one/matrix")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_measured")
    assert client.get(f"/api/chains/{CHAIN_ID}/matrix?model=tiny").status_code == 422


def test_a_task_is_queued_once_and_a_second_needs_a_branch(client: TestClient) -> None:
    first = client.post(f"/api/chains/{CHAIN_ID}/extend", json={"dataset": "rows", "epochs": 1})
    assert first.status_code == 202, first.text
    second = client.post(f"/api/chains/{CHAIN_ID}/extend", json={"dataset": "rows"})
    assert (second.status_code, second.json()["code"]) == (409, "conflict")
    assert first.json()["task_id"] in second.json()["error"]
    branch = client.post("/api/chains/two/extend", json={"dataset": "rows", "branch": True})
    assert branch.status_code == 202
    begun = client.post("/api/chains", json={"model": "tiny", "dataset": "rows"})
    assert begun.status_code == 202
    request = client.get(f"/api/train/{begun.json()['task_id']}").json()["request"]
    assert request["strategy"] == "ewc"
    refused = client.delete(f"/api/chains/{CHAIN_ID}?models=true")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/chains/nothing/extend", {"dataset": "rows"}, 404),
        (f"/api/chains/{CHAIN_ID}/extend", {"dataset": "nothing"}, 404),
        (f"/api/chains/{CHAIN_ID}/extend", {"dataset": "rows", "model": "two", "base": "full"}, 422),
        (f"/api/chains/{CHAIN_ID}/extend", {"dataset": "rows", "retention": {"budget": 0}}, 422),
        (f"/api/chains/{CHAIN_ID}/extend", {"dataset": "rows", "retention": {"budget": -1}}, 422),
        (f"/api/chains/{CHAIN_ID}/extend", {"dataset": "rows", "strategy": "lora"}, 422),
        (f"/api/chains/{CHAIN_ID}/extend", {"dataset": "rows", "unknown": 1}, 422),
        (
            f"/api/chains/{CHAIN_ID}/extend",
            {"dataset": "rows", "retention": {"replay": {"share": 0, "soft_targets": True}}},
            422,
        ),
        ("/api/chains", {"model": "tiny", "dataset": "rows", "after": "two"}, 422),
        ("/api/chains/..%2f..%2fmodels/extend", {"dataset": "rows"}, 404),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_queued(
    client: TestClient, path: str, body: dict[str, Any], status: int
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert client.get("/api/tasks").json()["tasks"] == []


def test_rows_are_erased_and_a_chain_deleted(client: TestClient) -> None:
    erased = client.delete("/api/chains/two/rows").json()
    assert (erased["rows"], len(erased["links"])) == (6, 2)
    assert client.get("/api/chains/two").json()["erasing_costs"] == []
    assert client.delete("/api/chains/two").status_code == 409
    link = client.get("/api/chains/two").json()["links"][1]["link"]
    assert client.delete(f"/api/chains/two/links/{link}").status_code == 409
    assert client.delete("/api/chains/two/links/..%2fx").status_code == 404
    assert client.delete(f"/api/chains/{CHAIN_ID}?models=true").status_code == 204
    assert client.get("/api/chains").json() == {"chains": []}
    assert [model["name"] for model in client.get("/api/models").json()["models"]] == ["tiny"]
