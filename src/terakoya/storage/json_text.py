"""JSON as it is written to our files: valid for every reader, so NaN and infinity become null."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any


def to_json(value: Any, *, indent: int | None = None) -> bytes:
    """Return UTF-8 JSON. Raises: TypeError for what has no plain form."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)
    return text.encode("utf-8", errors="backslashreplace")  # a lone surrogate becomes its JSON escape


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if callable(item := getattr(value, "item", None)):  # a NumPy or torch scalar
        return _plain(item())
    raise TypeError(f"cannot write {type(value).__name__} {value!r} as JSON")
