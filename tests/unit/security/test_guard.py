from __future__ import annotations

import pytest

from terakoya.exceptions import Forbidden
from terakoya.security.guard import allowed_names, check_host, check_origin

NAMES = allowed_names("127.0.0.1", ["desk.example"])


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8050", "127.0.0.1:1", "[::1]:8050", "LOCALHOST:8050", "desk.example"]
)
def test_own_names_pass_with_any_port(host: str) -> None:
    assert check_host([(b"host", host.encode())], NAMES) == host.lower()


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "evil.example:8050",
        "localhost:8050:1",
        "localhost:",
        "localhost.",
        "user@localhost",
        "localhost/evil",
        "localhost,evil.example",
        "0.0.0.0:8050",
        "127.0.0.2",
        "[::]",
        "[::ffff:127.0.0.1]",
        "ｌocalhost",
        "localhost\t",
    ],
)
def test_any_other_host_is_refused(host: str) -> None:
    value = host.encode()
    if host == "localhost\t":  # outer white space is not part of a header's value
        assert check_host([(b"host", value)], NAMES) == "localhost"
        return
    with pytest.raises(Forbidden):
        check_host([(b"host", value)], NAMES)


@pytest.mark.parametrize("headers", [[], [(b"host", b"localhost"), (b"Host", b"localhost")]])
def test_exactly_one_host_header_is_needed(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Forbidden, match="exactly one Host"):
        check_host(headers, NAMES)


def test_a_wildcard_address_is_no_name() -> None:
    assert allowed_names("0.0.0.0") == allowed_names("::") == {"localhost", "127.0.0.1", "[::1]"}


def test_a_bound_ipv6_address_is_a_name_in_brackets() -> None:
    assert "[fd00::1]" in allowed_names("fd00::1")


OWN = "localhost:8050"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"origin", b"http://localhost:8050")],
        [(b"origin", b"https://localhost:8050"), (b"sec-fetch-site", b"same-origin"), (b"cookie", b"a=b")],
        [(b"sec-fetch-site", b"none")],
    ],
)
def test_own_pages_and_programs_pass(headers: list[tuple[bytes, bytes]]) -> None:
    check_origin(headers, OWN)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"origin", b"http://evil.example")],
        [(b"origin", b"null")],
        [(b"origin", b"")],
        [(b"origin", b"http://localhost:3000")],
        [(b"origin", b"http://localhost")],
        [(b"origin", b"http://127.0.0.1:8050")],
        [(b"origin", b"http://localhost:8050.evil.example")],
        [(b"origin", b"http://localhost:8050"), (b"origin", b"http://evil.example")],
        [(b"origin", b"http://localhost:8050"), (b"sec-fetch-site", b"cross-site")],
        [(b"sec-fetch-site", b"same-site")],
        [(b"sec-fetch-site", b"none"), (b"sec-fetch-site", b"cross-site")],
        [(b"cookie", b"terakoya_session=x")],
    ],
)
def test_foreign_or_doubtful_origins_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Forbidden):
        check_origin(headers, OWN)
