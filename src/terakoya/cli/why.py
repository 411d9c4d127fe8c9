"""``terakoya why`` and ``terakoya trace``: where a passage was lost for a question, and what a question did."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from terakoya.cli.output import JsonOption, json_wanted, print_fields, print_json, print_table, say
from terakoya.cli.texts import _

_SHOWN_HITS = 20


def why(
    question: Annotated[str, typer.Argument(help=_("What was asked."), show_default=False)],
    document: Annotated[str, typer.Argument(help=_("Id of the document that was missed."), show_default=False)],
    quote: Annotated[str | None, typer.Option(help=_("Words of the passage that was missed."))] = None,
    collection: Annotated[str, typer.Option(help=_("Name or id of the collection."))] = "default",
    top_k: Annotated[int, typer.Option(help=_("Passages that were shown."), min=1, max=50)] = 10,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        found = connection.client.why(question, document, quote=quote, collection=collection, top_k=top_k)
    if json_wanted():
        print_json(found)
        return
    say(_("Lost at: %(stage)s", stage=found["lost_at"]))
    print_fields({name: value for name, value in found.items() if name != "lost_at"})


def trace(
    trace: Annotated[str, typer.Argument(help=_("Id of the trace, from an answer."), show_default=False)],
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        found = connection.client.trace(trace)
    if json_wanted():
        print_json(found)
        return
    print_fields({name: value for name, value in found.items() if name not in ("hits", "sentences", "citations")})
    print_table(
        (_("rank"), _("document"), _("place"), _("score"), _("by meaning"), _("by words")),
        [_row(rank, hit) for rank, hit in enumerate(found.get("hits", [])[:_SHOWN_HITS], start=1)],
        empty=_("Nothing was found."),
    )


def _row(rank: int, hit: dict[str, Any]) -> tuple[object, ...]:
    place = f"{hit['start']}-{hit['end']}"
    return rank, hit["document_id"], place, f"{hit['score']:.3f}", _side(hit, "dense"), _side(hit, "sparse")


def _side(hit: dict[str, Any], side: str) -> str:
    score, rank = hit[f"{side}_score"], hit[f"{side}_rank"]
    return "-" if score is None else f"{score:.3f} (#{rank})"
