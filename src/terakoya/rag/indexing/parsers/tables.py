"""Tables as text: a row a line, cells apart by " | ", and the label that rows are found under when they stand in
another passage than the header. Knows nothing of where tables come from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from terakoya.rag.indexing.parsers.parsed import BlockKind, TextWriter

SEPARATOR = " | "
MAX_LABEL = 160
"""A label takes room from its rows in the embedder's window."""
_LOOKED_AT = 20
_NUMBER = re.compile(r"[-+−△▲(]?[¥￥$€£]?\s*\d[\d,.]*\s*(?:[%％円$€枚個件人名年月日]|)\)?")
_DATE = re.compile(r"\d{1,4}[-/.年]\d{1,2}(?:[-/.月]\d{1,4}日?)?(?:[ T]\d{1,2}:\d{2}.*)?|\d{1,2}:\d{2}(?::\d{2})?")
_UNIT = re.compile(r"[(（\[［〔].{1,20}[)）\]］〕]")

Row = Sequence[str]


def write_table(out: TextWriter, rows: Sequence[Row], *, headers: int | None = None) -> None:
    """Write the rows that hold anything. ``headers``: how many rows after a caption are its header; guessed if None.

    Raises: UnreadableDocument beyond MAX_CHARACTERS.
    """
    clean = [cells for row in rows if any(cells := [" ".join(cell.split()) for cell in row])]
    if clean:
        lines = (SEPARATOR.join(_without_tail(cells)) for cells in clean)
        out.add(BlockKind.TABLE, "\n".join(lines), label=label_of(clean, headers))


def label_of(rows: Sequence[Row], headers: int | None = None) -> str:
    """Return caption and header on one line, units beside their columns; "" where a table has neither."""
    captions = _captions(rows)
    body = rows[captions:]
    count = header_rows(body) if headers is None else headers
    columns = [" ".join(filter(None, column)) for column in _columns(body[:count])]
    parts = [" ".join(filter(None, row)) for row in rows[:captions]]
    parts += [SEPARATOR.join(filter(None, columns))] if any(columns) else []
    label = " ".join(filter(None, parts))
    return label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1].rstrip() + "…"


def header_rows(rows: Sequence[Row]) -> int:
    """Guess how many of the first rows say what the columns are: 0, 1, or 2 if the second holds units.

    The first row is taken for a header if no cell of it is a number or date and every column has a name of its own.
    """
    if len(rows) < 2:
        return 0
    names = [cell for cell in rows[0] if cell]
    widths = [sum(map(bool, row)) for row in rows[1:_LOOKED_AT]]
    if not names or len(names) + 1 < max(widths) or len(set(names)) < len(names):
        return 0
    if any(map(is_value, names)):
        return 0
    has_values = any(is_value(cell) for row in rows[1:_LOOKED_AT] for cell in row)
    if not has_values and len(rows) < 3:
        return 0
    units = [cell for cell in rows[1] if cell]
    return 2 if len(rows) > 2 and units and all(map(_UNIT.fullmatch, units)) else 1


def is_value(cell: str) -> bool:
    """Whether a cell is a number, an amount or a date."""
    return _NUMBER.fullmatch(cell) is not None or _DATE.fullmatch(cell) is not None


def _without_tail(cells: list[str]) -> list[str]:
    """Return the cells up to the last one that holds anything."""
    return cells[: max(at for at, cell in enumerate(cells, start=1) if cell)]


def _captions(rows: Sequence[Row]) -> int:
    """Return how many of the first rows are one cell over a table of several columns."""
    if max((sum(map(bool, row)) for row in rows[:_LOOKED_AT]), default=0) < 2:
        return 0
    return next((index for index, row in enumerate(rows) if sum(map(bool, row)) != 1), 0)


def _columns(rows: Sequence[Row]) -> list[list[str]]:
    width = max(map(len, rows), default=0)
    return [[row[at] if at < len(row) else "" for row in rows] for at in range(width)]
