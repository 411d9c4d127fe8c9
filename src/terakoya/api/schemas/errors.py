"""The one envelope in which every error travels, over HTTP and WebSocket."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from terakoya.exceptions import AppException


class FieldError(BaseModel):
    field: str
    """Dotted path within the request, such as ``body.adapter.rank``."""
    message: str


class ErrorEnvelope(BaseModel):
    error: str
    """What failed, the value, and what would work."""
    code: str
    """Stable; programs compare this."""
    request_id: str
    """Names the request in the server's log."""
    fields: list[FieldError] | None = None
    details: dict[str, Any] | None = None
    """What a program can show better than a sentence, such as the report on a file that was refused."""

    @classmethod
    def of(cls, error: AppException, request_id: str) -> ErrorEnvelope:
        details = None if error.details is None else dict(error.details)
        return cls(error=encodable(str(error)), code=error.code, request_id=request_id, details=details)


def encodable(text: str) -> str:
    """Return ``text`` without lone surrogates, which a client may send in JSON but no answer can carry."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
