"""API keys, browser sessions and the rule that only loopback is served without a key. Keys are kept as SHA-256
digests and compared in constant time; knows nothing of cookies or headers.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from ipaddress import ip_address

from terakoya.exceptions import InvalidConfig

SESSION_SECONDS = 30 * 24 * 3600.0
MAX_SESSIONS = 1000


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine only: ``localhost`` or a loopback address."""
    name = host.strip().strip("[]").lower()
    if name == "localhost":
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def check_bind(host: str, *, has_keys: bool) -> None:
    """Raises: InvalidConfig for an address others can reach while no API key is set."""
    if not has_keys and not is_loopback(host):
        raise InvalidConfig(
            f"refusing to listen on {host!r} without an API key: anyone who reaches that address could train, "
            "read and delete; set TERAKOYA_API_KEYS, or listen on 127.0.0.1"
        )


class KeyRing:
    """The keys that open the server; with none, nothing is asked."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accepts(self, key: str) -> bool:
        digest = _digest(key)
        # Every digest is compared: the time does not tell which key came close.
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


class Sessions:
    """Browser sessions by random token, held in memory: a restart asks for the key again."""

    def __init__(self, *, seconds: float = SESSION_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._expiries: dict[bytes, float] = {}

    def open(self) -> str:
        """Return a new token; the oldest session goes when there are too many."""
        now = self._clock()
        self._expiries = {digest: expiry for digest, expiry in self._expiries.items() if expiry > now}
        while len(self._expiries) >= MAX_SESSIONS:
            del self._expiries[next(iter(self._expiries))]
        token = secrets.token_urlsafe(32)
        self._expiries[_digest(token)] = now + self._seconds
        return token

    def accepts(self, token: str) -> bool:
        return self._expiries.get(_digest(token), 0.0) > self._clock()

    def close(self, token: str) -> None:
        self._expiries.pop(_digest(token), None)


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
