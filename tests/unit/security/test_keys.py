from __future__ import annotations

import pytest

from terakoya.exceptions import InvalidConfig
from terakoya.security.keys import MAX_SESSIONS, KeyRing, Sessions, check_bind, is_loopback


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    check_bind(host, has_keys=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "::ffff:192.168.1.5", "desk.example", ""])
def test_an_address_others_reach_needs_a_key(host: str) -> None:
    with pytest.raises(InvalidConfig, match="TERAKOYA_API_KEYS"):
        check_bind(host, has_keys=False)
    check_bind(host, has_keys=True)


def test_each_key_is_accepted_and_no_other() -> None:
    keys = KeyRing(["first-key", "第二の鍵"])
    assert keys.accepts("first-key")
    assert keys.accepts("第二の鍵")
    assert not any(keys.accepts(key) for key in ("", "first-ke", "first-key ", "FIRST-KEY", "first-key\x00"))


def test_no_key_is_accepted_by_an_empty_ring() -> None:
    assert not KeyRing([])
    assert not KeyRing([]).accepts("")


def test_a_key_is_not_kept_in_clear() -> None:
    assert "first-key" not in repr(vars(KeyRing(["first-key"])))


def test_a_session_ends_when_it_is_closed_or_old() -> None:
    now = 0.0
    sessions = Sessions(seconds=60, clock=lambda: now)
    closed, old = sessions.open(), sessions.open()
    assert sessions.accepts(closed)
    sessions.close(closed)
    assert not sessions.accepts(closed)
    now = 59.0
    assert sessions.accepts(old)
    now = 60.0
    assert not sessions.accepts(old)


def test_sessions_are_bounded_and_the_oldest_goes_first() -> None:
    sessions = Sessions()
    tokens = [sessions.open() for _ in range(MAX_SESSIONS + 1)]
    assert not sessions.accepts(tokens[0])
    assert all(sessions.accepts(token) for token in tokens[1:])
