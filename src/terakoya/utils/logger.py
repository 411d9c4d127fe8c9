"""How log lines look: an event name plus fields, on standard error. Only entry points call this; everything else
asks structlog for a logger.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

Level = Literal["debug", "info", "warning", "error"]
_CHATTY = ("alembic", "httpcore", "httpx", "uvicorn")
"""Libraries whose every step is an "info"; at our "info" only their warnings are told."""


def configure_logging(level: Level = "info", *, as_json: bool | None = None) -> None:
    """Send our lines and those of libraries to standard error: JSON lines, or columns where a person watches.

    ``as_json`` None decides by whether standard error is a terminal. May be called again.
    """
    if as_json is None:
        as_json = not sys.stderr.isatty()
    stamps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks without local variables: those hold prompts and keys.
    tracebacks = structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    )
    columns = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    ending: list[structlog.typing.Processor] = (
        [tracebacks, structlog.processors.JSONRenderer(ensure_ascii=False)] if as_json else [columns]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *stamps,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*stamps, _name_library],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library in _CHATTY:
        logging.getLogger(library).setLevel(logging.WARNING if level == "info" else logging.NOTSET)


def _name_library(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A library's sentence becomes the field of an event, so that ours stay the only event names."""
    record: logging.LogRecord = event["_record"]
    return {**event, "event": "library_message", "logger": record.name, "message": event["event"]}
