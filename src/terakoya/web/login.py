"""Signing in: an API key becomes a browser session in a cookie that scripts cannot read."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from terakoya.exceptions import Unauthorized
from terakoya.security.keys import SESSION_SECONDS
from terakoya.web.middleware import SESSION_COOKIE, Access, session_token
from terakoya.web.rendering import render

router = APIRouter(include_in_schema=False)


class LoginRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=1, max_length=1000)


@router.get("/login")
def show_login(request: Request, next: str = "/") -> HTMLResponse:
    return render(request, "login.html", target=local_path(next))


@router.post("/login", status_code=204)
async def sign_in(body: LoginRequest, request: Request) -> Response:
    access: Access = request.app.state.access
    if not access.keys.accepts(body.key):
        raise Unauthorized("this is not one of the server's API keys (TERAKOYA_API_KEYS)")
    response = Response(status_code=204)
    response.set_cookie(
        SESSION_COOKIE,
        access.sessions.open(),
        max_age=int(SESSION_SECONDS),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@router.post("/logout", status_code=204)
async def sign_out(request: Request) -> Response:
    access: Access = request.app.state.access
    token = session_token(request.scope)
    if token is not None:
        access.sessions.close(token)
    response = Response(status_code=204)
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
    return response


def local_path(target: str) -> str:
    """Return ``target`` if it is a path on this server, else ``/``: a link must not lead elsewhere after signing in."""
    is_local = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if is_local else "/"
