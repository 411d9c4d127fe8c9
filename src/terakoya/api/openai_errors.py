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
    path, errors = _most_telling(error)
    field = encodable(".".join(str(part) for part in path))
    if errors[0]["type"] == "extra_forbidden":
        message = f"{field!r} is not supported by this server: leave it out"
        code = "unsupported_parameter"
    else:
        said = dict.fromkeys(str(each["msg"]).removeprefix("Value error, ") for each in errors)
        message = f"{field or 'the request'}: {' or '.join(said)}"
        code = "validation_error"
    return _envelope(encodable(message), code, kind="invalid_request_error", param=field or None)


_WRONG_SHAPES = frozenset({"string_type", "list_type", "dict_type", "model_type", "model_attributes_type"})
Path = tuple[str | int, ...]


def _most_telling(error: RequestValidationError) -> tuple[Path, list[Mapping[str, Any]]]:
    """Return the field of the first error and what is to be said of it.

    Where a field may be of several types, each of them complains; the one that got furthest into the value is the one
    that was meant. If none got anywhere, all of them say what they would take.
    """
    found = [(_path(error.body, each), each) for each in error.errors()]
    first = found[0][0]
    about = [(path, each) for path, each in found if path[: len(first)] == first]
    deepest = max(len(path) for path, _ in about)
    meant = [(path, each) for path, each in about if len(path) == deepest]
    telling = [(path, each) for path, each in meant if each["type"] not in _WRONG_SHAPES]
    if telling:
        return telling[0][0], [telling[0][1]]
    return meant[0][0], [each for path, each in meant if path == meant[0][0]]


def _path(body: Any, error: Mapping[str, Any]) -> Path:
    """Return where in the body the error is: pydantic also names the types of a union it tried, which are no fields."""
    path: list[str | int] = []
    value = body
    parts = error["loc"][1:]
    for place, part in enumerate(parts):
        is_missing = error["type"] == "missing" and place == len(parts) - 1
        if isinstance(part, int) and isinstance(value, list) and part < len(value):
            value = value[part]
        elif isinstance(value, dict) and (part in value or is_missing):
            value = value.get(part)
        else:
            continue
        path.append(part)
    return tuple(path)
