"""``terakoya compare``: one prompt to several models. On a terminal their answers grow side by side; elsewhere each is
printed as it comes, one model after the other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from terakoya.cli.output import JsonOption, console, json_wanted, print_json, remark
from terakoya.cli.texts import _

if TYPE_CHECKING:
    from rich.console import RenderableType

_REDRAWS_PER_SECOND = 8


def compare(
    prompt: Annotated[str, typer.Argument(help=_("What to ask."), show_default=False)],
    models: Annotated[list[str], typer.Argument(help=_("Names or ids of models."), show_default=False)],
    max_tokens: Annotated[int, typer.Option(help=_("Length of an answer at most."), min=1)] = 128,
    temperature: Annotated[float, typer.Option(help=_("0 always takes the likeliest word."), min=0.0)] = 0.0,
    system: Annotated[str | None, typer.Option(help=_("Instruction before the prompt."))] = None,
    seed: Annotated[int | None, typer.Option(help=_("Seed for temperatures above 0."), min=0)] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        names = {info["id"]: info["name"] for info in connection.client.models.list()}
        events = connection.client.compare(
            prompt, models, max_tokens=max_tokens, temperature=temperature, system=system, seed=seed
        )
        failed = show_answers(events, names)
    if failed:
        raise typer.Exit(1)


def show_answers(events: Iterable[dict[str, Any]], names: dict[str, str]) -> bool:
    """Print the answers as they come; under ``--json`` each event. Returns whether one failed."""
    failed = False
    with _shown(names) as page:
        for event in events:
            failed = failed or "error" in event
            page.take(event)
    return failed


class _Page(Protocol):
    def take(self, event: dict[str, Any]) -> None: ...


@contextmanager
def _shown(names: dict[str, str]) -> Iterator[_Page]:
    if json_wanted():
        yield _Lines()
    elif sys.stdout.isatty():
        with _Columns(names).live() as columns:
            yield columns
    else:
        yield _OneByOne(names)


class _Lines:
    def take(self, event: dict[str, Any]) -> None:
        print_json(event)


class _Answers:
    """What has come so far, by model, in the order in which they began."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        self.texts: dict[str, str] = {}
        self.ended: set[str] = set()

    def note(self, event: dict[str, Any]) -> str:
        """Return the model."""
        model = str(event["model"])
        self.texts[model] = self.texts.get(model, "") + event.get("delta", "")
        if "finished" in event or "error" in event:
            self.ended.add(model)
        return model

    def name(self, model: str) -> str:
        return self._names.get(model, model)

    def complain(self, event: dict[str, Any]) -> None:
        if "error" in event:
            remark(_("%(name)s: %(error)s", name=self.name(event["model"]), error=event["error"]))


class _OneByOne:
    """The first answer as it is written, each next one when those before it have ended."""

    def __init__(self, names: dict[str, str]) -> None:
        self._answers = _Answers(names)
        self._printed: dict[str, int] = {}
        self._closed: set[str] = set()

    def take(self, event: dict[str, Any]) -> None:
        self._answers.note(event)
        self._answers.complain(event)
        for model, text in self._answers.texts.items():
            if model in self._closed:
                continue
            if model not in self._printed:
                print(f"[{self._answers.name(model)}]")
            print(text[self._printed.get(model, 0) :], end="", flush=True)
            self._printed[model] = len(text)
            if model not in self._answers.ended:
                return
            print("\n", flush=True)
            self._closed.add(model)


class _Columns:
    """All answers beside each other, redrawn as they grow; at the end they stay as they are."""

    def __init__(self, names: dict[str, str]) -> None:
        self._answers = _Answers(names)

    @contextmanager
    def live(self) -> Iterator[_Columns]:
        from rich.live import Live

        with Live(get_renderable=self._drawn, console=console(), refresh_per_second=_REDRAWS_PER_SECOND) as live:
            yield self
            live.vertical_overflow = "visible"

    def take(self, event: dict[str, Any]) -> None:
        self._answers.note(event)
        self._answers.complain(event)

    def _drawn(self) -> RenderableType:
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

        table = Table(expand=True)
        for model in self._answers.texts:
            table.add_column(escape(self._answers.name(model)), ratio=1, overflow="fold")
        table.add_row(*(Text(text.strip()) for text in self._answers.texts.values()))
        return table
