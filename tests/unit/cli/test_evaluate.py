from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from terakoya.cli import connection, follow
from terakoya.cli.evaluate import parse_settings
from terakoya.cli.main import app
from terakoya.exceptions import InvalidConfig

INTERVAL = {"value": 0.5, "low": 0.4, "high": 0.6}
SPREAD = {"p50": INTERVAL, "p95": INTERVAL}
FIGURES = {
    **dict.fromkeys(("ndcg_at_10", "recall_at_10", "mrr", "found_first", "answered", "correct", "refused"), INTERVAL),
    "citation_precision": None,
    "abstention": None,
    "latency_ms": {"search": SPREAD, "answer": None},
}
COMPARED = {"verdict": "no_significant_difference", "words": "nDCG@10 +0.000", "difference": INTERVAL, "p": 1.0}


class GivenEvaluations:
    def __init__(self) -> None:
        self.started: list[Any] = []

    def question_sets(self) -> list[dict[str, Any]]:
        return [{"id": "qset_1", "name": "shop", "collection_id": "coll_1"}]

    def start(self, questions: str, *configurations: dict[str, Any]) -> str:
        self.started += configurations
        return "task_1"

    def get(self, evaluation_id: str) -> dict[str, Any]:
        configurations = [{"name": one["name"], "figures": FIGURES} for one in self.started]
        comparison = {"ndcg_at_10": COMPARED} if len(configurations) == 2 else None
        report = {"questions": 9, "left_out": 1, "configurations": configurations, "comparison": comparison}
        return {"id": "eval_1", "question_set": "shop", "report": report}


class GivenServer:
    def __init__(self) -> None:
        self.evaluations = GivenEvaluations()
        self.collections = self

    def get(self, id_or_name: str) -> dict[str, Any]:
        return {"retrieval": {"fusion": "dbsf", "candidates": 50}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> GivenServer:
    given = GivenServer()

    @contextmanager
    def connect() -> Iterator[Any]:
        yield connection.Connection(given, is_temporary=False)  # type: ignore[arg-type]

    monkeypatch.setattr(connection, "connect", connect)
    monkeypatch.setattr(follow, "follow", lambda connection, task_id: None)
    return given


def test_settings_are_compared_with_the_collections_own_in_words(server: GivenServer) -> None:
    result = CliRunner().invoke(
        app, ["evaluate", "run", "shop", "--with", "collection", "--against", "fusion=rrf,dense_weight=0.6"]
    )
    assert result.exit_code == 0, result.output
    own, other = server.evaluations.started
    assert own["retrieval"] == {"fusion": "dbsf", "candidates": 50}
    assert other["retrieval"] == {"fusion": "rrf", "dense_weight": 0.6}
    assert "No significant difference" in result.output
    assert "0.500 (0.400 .. 0.600)" in result.output
    assert "1 questions could not be judged" in result.output


def test_two_models_are_compared_as_writers(server: GivenServer) -> None:
    CliRunner().invoke(app, ["evaluate", "run", "shop", "--model", "base", "--against-model", "tuned"])
    assert [(one["model"], one["answers"]) for one in server.evaluations.started] == [
        ("base", "generative"),
        ("tuned", "generative"),
    ]
    assert server.evaluations.started[0]["name"] != server.evaluations.started[1]["name"]


def test_settings_are_written_as_names_and_values() -> None:
    assert parse_settings("fusion=rrf, candidates=80,dense_weight=0.5") == {
        "fusion": "rrf",
        "candidates": 80,
        "dense_weight": 0.5,
    }
    for text in ("rrf", "fusion=", "=1", ""):
        with pytest.raises(InvalidConfig, match="name=value"):
            parse_settings(text)


def test_an_evaluation_is_printed_as_json_for_programs(server: GivenServer) -> None:
    result = CliRunner().invoke(app, ["evaluate", "show", "eval_1", "--json"])
    assert json.loads(result.stdout)["id"] == "eval_1"
