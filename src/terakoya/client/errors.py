"""Turns the server's error envelope back into the exception it was. Knows nothing of HTTP libraries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from terakoya.exceptions import AppException, class_of


def error_from_body(status: int, body: bytes | str) -> AppException:
    """Return the exception for an error answer; a body that is no envelope is quoted."""
    try:
        envelope = json.loads(body)
    except ValueError:
        envelope = None
    if isinstance(envelope, dict) and isinstance(envelope.get("error"), str):
        return error_from_envelope(envelope, status=status)
    if isinstance(envelope, dict) and isinstance(envelope.get("error"), dict):
        return error_from_openai(envelope["error"], status=status)
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    return _class_for("unexpected_answer", status)(f"the server answered {status}: {text.strip()[:300]!r}")


def error_from_envelope(envelope: Mapping[str, Any], *, status: int = 400) -> AppException:
    """Return the ``AppException`` subclass with the envelope's code, its message naming the fields at fault."""
    message = str(envelope["error"])
    for field in envelope.get("fields") or ():
        message += f"\n  {field.get('field')}: {field.get('message')}"
    error = _class_for(str(envelope.get("code", "unknown")), status)(message)
    details = envelope.get("details")
    error.details = details if isinstance(details, Mapping) else None
    return error


def error_from_openai(error: Mapping[str, Any], *, status: int = 400) -> AppException:
    """Return the exception for an error in OpenAI's envelope, whose code is ours."""
    return _class_for(str(error.get("code", "unknown")), status)(str(error.get("message", error)))


@cache
def _class_for(code: str, status: int) -> type[AppException]:
    if (known := class_of(code)) is not None:
        return known
    # A code of a newer server: keep it, under the class its status narrows to.
    by_status = {cls.status: cls for cls in AppException.__subclasses__() if cls.status != AppException.status}
    base: type[AppException] = by_status.get(status, AppException)
    return type("ServerError", (base,), {"code": code, "status": status})
