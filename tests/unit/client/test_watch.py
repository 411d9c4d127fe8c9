"""The watcher against a WebSocket server that breaks off, on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from terakoya import Client
from terakoya.client.transport import Transport
from terakoya.client.watch import watch_events
from terakoya.exceptions import Forbidden, TaskNotFound, Unavailable

Handler = Callable[[ServerConnection, int], None]


@contextmanager
def server(handler: Handler, *, refuse: bool = False) -> Iterator[str]:
    """Serve ``handler(connection, after)`` and yield the base URL."""

    def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        handler(connection, int(parse_qs(urlsplit(connection.request.path).query)["after"][0]))

    def check(connection: ServerConnection, request: Request) -> Response | None:
        if not refuse:
            return None
        body = json.dumps({"error": "foreign host", "code": "forbidden"})
        return connection.respond(HTTPStatus.FORBIDDEN, body)

    with serve(handle, "127.0.0.1", 0, process_request=check) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.socket.getsockname()[1]}"
        finally:
            running.shutdown()
            thread.join()


def send(connection: ServerConnection, *numbers: int) -> None:
    for number in numbers:
        connection.send(json.dumps({"seq": number, "type": "log"}))


def test_events_are_yielded_until_the_server_closes() -> None:
    with server(lambda connection, after: send(connection, 1, 2, 3)) as url, Client(url) as client:
        assert [event["seq"] for event in client.watch("task_x")] == [1, 2, 3]


def test_a_broken_connection_loses_and_repeats_nothing() -> None:
    def two_events_then_gone(connection: ServerConnection, after: int) -> None:
        send(connection, *range(after + 1, min(after + 3, 6)))
        if after < 4:
            connection.close(1012, "service restart")

    with server(two_events_then_gone) as url, Client(url) as client:
        assert [event["seq"] for event in client.watch("task_x", after=1)] == [2, 3, 4, 5]


def test_an_unknown_task_is_the_servers_own_error() -> None:
    def refuse(connection: ServerConnection, after: int) -> None:
        connection.send(json.dumps({"error": "there is no task 'task_x'", "code": "task_not_found", "request_id": "r"}))
        connection.close(4404, "task_not_found")

    with server(refuse) as url, Client(url) as client, pytest.raises(TaskNotFound, match="task_x"):
        list(client.watch("task_x"))


def test_a_refused_handshake_is_an_error_and_not_tried_again() -> None:
    with (
        server(lambda connection, after: None, refuse=True) as url,
        Client(url) as client,
        pytest.raises(Forbidden, match="foreign host"),
    ):
        list(client.watch("task_x"))


def test_a_server_that_stays_away_is_given_up_on() -> None:
    transport = Transport("http://127.0.0.1:9", None)
    with pytest.raises(Unavailable, match="task itself goes on"):
        list(watch_events(transport, "task_x", give_up_seconds=0.0))
    transport.close()
