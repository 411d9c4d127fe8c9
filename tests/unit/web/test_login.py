from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from terakoya.api import datasets, models, system, tasks, training
from terakoya.web import login, pages
from terakoya.web.login import local_path
from terakoya.web.middleware import SESSION_COOKIE
from web_app import web_client

KEY = "a-long-and-secret-key"
ORIGIN = {"origin": "http://localhost"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with web_client(tmp_path / "data", api_keys=(KEY,)) as client:
        yield client


def test_without_a_key_nothing_but_the_door_is_open(client: TestClient) -> None:
    parts = (training, tasks, datasets, models, system, login, pages)
    routes = [route for part in parts for route in part.router.routes if isinstance(route, APIRoute)]
    paths = {route.path for route in routes if "GET" in route.methods} | {"/openapi.json", "/nope"}
    closed = {path for path in paths if client.get(path, follow_redirects=False).status_code == 401}
    assert paths - closed == {"/healthz", "/login", "/favicon.ico"}
    assert client.get("/static/js/login.js").status_code == 200


def test_a_person_without_a_key_is_sent_to_the_door(client: TestClient) -> None:
    answer = client.get("/models", headers={"accept": "text/html"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/models")


@pytest.mark.parametrize("value", [f"Bearer {KEY}", f"bearer {KEY}"])
def test_a_key_opens(client: TestClient, value: str) -> None:
    assert client.get("/api/models", headers={"authorization": value}).status_code == 200


@pytest.mark.parametrize("value", ["Bearer wrong", "Bearer", f"Basic {KEY}", KEY, f"Bearer {KEY} x", ""])
def test_anything_else_does_not(client: TestClient, value: str) -> None:
    answer = client.get("/api/models", headers={"authorization": value})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("carrier", [{"x-api-key": KEY}, {"cookie": f"{SESSION_COOKIE}={KEY}"}, {"api-key": KEY}])
def test_a_key_opens_by_no_other_way(client: TestClient, carrier: dict[str, str]) -> None:
    assert client.get("/api/models", headers=carrier).status_code == 401
    assert client.get(f"/api/models?api_key={KEY}&key={KEY}").status_code == 401


def test_signing_in_gives_a_session_that_scripts_cannot_read_and_signing_out_ends_it(client: TestClient) -> None:
    wrong = client.post("/login", json={"key": "wrong"}, headers=ORIGIN)
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    answer = client.post("/login", json={"key": KEY}, headers=ORIGIN)
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 204
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert KEY not in cookie
    session = {"cookie": cookie.split(";")[0]}
    client.cookies.clear()
    assert client.get("/api/models", headers=session).status_code == 200
    assert client.get("/api/models", headers=session | {"authorization": "Bearer wrong"}).status_code == 401
    assert client.post("/logout", headers=session).status_code == 403
    assert client.post("/logout", headers=session | ORIGIN).status_code == 204
    assert client.get("/api/models", headers=session).status_code == 401


def test_after_signing_in_one_stays_on_this_server() -> None:
    assert local_path("/train/task_1?x=1") == "/train/task_1?x=1"
    for target in ("//evil.example", "/\\evil.example", "https://evil.example", "javascript:x", "", "/a\n//b"):
        assert local_path(target) == "/", target
