"""What the command line prints: results on stdout, remarks on stderr; under ``--json`` only JSON, on stdout. Knows no
command.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terakoya.cli.texts import _, explain
from terakoya.exceptions import AppException

if TYPE_CHECKING:
    from rich.console import Console

_json_wanted = False


def _choose_json(wanted: bool) -> bool:
    global _json_wanted
    _json_wanted = wanted
    return wanted


JsonOption = Annotated[bool, typer.Option("--json", help=_("Print JSON only."), callback=_choose_json)]
"""Declared by every command that prints something."""


YesOption = Annotated[bool, typer.Option("--yes", "-y", help=_("Do not ask."))]


def json_wanted() -> bool:
    return _json_wanted


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def say(text: str) -> None:
    """Print a result for a person."""
    print(text, flush=True)


def remark(text: str) -> None:
    """Say what is going on, beside the result; silent under ``--json``."""
    if not _json_wanted:
        print(text, file=sys.stderr, flush=True)


def print_error(error: AppException) -> None:
    if _json_wanted:
        details = {} if error.details is None else {"details": error.details}
        print_json({"error": str(error), "code": error.code} | details)
    else:
        print(_("Error: %(message)s", message=explain("error", error.code, error)), file=sys.stderr, flush=True)


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    # Rich takes 80 columns for a pipe, which need not be cut short.
    return made if made.is_terminal or "COLUMNS" in os.environ else Console(stderr=stderr, highlight=False, width=200)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print rows under headings, or the sentence ``empty``."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        # An id is there to be copied: never broken, never cut.
        table.add_column(column, no_wrap=column == _("id"), overflow="fold")
    for row in rows:
        table.add_row(*(escape("-" if cell is None or cell == "" else str(cell)) for cell in row))
    if table.row_count:
        console().print(table)
    else:
        say(empty)


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print ``name: value`` lines, nested names with a dot, leaving out what is empty."""
    lines = dict(_flattened(fields))
    width = max(map(len, lines), default=0)
    for name, value in lines.items():
        say(f"{name:<{width}}  {value}")


def print_info(info: Mapping[str, Any]) -> None:
    """Print one thing: as JSON, or its fields."""
    print_json(info) if json_wanted() else print_fields(info)


def _flattened(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        elif value not in (None, "", []):
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def size_text(size_bytes: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def duration_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
