"""The well-known names of fields, and how a row of any of them becomes an example. Pure: one parsed row in, one
Example or the reason why not out. Knows nothing of files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from terakoya.data.problems import BadRow, shown, shown_names, type_name
from terakoya.data.shapes import FlatShape, ListShape, PreferenceShape, Shape, TextShape
from terakoya.domain.datasets import Example, Split

SHAPES: tuple[Shape, ...] = (
    PreferenceShape("preference", "chosen", "rejected", prompt="prompt"),
    PreferenceShape("preference", "chosen", "rejected", prompt="instruction", addition="input"),
    PreferenceShape("preference", "chosen", "rejected", prompt="question"),
    PreferenceShape("preference", "chosen", "rejected"),
    ListShape("messages", "messages"),
    ListShape("sharegpt", "conversations"),
    FlatShape("prompt-completion", "prompt", "completion"),
    FlatShape("instruction-output", "instruction", "output", addition="input"),
    FlatShape("question-answer", "question", "answer"),
    FlatShape("prompt-response", "prompt", "response"),
    FlatShape("instruction-response", "instruction", "response", addition="input"),
    FlatShape("question-response", "question", "response"),
    FlatShape("query-response", "query", "response"),
    FlatShape("input-output", "input", "output"),
    TextShape("text", "text"),
)
"""Tried in this order; the first whose fields are all there is taken."""
ACCEPTED = (
    '{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}, '
    '{"prompt": ..., "completion": ...}, {"instruction": ..., "input"?: ..., "output": ...}, '
    '{"question": ..., "answer": ...}, {"prompt": ..., "chosen": ..., "rejected": ...} or {"text": ...}'
)
_HINTS = (
    ("chosen", "rejected"),
    ("prompt", "completion"),
    ("instruction", "output"),
    ("question", "answer"),
    ("query", "response"),
)
"""Of two fields that belong together, one alone is most likely a forgotten other."""
KNOWN_FIELDS = frozenset(
    name
    for shape in SHAPES
    for name in (*shape.required, shape.split, getattr(shape, "addition", None), getattr(shape, "system", None))
    if name is not None
)
_SPLITS = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "heldout": Split.HELDOUT,
    "held_out": Split.HELDOUT,
    "test": Split.HELDOUT,
    "validation": Split.HELDOUT,
    "valid": Split.HELDOUT,
    "val": Split.HELDOUT,
    "dev": Split.HELDOUT,
    "eval": Split.HELDOUT,
}


def parse_line(line: str) -> dict[str, Any]:
    """Return the JSON object of one line. Raises: BadRow with the reason."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadRow("not_json", detail=error.msg, position=error.colno) from error
    except RecursionError as error:
        raise BadRow("too_deep") from error
    except ValueError as error:
        raise BadRow("unreadable", detail=str(error)[:200]) from error
    return checked_object(row)


def checked_object(row: object) -> dict[str, Any]:
    """Raises: BadRow unless it is a JSON object."""
    if not isinstance(row, dict):
        raise BadRow("not_object", found=type_name(row))
    return row


def detect_shape(row: Mapping[str, Any]) -> Shape:
    """Return the first of SHAPES that fits. Raises: BadRow naming what is missing."""
    shape = _shape_of_names(tuple(row))
    if shape is not None:
        return shape
    for pair in _HINTS:
        for present, missing in (pair, pair[::-1]):
            if present in row:
                raise BadRow("missing_field", present=repr(present), missing=repr(missing))
    raise BadRow("no_known_fields", fields=shown_names(row), example=next(iter(row), "column")[:40])


def parse_row(row: Mapping[str, Any], number: int, shape: Shape | None = None) -> Example:
    """Return row ``number`` as an example; ``shape`` is found out where it is None. Raises: BadRow."""
    shape = shape or detect_shape(row)
    for column in shape.required:
        if column not in row:
            raise BadRow("missing_column", column=shown(column))
    content = shape.read(row)
    return Example(number, content.messages, _read_split(row.get(shape.split)), content.rejected, content.text)


def unused_fields(row: Mapping[str, Any], shape: Shape) -> Iterable[str]:
    """Return the fields of an accepted row that hold something and were not read."""
    return [name for name in shape.unused(row) if row.get(name, "") is not None]


@lru_cache(maxsize=256)  # the rows of a file have few sets of names
def _shape_of_names(names: tuple[str, ...]) -> Shape | None:
    return next((shape for shape in SHAPES if all(field in names for field in shape.required)), None)


def _read_split(value: object) -> Split | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.strip().lower() in _SPLITS:
        return _SPLITS[value.strip().lower()]
    raise BadRow("bad_split", found=shown(value))
