"""What every request passes before the application, HTTP and WebSocket alike: a request id, security headers, and
the guard (Host, Origin, key or session). Pure ASGI, so that nothing is buffered; the rules are in ``security/``.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from terakoya.api.schemas.errors import ErrorEnvelope
from terakoya.exceptions import AppException, Forbidden, TooLarge, Unauthorized
from terakoya.security.guard import SAFE_METHODS, check_host, check_origin, header_values
from terakoya.security.keys import KeyRing, Sessions, is_loopback
from terakoya.security.limits import ByteCap

SESSION_COOKIE = "terakoya_session"
OPEN_PATHS = frozenset({"/healthz", "/login", "/favicon.ico"})
OPEN_PREFIX = "/static/"
UPLOAD_PREFIXES = ("/api/datasets", "/rag/documents")
MAX_BODY_BYTES = 2 * 2**20

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
SECURITY_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class RequestHeaders:
    """Gives each request an id and each answer that id and the security headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(8)}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                own = [(b"x-request-id", request_id.encode()), *SECURITY_HEADERS]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


@dataclass
class Access:
    """What the guard checks against."""

    names: frozenset[str]
    """Host names the server answers to."""
    keys: KeyRing
    sessions: Sessions = field(default_factory=Sessions)


class Guard:
    """Lets a request through that may come from where it says and carries a key where one is asked."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            check_provenance(scope, self._access)
            if not is_authorized(scope, self._access):
                raise Unauthorized(
                    "this server asks for an API key: send 'Authorization: Bearer <key>', or sign in at /login",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        except AppException as error:
            await _refuse(scope, send, error)
            return
        await self._app(scope, receive, send)


class BodyCap:
    """Stops reading a body that is larger than any JSON request needs. Uploads have their own cap."""

    def __init__(self, app: ASGIApp, limit_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(UPLOAD_PREFIXES):
            await self._app(scope, receive, send)
            return
        cap = ByteCap(self._limit_bytes, what="the body of this request")

        async def receive_capped() -> Message:
            message = await receive()
            try:
                cap.add(len(message.get("body", b"")))
            except TooLarge as error:
                # FastAPI passes on only this class from the reading of a body; others it reports as bad JSON.
                raise HTTPException(TooLarge.status, str(error)) from error
            return message

        await self._app(scope, receive_capped, send)


def check_provenance(scope: Scope, access: Access) -> None:
    """Raises: Forbidden for a foreign Host or Origin, and for a remote client of a server without keys."""
    client = scope.get("client")
    if not access.keys and client is not None and not is_loopback(client[0]):
        raise Forbidden(f"without an API key only this machine is served; got a request from {client[0]!r}")
    host = check_host(scope["headers"], access.names)
    if scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS:
        check_origin(scope["headers"], host)


def is_authorized(scope: Scope, access: Access) -> bool:
    """Whether no key is asked here, or a valid key or session came with the request."""
    path = scope["path"]
    if not access.keys or path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
        return True
    credentials = header_values(scope["headers"], b"authorization")
    if credentials:
        # A wrong key is refused even beside a valid session: one request, one identity.
        kind, _, key = credentials[0].partition(" ")
        return len(credentials) == 1 and kind.lower() == "bearer" and access.keys.accepts(key.strip())
    token = session_token(scope)
    return token is not None and access.sessions.accepts(token)


def session_token(scope: Scope) -> str | None:
    for value in header_values(scope["headers"], b"cookie"):
        try:
            morsel = SimpleCookie(value).get(SESSION_COOKIE)
        except CookieError:
            continue
        if morsel is not None:
            return morsel.value
    return None


async def _refuse(scope: Scope, send: Send, error: AppException) -> None:
    """Answer instead of the application; a WebSocket is refused before it is accepted."""
    if scope["type"] == "websocket":
        await _refuse_websocket(scope, send, error)
        return
    accepts_page = any("text/html" in value for value in header_values(scope["headers"], b"accept"))
    if isinstance(error, Unauthorized) and scope["method"] == "GET" and accepts_page:
        target = f"/login?next={quote(scope['path'])}"
        await _answer(send, "http.response", 303, [(b"location", target.encode())], b"")
        return
    headers = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    body = _envelope(scope, error)
    await _answer(send, "http.response", error.status, [(b"content-type", b"application/json"), *headers], body)


async def _refuse_websocket(scope: Scope, send: Send, error: AppException) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
        return
    # 403 whatever the reason: browsers tell their scripts no more than that the handshake failed.
    headers = [(b"content-type", b"application/json")]
    await _answer(send, "websocket.http.response", 403, headers, _envelope(scope, error))


async def _answer(send: Send, kind: str, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": f"{kind}.start", "status": status, "headers": [*headers, length]})
    await send({"type": f"{kind}.body", "body": body})


def _envelope(scope: Scope, error: AppException) -> bytes:
    envelope = ErrorEnvelope.of(error, scope["state"]["request_id"])
    return json.dumps(envelope.model_dump(exclude_none=True), ensure_ascii=False).encode()
