"""The one place where errors become answers: each exception's status, message and code in the envelope, or a page
for a person who navigated here. Nothing internal is told; what was not foreseen is logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from terakoya.api.schemas.errors import ErrorEnvelope, FieldError, encodable
from terakoya.exceptions import AppException
from terakoya.web.rendering import render_error, wants_page

log = structlog.get_logger(__name__)

MAX_FIELD_ERRORS = 50
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def install(app: FastAPI) -> None:
    for kind in (AppException, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer_error)


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer any exception that left a route."""
    request_id = request.scope.get("state", {}).get("request_id", "")
    status, envelope, headers = _describe(error, request, request_id)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, AppException):
        # The traceback follows from the server, which gets the exception again after this answer.
        log.error("request_failed", request_id=request_id, path=request.url.path, error=type(error).__name__)
    if wants_page(request):
        return render_error(request, status, envelope, headers)
    return JSONResponse(envelope.model_dump(exclude_none=True), status_code=status, headers=dict(headers))


def _describe(error: Exception, request: Request, request_id: str) -> tuple[int, ErrorEnvelope, Mapping[str, str]]:
    match error:
        case AppException():
            return error.status, ErrorEnvelope.of(error, request_id), error.headers
        case RequestValidationError():
            return HTTPStatus.UNPROCESSABLE_ENTITY, _validation_envelope(error, request_id), {}
        case HTTPException():
            code = _HTTP_CODES.get(error.status_code, "http_error")
            message = f"{error.detail}: {request.method} {request.url.path}"
            return (
                error.status_code,
                ErrorEnvelope(error=message, code=code, request_id=request_id),
                error.headers or {},
            )
    envelope = ErrorEnvelope(
        error=f"the server failed on this request; its log has the cause under request id {request_id!r}",
        code="internal_error",
        request_id=request_id,
    )
    return HTTPStatus.INTERNAL_SERVER_ERROR, envelope, {}


def _validation_envelope(error: RequestValidationError, request_id: str) -> ErrorEnvelope:
    fields = [
        FieldError(
            field=encodable(".".join(str(part) for part in entry["loc"])), message=encodable(_field_message(entry))
        )
        for entry in error.errors()[:MAX_FIELD_ERRORS]
    ]
    summary = "; ".join(f"{field.field}: {field.message}" for field in fields[:3])
    return ErrorEnvelope(
        error=f"the request is not valid: {summary}", code="validation_error", request_id=request_id, fields=fields
    )


def _field_message(entry: Mapping[str, object]) -> str:
    message = str(entry.get("msg", "is not valid")).removeprefix("Value error, ")
    found = entry.get("input")
    if isinstance(found, str | int | float | bool) and entry.get("type") != "missing":
        return f"{message}; got {str(found)[:80]!r}" if isinstance(found, str) else f"{message}; got {found!r}"
    return message
