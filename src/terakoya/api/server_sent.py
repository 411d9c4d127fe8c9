"""Server-sent events on the wire: one JSON value an event, and the end that OpenAI's clients look for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MEDIA_TYPE = "text/event-stream"
DONE = "data: [DONE]\n\n"


def event(value: Mapping[str, Any]) -> str:
    """Return one event. In ASCII: whatever a document holds, half a surrogate pair too, can be sent."""
    return f"data: {json.dumps(value, ensure_ascii=True)}\n\n"
