"""The registry as clients see it: lineage with the tasks that made each link, hashes, marks, and why one stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from terakoya.domain.models import ModelInfo
from terakoya.domain.tasks import NewModel, TaskKind
from web_app import web_client

CONFIGURATION = {"strategy": "lora", "learning_rate": 1e-3}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with web_client(tmp_path / "data") as made:
        yield made


def save(client: TestClient, root: Path, name: str, kind: str, parent: str | None, **card: Any) -> ModelInfo:
    container: Any = client.app.state.container  # type: ignore[attr-defined]
    folder = root / name
    folder.mkdir()
    (folder / "config.json").write_text(f'{{"name": "{name}"}}')
    task = container.tasks.submit(TaskKind.PULL, name=name, request={}, resolved={})
    model = NewModel(name, kind, folder, parent, "llama", 1, "unknown", f"task:{task.id}", card)
    saved: ModelInfo = container.models._repository.save_model(model, task_id=task.id)
    return saved


@pytest.fixture
def line(client: TestClient, tmp_path: Path) -> list[ModelInfo]:
    base = save(client, tmp_path, "base", "base", None)
    card = {
        "strategy": "lora",
        "base": {"id": base.id, "name": "base", "sha256": base.content_sha256, "source": base.source},
        "dataset": {"id": "d", "name": "d", "sha256": "d" * 64},
        "configuration": CONFIGURATION,
        "effective": {"steps": 3},
    }
    tuned = save(client, tmp_path, "tuned", "adapter", base.id, **card)
    merged = save(client, tmp_path, "tuned-merged", "merged", tuned.id)
    return [base, tuned, merged, save(client, tmp_path, "tuned-gguf", "export", merged.id)]


def test_the_line_runs_from_the_base_over_run_and_merge_to_the_export(
    client: TestClient, line: list[ModelInfo]
) -> None:
    export = client.get("/api/models/tuned-gguf").json()
    assert export["lineage"] == [model.id for model in line]
    assert [(step["name"], step["kind"], step["task_id"]) for step in export["history"]] == [
        (model.name, model.kind, model.task_id) for model in line
    ]
    assert client.get("/api/models/base").json()["used_by"] == ["tuned"]


def test_data_and_settings_of_a_run_have_their_hashes(
    client: TestClient, line: list[ModelInfo], tmp_path: Path
) -> None:
    tuned = client.get("/api/models/tuned").json()
    assert tuned["data_sha256"] == "d" * 64
    assert len(tuned["configuration_sha256"]) == 64
    again = save(client, tmp_path, "again", "adapter", line[0].id, configuration=dict(reversed(CONFIGURATION.items())))
    other = save(client, tmp_path, "other", "adapter", line[0].id, configuration=CONFIGURATION | {"learning_rate": 1})
    assert again.configuration_sha256 == tuned["configuration_sha256"] != other.configuration_sha256
    assert client.get("/api/models/base").json()["configuration_sha256"] is None


def test_what_others_are_built_on_is_not_deleted(client: TestClient, line: list[ModelInfo]) -> None:
    refused = client.delete("/api/models/tuned")
    assert refused.status_code == 409
    assert "'tuned-merged' is built on" in refused.json()["error"]
    for model in reversed(line):
        container: Any = client.app.state.container  # type: ignore[attr-defined]
        container.tasks.cancel(model.task_id)
        assert client.delete(f"/api/models/{model.id}").status_code == 204


def test_a_person_says_what_the_source_does_not(client: TestClient, line: list[ModelInfo]) -> None:
    marks = {"license": "Apache-2.0", "notes": "good", "tags": ["a", "b"], "stage": "approved", "engine": "pytorch"}
    marked = client.patch("/api/models/base", json=marks).json()
    assert {name: marked[name] for name in marks} == marks
    for bad in ({"license": ""}, {"license": "x" * 201}, {"stage": "done"}, {"url": "x"}):
        assert client.patch("/api/models/base", json=bad).status_code == 422


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_page_shows_line_marks_and_hashes(client: TestClient, line: list[ModelInfo], language: str) -> None:
    client.patch("/api/models/tuned", json={"tags": ["mailroom"], "notes": "<b>good", "stage": "approved"})
    page = client.get("/models", headers={"accept-language": language}).text
    assert "&lt;b&gt;good" in page
    assert "mailroom" in page
    assert "d" * 64 in page
    assert f"/train/{line[1].task_id}" in page
    assert page.count("data-marks=") == len(line)
    assert ("承認済み" if language == "ja" else "approved") in page
