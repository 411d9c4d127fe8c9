"""JSON and JSON Lines to text: a table where the values are alike rows, else every value under the path that leads to
it. Numbers stay as they are written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers.decoding import decode_file
from terakoya.rag.indexing.parsers.parsed import BlockKind, Parsed, TextWriter, check_length, check_not_empty
from terakoya.rag.indexing.parsers.tables import write_table

_MAX_LEVEL = 6
_MAX_DEPTH = 100
_MAX_KEY = 200
_MAX_BAD_LINES = 0.01
_NARROW = 80
"""Characters a cell of a table may have; longer texts read better under their keys."""


class Pairs(list[tuple[str, Any]]):
    """An object: every key that the file has, in its order, doubles too."""


def parse(path: Path) -> Parsed:
    decoded = decode_file(path)
    check_length(len(decoded.text) // 4)
    try:
        value = _read(decoded.text)
    except ValueError as error:
        raise UnreadableDocument(f"the file is not valid JSON: {error}") from error
    return _written(value, decoded.notices)


def parse_lines(path: Path) -> Parsed:
    decoded = decode_file(path)
    check_length(len(decoded.text) // 4)
    values: list[Any] = []
    bad: list[int] = []
    total = 0
    for number, line in enumerate(decoded.text.split("\n"), start=1):
        if not line.strip():
            continue
        total += 1
        try:
            values.append(_read(line))
        except ValueError:
            bad.append(number)
    if not values or len(bad) > max(1, _MAX_BAD_LINES * total):
        raise UnreadableDocument(
            f"the file is not JSON Lines: {len(bad):,} of its {total:,} lines are not valid JSON"
            + (f", the first is line {bad[0]:,}" if bad else "")
        )
    notices = [f"{len(bad):,} lines that are not valid JSON were left out, the first is line {bad[0]:,}"] if bad else []
    return _written(values, (*decoded.notices, *notices))


def _read(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=Pairs, parse_int=str, parse_float=str, parse_constant=str)
    except RecursionError as error:
        raise UnreadableDocument("the JSON is nested too deeply") from error


def _written(value: Any, notices: Sequence[str]) -> Parsed:
    out = TextWriter()
    _write(value, out, level=1)
    return check_not_empty(Parsed(out.text(), None, out.blocks, notices=tuple(notices)))


def _write(value: Any, out: TextWriter, *, level: int) -> None:
    """Write a value: an object's own values as lines, then what is nested under headings."""
    if isinstance(value, Pairs):
        plain = [(key, inner) for key, inner in value if not _is_nested(inner)]
        lines = [f"{_key(key)}: {_plain(inner)}" for key, inner in plain if _plain(inner)]
        out.add(BlockKind.PARAGRAPH, "\n".join(lines))
        for key, inner in value:
            if _is_nested(inner) and inner:
                _write_under(key, inner, out, level)
    elif isinstance(value, list):
        rows = _as_rows(value)
        if rows is not None:
            write_table(out, rows, headers=1)
            return
        for inner in value:
            if isinstance(inner, Pairs) and level > 1 and not any(_is_nested(part) for _, part in inner):
                _write(inner, out, level=level)
            elif isinstance(inner, Pairs | list):
                _write_record(inner, out, level)
            else:
                out.add(BlockKind.LIST, f"- {_plain(inner)}")
    else:
        out.add(BlockKind.PARAGRAPH, _plain(value))


def _write_under(key: str, value: Any, out: TextWriter, level: int) -> None:
    if level > _MAX_LEVEL:
        _write_record(Pairs([(key, value)]), out, level)
        return
    out.add(BlockKind.HEADING, _key(key), level=level)
    _write(value, out, level=level + 1)


def _write_record(value: Any, out: TextWriter, level: int) -> None:
    """Write one of many as lines of "path: value": no heading, they have no names of their own."""
    lines: list[str] = []
    stack: list[tuple[str, Any, int]] = [("", value, 0)]
    while stack:
        path, current, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise UnreadableDocument(f"the JSON is nested more than {_MAX_DEPTH} levels deep")
        if isinstance(current, Pairs):
            stack += [(f"{path}.{_key(key)}" if path else _key(key), inner, depth + 1) for key, inner in current[::-1]]
        elif isinstance(current, list) and any(map(_is_nested, current)):
            stack += [(path, inner, depth + 1) for inner in current[::-1]]
        else:
            text = ", ".join(map(_plain, current)) if isinstance(current, list) else _plain(current)
            if text:
                lines.append(f"{path}: {text}" if path else text)
    out.add(BlockKind.PARAGRAPH, "\n".join(lines))


def _as_rows(values: list[Any]) -> list[list[str]] | None:
    """Return a header and rows if the values are at least two objects of the same few plain, short values."""
    if len(values) < 2 or not all(isinstance(value, Pairs) for value in values):
        return None
    keys = [key for key, _ in values[0]]
    if not 1 < len(keys) <= 40 or len(set(keys)) < len(keys):
        return None
    rows = [[_key(key) for key in keys]]
    for value in values:
        if [key for key, _ in value] != keys or any(_is_nested(inner) for _, inner in value):
            return None
        rows.append([_plain(inner) for _, inner in value])
        if max(map(len, rows[-1])) > _NARROW:
            return None
    return rows


def _is_nested(value: Any) -> bool:
    return isinstance(value, list)  # an object is one too


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else ("true" if value is True else "false" if value is False else str(value))


def _key(key: str) -> str:
    return " ".join(key.split())[:_MAX_KEY]
