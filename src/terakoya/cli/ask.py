"""``terakoya ask``: a question to the documents, answered with numbered citations or refused with the nearest
evidence. Both are answers: only a failure is a failure.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import typer

from terakoya.cli.output import JsonOption, json_wanted, print_json, remark, say
from terakoya.cli.texts import _

_SHOWN_EVIDENCE = 3
_SHOWN_CHARACTERS = 160
Mode = Literal["auto", "extractive", "generative"]


def ask(
    question: Annotated[str, typer.Argument(help=_("What to ask."), show_default=False)],
    collection: Annotated[str, typer.Option(help=_("Name or id of the collection."))] = "default",
    mode: Annotated[
        Mode, typer.Option(help=_("extractive quotes sentences; generative lets a model write; auto chooses."))
    ] = "auto",
    model: Annotated[str | None, typer.Option(help=_("Name or id of the model that may write the answer."))] = None,
    top_k: Annotated[int, typer.Option(help=_("Passages to show as evidence at most."), min=1, max=50)] = 10,
    document: Annotated[list[str] | None, typer.Option(help=_("Only this document, by id; may be repeated."))] = None,
    type: Annotated[list[str] | None, typer.Option(help=_("Only documents of this type, such as pdf."))] = None,
    language: Annotated[list[str] | None, typer.Option(help=_("Only documents in this language: ja, en."))] = None,
    tag: Annotated[list[str] | None, typer.Option(help=_("Only documents with this tag; may be repeated."))] = None,
    after: Annotated[
        list[str] | None, typer.Option(help=_("An earlier question that this one leans on; may be repeated."))
    ] = None,
    since: Annotated[str | None, typer.Option(help=_("Only documents added on this day or later: 2026-01-31."))] = None,
    until: Annotated[str | None, typer.Option(help=_("Only documents added on this day or earlier."))] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    wanted = {"document": document, "type": type, "language": language, "tags": tag}
    filters = {name: value for name, value in {**wanted, "date_from": since, "date_to": until}.items() if value}
    with connect() as connection:
        events = connection.client.ask_stream(
            question,
            collection=collection,
            mode=mode,
            model=model,
            top_k=top_k,
            filters=filters or None,
            earlier=after or (),
        )
        answer = _follow(events)
    if json_wanted():
        print_json(answer)
        return
    print_answer(answer)
    if model is not None and answer["mode"] == "extractive" and "reason" in answer["details"]:
        remark(answer["details"]["reason"])  # the model was wanted, but has not written


def print_answer(answer: dict[str, Any]) -> None:
    """Print the answer with its citations, or the refusal with the nearest passages."""
    if rewritten := answer["details"].get("rewritten"):
        remark(_("Looked for: %(question)s", question=rewritten))
    if answer["verdict"] == "not_in_documents":
        say(_("The documents do not hold the answer."))
        if answer["evidence"]:
            say("\n" + _("Nearest passages:"))
        for hit in answer["evidence"][:_SHOWN_EVIDENCE]:
            say(f"  - {_place(hit)}: {_short(hit['text'])}")
    else:
        say(answer["answer"] + "\n")
        shown: set[int] = set()
        for citation in answer["citations"]:
            if citation["verified"] and citation["number"] not in shown:
                shown.add(citation["number"])
                say(f"[{citation['number']}] {_place(citation)}: {_quoted(citation['quote'])}")
        _remark_unverified(answer)
    if answer["mode"] == "generative":
        remark(_("Written by %(model)s; its citations were checked for numbers and words.", model=answer["model"]))
    elif answer["verdict"] == "answered":
        remark(_("Quoted from the documents, word for word."))


def _follow(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Show a person the text while it is being written, on stderr; return the checked answer."""
    from terakoya.client.errors import error_from_envelope
    from terakoya.exceptions import Unavailable

    watched = sys.stderr.isatty() and not json_wanted()
    drafted = False
    for event in events:
        if event["type"] == "token" and watched:
            print(event["text"], end="", file=sys.stderr, flush=True)
            drafted = True
        elif event["type"] == "error":
            raise error_from_envelope(event)
        elif event["type"] == "done":
            if drafted:
                print("\n", file=sys.stderr, flush=True)
            answer: dict[str, Any] = event["answer"]
            return answer
    raise Unavailable("the server ended the answer before it was complete")


def _remark_unverified(answer: dict[str, Any]) -> None:
    failed = [citation for citation in answer["citations"] if not citation["verified"]]
    if failed:
        reasons = ", ".join(sorted({citation["support"] for citation in failed}))
        remark(_("%(count)s citations failed the check (%(reasons)s).", count=len(failed), reasons=reasons))


def _place(found: dict[str, Any]) -> str:
    page = _("%(title)s, p. %(page)s", title=found["title"], page=found["page"])
    return page if found["page"] is not None else str(found["title"])


def _quoted(text: str) -> str:
    return _("“%(text)s”", text=" ".join(text.split()))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS].rstrip() + "…"
