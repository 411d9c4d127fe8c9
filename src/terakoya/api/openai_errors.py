"""OpenAI's envelope for the errors of its routes. Knows nothing of what they do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from terakoya.api.schemas.errors import encodable
from terakoya.exceptions import AppException


class OpenAIRoute(APIRoute):
    """A route whose deliberate errors leave in OpenAI's envelope."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except AppException as error:
                return JSONResponse(envelope(error), status_code=status_of(error), headers=dict(error.headers))
            except RequestValidationError as error:
                return JSONResponse(_validation_envelope(error), status_code=HTTPStatus.BAD_REQUEST)

        return answer


def envelope(error: AppException) -> dict[str, Any]:
    return _envelope(encodable(str(error)), error.code, kind=_kind(status_of(error)))


def status_of(error: AppException) -> int:
    """A request that cannot be done is 400 there, not 422."""
    return HTTPStatus.BAD_REQUEST if error.status == HTTPStatus.UNPROCESSABLE_ENTITY else error.status


def _kind(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"


def _envelope(message: str, code: str, *, kind: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _validation_envelope(error: RequestValidationError) -> dict[str, Any]:
    first: Mapping[str, Any] = error.errors()[0]
    field = encodable(".".join(str(part) for part in first["loc"][1:]))
    if first["type"] == "extra_forbidden":
        message = f"{field!r} is not supported by this server: leave it out"
        code = "unsupported_parameter"
    else:
        message = f"{field or 'the request'}: {str(first['msg']).removeprefix('Value error, ')}"
        code = "validation_error"
    return _envelope(encodable(message), code, kind="invalid_request_error", param=field or None)
