"""A reranker from the import folder to scores, through a real server: API, client and command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.integration.servers import run_cli, running_server
from tests.tiny_reranker import build_tiny_reranker

from terakoya import Client

pytestmark = pytest.mark.slow


def test_texts_are_reranked_by_all_doors(tmp_path: Path) -> None:
    data, imports = tmp_path / "data", tmp_path / "imports"
    imports.mkdir()
    build_tiny_reranker(imports / "judge")
    with running_server(data, TERAKOYA_IMPORT_DIR=str(imports)) as server:
        pulled = run_cli(data, "models", "pull", "folder:judge")
        assert pulled.returncode == 0, pulled.stderr
        texts = ["the tea", "the ship is a ship", "寺子屋"]
        with Client(server.url) as client:
            assert client.models.get("judge")["kind"] == "reranker"
            found = client.models.rerank("judge", "where is the ship ?", texts)
        scores = [result["relevance_score"] for result in found]
        assert scores == sorted(scores, reverse=True)
        assert sorted(result["index"] for result in found) == [0, 1, 2]
        said = run_cli(data, "models", "rerank", "judge", "where is the ship ?", *texts, "--top", "1", "--json")
        assert json.loads(said.stdout) == found[:1]
        refused = run_cli(data, "chat", "judge")
        assert refused.returncode != 0
