"""Method x Host x Origin x cookie, over HTTP and WebSocket: what is foreign never reaches a route."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from web_app import web_client

HOSTS = {"localhost:8050": True, "127.0.0.1:8050": True, "evil.example": False, "localhost.evil.example:8050": False}
ORIGINS = {"own": True, "none": True, "http://evil.example": False, "null": False, "http://localhost:3000": False}
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
PATHS = ("/api/train", "/api/datasets/x")
TASK = "task_00000000000000000000000000"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with web_client(tmp_path_factory.mktemp("guard") / "data") as client:
        yield client


def headers_for(host: str, origin: str, has_cookie: bool) -> dict[str, str]:
    value = {"own": f"http://{host}", "none": None}.get(origin, origin)
    headers = {"host": host} | ({"origin": value} if value is not None else {})
    return headers | ({"cookie": "terakoya_language=ja"} if has_cookie else {})


def is_from_here(host: str, origin: str, has_cookie: bool) -> bool:
    return HOSTS[host] and ORIGINS[origin] and not (origin == "none" and has_cookie)


def test_http_refuses_every_foreign_combination_and_no_other(client: TestClient) -> None:
    for method, path, host, origin, has_cookie in product(METHODS, PATHS, HOSTS, ORIGINS, (False, True)):
        answer = client.request(method, path, headers=headers_for(host, origin, has_cookie))
        is_safe = method in ("GET", "HEAD", "OPTIONS")
        passes = HOSTS[host] if is_safe else is_from_here(host, origin, has_cookie)
        assert (answer.status_code != 403) == passes, (method, path, host, origin, has_cookie)
        if not passes and method != "HEAD":
            assert answer.json()["code"] == "forbidden"
            assert answer.headers["x-request-id"] == answer.json()["request_id"]


def test_websocket_refuses_every_foreign_combination_before_accepting(client: TestClient) -> None:
    for view, host, origin, has_cookie in product(("training", "tasks"), HOSTS, ORIGINS, (False, True)):
        case = (view, host, origin, has_cookie)
        headers = headers_for(host, origin, has_cookie)
        if is_from_here(host, origin, has_cookie):
            with client.websocket_connect(f"/ws/{view}/{TASK}", headers=headers) as socket:
                assert socket.receive_json()["code"] == "task_not_found", case
            continue
        with (
            pytest.raises(WebSocketDenialResponse) as refusal,
            client.websocket_connect(f"/ws/{view}/{TASK}", headers=headers),
        ):
            pass
        assert refusal.value.status_code == 403, case
        assert refusal.value.json()["code"] == "forbidden"


def test_sec_fetch_site_tells_another_port_of_this_machine(client: TestClient) -> None:
    for site, status in (("same-origin", 404), ("none", 404), ("same-site", 403), ("cross-site", 403), ("x", 403)):
        answer = client.delete("/api/models/x", headers={"sec-fetch-site": site})
        assert answer.status_code == status, site


def test_no_answer_allows_another_origin(client: TestClient) -> None:
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    for method in ("GET", "OPTIONS"):
        answer = client.request(method, "/api/train", headers=asked)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_without_keys_a_remote_client_is_refused_whatever_the_bind(
    client: TestClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for address, status in (("192.168.1.5", 403), ("::ffff:10.0.0.1", 403), ("::1", 200), ("127.0.0.1", 200)):
        remote = TestClient(client.app, base_url="http://localhost", client=(address, 1))
        assert remote.get("/api/models").status_code == status, address
    with web_client(
        tmp_path_factory.mktemp("keyed") / "data", api_keys=("a-long-key",), host="desk", allowed_hosts=("desk",)
    ) as keyed:
        remote = TestClient(keyed.app, base_url="http://desk", client=("192.168.1.5", 1))
        assert remote.get("/api/models").status_code == 401
        assert remote.get("/api/models", headers={"authorization": "Bearer a-long-key"}).status_code == 200


def test_with_keys_a_websocket_needs_one_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    with web_client(tmp_path_factory.mktemp("keyed") / "data", api_keys=("a-long-key",)) as keyed:
        with (
            pytest.raises(WebSocketDenialResponse) as refusal,
            keyed.websocket_connect(f"ws://localhost/ws/tasks/{TASK}"),
        ):
            pass
        assert refusal.value.status_code == 403
        assert refusal.value.json()["code"] == "unauthorized"
        headers = {"authorization": "Bearer a-long-key"}
        with keyed.websocket_connect(f"ws://localhost/ws/tasks/{TASK}", headers=headers) as socket:
            assert socket.receive_json()["code"] == "task_not_found"
