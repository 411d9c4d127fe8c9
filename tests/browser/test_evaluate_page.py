"""The page Evaluate in a real browser: the page is the server's, the figures behind it are written here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from browser.pictures import picture
from integration.servers import Server, running_server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

MADE = "2026-06-01T10:00:00Z"
HOSTILE = "<img src=x onerror=window.hit=1>%(name)s"
INTERVAL = {"value": 0.731, "low": 0.702, "high": 0.76}
FIGURES = {
    **dict.fromkeys(("ndcg_at_10", "recall_at_10", "mrr", "found_first", "answered", "correct"), INTERVAL),
    "citation_precision": INTERVAL,
    "refused": None,
    "abstention": {"auc": INTERVAL},
    "latency_ms": {"search": {"p50": INTERVAL, "p95": INTERVAL}, "answer": None},
}
RETRIEVAL = {"fusion": "rrf", "dense_weight": 0.3, "rrf_k": 20, "candidates": 80}
COLLECTION = {"id": "coll_1", "name": "default", "documents": 2, "passages": 9, "retrieval": RETRIEVAL}
SET = {"id": "qset_1", "name": HOSTILE, "origin": "generated", "questions": 1200, "created_at": MADE}


def compared(verdict: str) -> dict[str, Any]:
    return {"verdict": verdict, "difference": {"value": 0.031}, "p": 0.004}


EVALUATION = {
    "id": "eval_1",
    "question_set": HOSTILE,
    "created_at": MADE,
    "report": {
        "questions": 1200,
        "left_out": 3,
        "configurations": [{"name": HOSTILE, "figures": FIGURES}, {"name": "rrf", "figures": FIGURES}],
        "comparison": {"ndcg_at_10": compared("better"), "mrr": compared("no_significant_difference")},
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("evaluate") / "data", TERAKOYA_LANGUAGE="auto") as server:
        yield server


@pytest.fixture
def started(page: Page) -> list[dict[str, Any]]:
    bodies: list[dict[str, Any]] = []

    def answer(route: Route) -> None:
        path = route.request.url.split("/rag/")[1]
        if path == "evaluate":
            bodies.append(json.loads(route.request.post_data or ""))
            body: Any = {"error": f"busy {HOSTILE}", "code": "unavailable"}
            route.fulfill(status=503, body=json.dumps(body))
            return
        known = {"collections": [COLLECTION]}
        if path.startswith("question-sets"):
            known = {"question_sets": [SET]}
        if path.startswith("evaluations"):
            known = {"evaluations": [EVALUATION]}
        route.fulfill(body=json.dumps(known), content_type="application/json")

    page.route("**/rag/**", answer)
    return bodies


@pytest.mark.parametrize("language", ["en", "ja"])
def test_figures_and_verdicts_are_shown_in_words(
    server: Server, page: Page, started: list[dict[str, Any]], complaints: list[str], tmp_path: Path, language: str
) -> None:
    page.context.add_cookies([{"name": "terakoya_language", "value": language, "url": server.url}])
    page.goto(f"{server.url}/evaluate")
    article = page.locator("article")
    words = {"en": ("is better than", "no significant difference"), "ja": ("より良い結果", "有意な差はありません")}
    for text in words[language]:
        expect(article).to_contain_text(text)
    expect(article).to_contain_text("0.731 (0.702–0.760)")
    expect(article).to_contain_text(HOSTILE)
    picture(page, f"evaluate-{language}")
    assert page.evaluate("window.hit") is None
    assert complaints == []


def test_the_fields_begin_as_the_collection_is_set_and_both_sides_are_sent(
    server: Server, page: Page, started: list[dict[str, Any]]
) -> None:
    page.goto(f"{server.url}/evaluate")
    expect(page.locator("#first-fusion")).to_have_value("rrf")
    expect(page.locator("#first-rrf_k")).to_have_value("20")
    expect(page.locator("#second")).to_be_hidden()
    page.check("#compare")
    page.select_option("#second-fusion", "weighted")
    page.select_option("#answers", "none")
    page.click("#start")
    expect(page.locator("#evaluate-error")).to_contain_text(HOSTILE)
    (body,) = started
    assert body["questions"] == "qset_1"
    assert [one["retrieval"]["fusion"] for one in body["configurations"]] == ["rrf", "weighted"]
    assert {one["answers"] for one in body["configurations"]} == {"none"}
    assert body["configurations"][0]["name"] != body["configurations"][1]["name"]
    assert page.evaluate("window.hit") is None
    expect(page.locator("#start")).to_be_enabled()
