"""Decides from raw request headers whether a request may have come from where it says: the Host allow-list
(DNS rebinding) and the Origin check (cross-site requests). Pure functions; knows nothing of keys or of ASGI servers.

One rule serves HTTP and WebSocket: a handshake is checked like an unsafe method.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from terakoya.exceptions import Forbidden

RawHeaders = Sequence[tuple[bytes, bytes]]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
WILDCARD_ADDRESSES = frozenset({"0.0.0.0", "::", "[::]", ""})  # noqa: S104 - compared with, not bound to

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)


def allowed_names(bound_host: str, extra: Iterable[str] = ()) -> frozenset[str]:
    """Return the host names under which the server may be called, lower case, IPv6 in brackets.

    A wildcard address is never a name: browsers route ``0.0.0.0`` to this machine from any site.
    """
    names = {_bracketed(name.strip().lower()) for name in (bound_host, *extra)}
    return frozenset((LOOPBACK_NAMES | names) - WILDCARD_ADDRESSES)


def check_host(headers: RawHeaders, names: frozenset[str]) -> str:
    """Return the Host header, lower case. Raises: Forbidden unless there is exactly one and its name is allowed."""
    values = header_values(headers, b"host")
    if len(values) != 1:
        raise Forbidden(f"a request needs exactly one Host header; got {len(values)}")
    host = values[0].lower()
    match = _HOST.fullmatch(host)
    if match is None or match["name"] not in names:
        raise Forbidden(
            f"this server does not answer to the host {host[:200]!r}; it answers to {', '.join(sorted(names))} "
            "(TERAKOYA_ALLOWED_HOSTS adds names)"
        )
    return host


def check_origin(headers: RawHeaders, host: str) -> None:
    """Refuse a request that another site's page makes. Raises: Forbidden.

    Browsers send Origin with every unsafe request and WebSocket handshake. Without it only a client that is no
    browser may pass, and such a client carries no cookie. ``same-site`` is refused as well: to a browser every
    port of localhost is the same site.
    """
    sites = header_values(headers, b"sec-fetch-site")
    if any(site not in ("same-origin", "none") for site in sites):
        raise Forbidden("cross-site request refused; call this server from its own pages or without a browser")
    origins = header_values(headers, b"origin")
    if not origins:
        if header_values(headers, b"cookie"):
            raise Forbidden("a request with a cookie needs an Origin header; API clients send a key, not a cookie")
        return
    if len(origins) > 1 or origins[0].lower() not in (f"http://{host}", f"https://{host}"):
        raise Forbidden(f"the origin {origins[0][:200]!r} is not this server's ({host!r})")


def header_values(headers: RawHeaders, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in headers if key.lower() == name]


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name and not name.startswith("[") else name
