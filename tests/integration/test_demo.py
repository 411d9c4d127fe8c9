"""``terakoya demo`` on a real server with the real models, twice; training is cut to a step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.servers import run_cli, running_server

from terakoya import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SHORT = ("demo", "--max-steps", "1", "--max-examples", "2", "--json")


def demo(data_dir: Path) -> dict[str, Any]:
    ended = run_cli(data_dir, *SHORT, timeout=400)
    last: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert ended.returncode == 0, (last, ended.stderr)
    return last


def test_the_demo_goes_the_whole_way_and_again_with_what_is_there(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with running_server(data_dir) as server, Client(server.url) as client:
        first = demo(data_dir)
        assert first["succeeded"]
        assert [stage["stage"] for stage in first["stages"]] == ["models", "training", "chat", "documents", "questions"]
        assert all(stage["seconds"] >= 0 for stage in first["stages"])
        verdicts = [answer["verdict"] for answer in first["answers"]]
        assert verdicts == ["answered"] * 4 + ["not_in_documents"]
        assert all(any(c["verified"] for c in answer["citations"]) for answer in first["answers"][:4])
        documents = client.documents.list(collection="demo")
        assert {document["status"] for document in documents} == {"ready"}
        assert len(documents) == 13

        second = demo(data_dir)
        assert second["model_id"] != first["model_id"]
        assert {document["id"] for document in client.documents.list(collection="demo")} == {
            document["id"] for document in documents
        }
        assert {"demo-sorter", "demo-sorter-2"} <= {model["name"] for model in client.models.list()}
