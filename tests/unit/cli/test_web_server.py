from __future__ import annotations

import socket

import pytest

from terakoya.cli.web_server import address_of, bind
from terakoya.exceptions import Conflict, InvalidConfig


def test_port_0_takes_a_free_one_and_the_address_says_which() -> None:
    with bind("127.0.0.1", 0) as bound:
        assert address_of(bound, "127.0.0.1") == f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_a_wildcard_address_is_reached_by_loopback() -> None:
    with bind("127.0.0.1", 0) as bound:
        assert address_of(bound, "0.0.0.0").startswith("http://127.0.0.1:")


def test_a_port_that_is_listened_on_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Conflict, match=rf"port {port} .* PORT={port + 1}"):
            bind("127.0.0.1", port)


def test_a_port_just_let_go_of_is_free() -> None:
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = bound.accept()
            accepted.close()
            client.recv(1)
    bind("127.0.0.1", port).close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host.invalid"])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(InvalidConfig, match="cannot listen"):
        bind(host, 0)
