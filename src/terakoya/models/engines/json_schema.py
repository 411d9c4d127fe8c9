"""Which JSON schemas an answer can be held to. llama.cpp takes a schema it does not understand without a word and
writes what it likes, so that every keyword is looked at first. Knows nothing of engines.
"""

from __future__ import annotations

import json
import math
from typing import Any

from terakoya.exceptions import InvalidConfig

MAX_BYTES = 20_000
MAX_DEPTH = 20
MAX_COUNT = 10_000
"""Of items or characters: an answer has 2,048 tokens."""
_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_PLAIN = frozenset({"title", "description", "default", "examples", "$schema", "$id", "$comment"})
"""Say something to people and hold an answer to nothing."""
_VALUES = frozenset(
    {
        "type", "enum", "const", "required", "additionalProperties", "minItems", "maxItems", "minLength", "maxLength",
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "$ref",
    }
)  # fmt: skip
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength"})
_SCHEMAS = frozenset({"items"})
_LISTS = frozenset({"anyOf", "prefixItems"})
_MAPS = frozenset({"properties", "$defs", "definitions"})


def check_schema(schema: dict[str, Any]) -> None:
    """Raises: InvalidConfig naming what of the schema an answer cannot be held to."""
    if len(json.dumps(schema)) > MAX_BYTES:
        raise InvalidConfig(f"a JSON schema has at most {MAX_BYTES} characters; got {len(json.dumps(schema))}")
    _check(schema, schema, "$", 1)


def _check(schema: Any, root: dict[str, Any], place: str, depth: int) -> None:
    if isinstance(schema, bool) and place != "$":
        return
    if not isinstance(schema, dict):
        raise InvalidConfig(f"the JSON schema at {place} is {schema!r}, which is no schema")
    if depth > MAX_DEPTH:
        raise InvalidConfig(f"the JSON schema is nested more than {MAX_DEPTH} deep")
    for keyword, value in schema.items():
        where = f"{place}.{keyword}"
        if keyword in _MAPS and isinstance(value, dict):
            for name, inner in value.items():
                _check(inner, root, f"{where}.{name}", depth + 1)
        elif keyword in _LISTS and isinstance(value, list) and value:
            for number, inner in enumerate(value):
                _check(inner, root, f"{where}[{number}]", depth + 1)
        elif keyword in _SCHEMAS:
            _check(value, root, where, depth + 1)
        elif keyword == "type":
            _check_type(value, where)
        elif keyword == "$ref":
            _check_reference(value, root, where)
        elif keyword in _VALUES:
            _check_value(keyword, value, where)
        elif keyword not in _PLAIN | _VALUES:
            raise InvalidConfig(
                f"an answer cannot be held to {keyword!r} (at {place}); possible are "
                f"{', '.join(sorted(_VALUES | _SCHEMAS | _LISTS | _MAPS))}"
            )


def _check_type(value: Any, where: str) -> None:
    wanted = value if isinstance(value, list) else [value]
    unknown = [name for name in wanted if not isinstance(name, str) or name not in _TYPES]
    if unknown or not wanted:
        raise InvalidConfig(f"unknown type {unknown or value!r} at {where}; there are {', '.join(sorted(_TYPES))}")


def _check_value(keyword: str, value: Any, where: str) -> None:
    """Refuse what the keyword cannot mean: llama.cpp would pass over it."""
    if keyword == "const":
        return
    if keyword == "enum":
        fits, wanted = isinstance(value, list) and bool(value), "a list of at least one value"
    elif keyword == "required":
        names = isinstance(value, list) and all(isinstance(name, str) for name in value)
        fits, wanted = names and len(set(value)) == len(value), "a list of different names"
    elif keyword == "additionalProperties":
        fits, wanted = isinstance(value, bool), "true or false"
    elif keyword in _COUNTS:
        fits, wanted = type(value) is int and 0 <= value <= MAX_COUNT, f"a whole number from 0 to {MAX_COUNT}"
    else:
        fits, wanted = type(value) in (int, float) and math.isfinite(value), "a number"
    if not fits:
        raise InvalidConfig(f"{where} must be {wanted}; got {value!r:.100}")


def _check_reference(value: Any, root: dict[str, Any], where: str) -> None:
    """Only to what the schema itself defines: nothing is fetched."""
    parts = value.split("/") if isinstance(value, str) else []
    inner: Any = root
    for part in parts[1:]:
        inner = inner.get(part) if isinstance(inner, dict) else None
    if not parts or parts[0] != "#" or not isinstance(inner, dict):
        raise InvalidConfig(f"{where} refers to {value!r}, which the schema does not define; '#/$defs/...' would work")
