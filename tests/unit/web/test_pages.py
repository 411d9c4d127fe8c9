from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from terakoya.domain.models import ModelInfo, ModelKind
from terakoya.domain.tasks import NewModel, Task, TaskKind, TaskState
from terakoya.web.pages import lineage_tree, suggested_pair
from web_app import web_client

PAGES = ["/train", "/runs", "/datasets", "/models", "/try", "/documents", "/ask", "/chat", "/system", "/docs", "/login"]
HTML = {"accept": "text/html"}
WEB = Path(__file__).parents[3] / "src" / "terakoya" / "web"


@pytest.fixture
def run(client: TestClient) -> Task:
    tasks = client.app.state.container.tasks  # type: ignore[attr-defined]
    resolved = {"strategy": "lora", "model": "gone", "dataset": "gone"}
    return tasks.submit(  # type: ignore[no-any-return]
        TaskKind.TRAINING, name="<script>alert(1)</script>", request={"model": "m", "dataset": "d"}, resolved=resolved
    )


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("path", [*PAGES, "/train/{run}"])
def test_each_page_is_there_in_each_language(client: TestClient, run: Task, path: str, language: str) -> None:
    answer = client.get(path.format(run=run.id), headers={"accept-language": f"fr, {language};q=0.5"})
    assert answer.status_code == 200
    assert f'<html lang="{language}">' in answer.text
    has_japanese = re.search("[ぁ-んァ-ヶ]", answer.text.replace("日本語", "")) is not None
    assert has_japanese == (language == "ja")


@pytest.mark.parametrize("path", [*PAGES, "/train/{run}"])
def test_no_page_has_inline_script_style_or_handler(client: TestClient, run: Task, path: str) -> None:
    html = client.get(path.format(run=run.id)).text
    assert not re.search(r"<script(?![^>]*\b(src=|type=\"application/json\"))", html)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", html)
    assert not re.search(r"(src|href)=\"(https?:)?//", html)


def test_each_page_knows_the_size_that_its_own_route_takes(tmp_path: Path) -> None:
    with web_client(tmp_path, document_limit_bytes=1_000_001, upload_limit_bytes=2_000_002) as client:
        assert 'data-limit="1000001"' in client.get("/documents").text
        assert 'data-limit="2000002"' in client.get("/datasets").text


def test_names_are_text_not_markup(client: TestClient, run: Task) -> None:
    for path in ("/runs", f"/train/{run.id}"):
        html = client.get(path).text
        assert "<script>alert(1)" not in html
        assert "&lt;script&gt;alert(1)" in html


def test_scripts_never_write_markup() -> None:
    for script in (WEB / "static" / "js").glob("*.js"):
        found = re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script.read_text("utf-8"))
        assert found is None, f"{script.name}: {found}"


def test_the_chosen_language_wins_over_the_browsers(client: TestClient) -> None:
    headers = {"accept-language": "en", "cookie": "terakoya_language=ja"}
    assert '<html lang="ja">' in client.get("/runs", headers=headers).text


def test_a_missing_page_is_a_page_for_people_and_an_envelope_for_programs(client: TestClient) -> None:
    page = client.get("/train/task_00000000000000000000000000", headers=HTML)
    assert page.status_code == 404
    assert "task_not_found" in page.text
    assert page.headers["content-type"].startswith("text/html")
    assert client.get("/nope").json()["code"] == "not_found"


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    for path in ("/train", "/api/models", "/static/js/run.js", "/nope"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-request-id"].startswith("req_")
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("path", ["..%2fapp.py", "%2e%2e/app.py", "js/..%2f..%2f..%2fapp.py", "....//app.py"])
def test_static_files_stay_in_their_folder(client: TestClient, path: str) -> None:
    assert client.get(f"/static/{path}").status_code == 404


def model(identifier: str, parent: str | None = None, kind: ModelKind = ModelKind.BASE) -> ModelInfo:
    return ModelInfo(identifier, identifier, kind, "llama", 1, 1, "0", "s", "l", datetime.now(UTC), parent)


def test_models_stand_under_what_they_were_built_on() -> None:
    newest_first = [model("b2", "b"), model("a1", "a"), model("b"), model("a"), model("orphan", "gone")]
    tree = [(root.model.id, [child.model.id for child in root.children]) for root in lineage_tree(newest_first)]
    assert tree == [("b", ["b2"]), ("a", ["a1"]), ("orphan", [])]


def test_the_newest_tuned_model_is_compared_with_its_base() -> None:
    assert suggested_pair([model("b2", "b"), model("a1", "a"), model("b"), model("a")]) == ("b", "b2")
    assert suggested_pair([model("orphan", "gone"), model("a")]) is None


def test_every_state_has_a_colour_or_the_neutral_one() -> None:
    css = (WEB / "static" / "css" / "terakoya.css").read_text("utf-8")
    assert all(f".state-{state}" in css for state in (TaskState.RUNNING, TaskState.FAILED, TaskState.SUCCEEDED))


@pytest.mark.parametrize("card", [{}, {"strategy": "lora"}])
def test_models_are_shown_whatever_their_cards_hold(tmp_path: Path, card: dict[str, str]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    model = NewModel("starter", "base", folder, None, "llama", 135_000_000, "Apache-2.0", "folder:made", card)
    with web_client(tmp_path / "data") as client:
        client.app.state.container.models._repository.save_model(model)  # type: ignore[attr-defined]
        answer = client.get("/models")
    assert answer.status_code == 200
    assert "starter" in answer.text
