"""``terakoya models``: the registry, and one prompt put to several models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from terakoya.cli.compare import compare
from terakoya.cli.output import (
    JsonOption,
    YesOption,
    json_wanted,
    print_fields,
    print_info,
    print_json,
    print_table,
    remark,
    say,
    size_text,
)
from terakoya.cli.texts import _
from terakoya.models.export_formats import DEFAULT_FORMAT, ExportFormat

app = typer.Typer(help=_("Models: the ones pulled and the ones tuned."), no_args_is_help=True, rich_markup_mode=None)
app.command("compare", help=_("Put one prompt to several models and show their answers."))(compare)
ModelArgument = Annotated[str, typer.Argument(help=_("Name or id of the model."), show_default=False)]


@app.command("list", help=_("List models, newest first, with what each was made from."))
def list_models(json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        models = connection.client.models.list()
    if json_wanted():
        print_json({"models": models})
        return
    names = {model["id"]: model["name"] for model in models}
    print_table(
        (_("name"), _("kind"), _("made from"), _("parameters"), _("size"), _("licence"), _("stage"), _("tags")),
        [
            (
                model["name"],
                model["kind"],
                names.get(model["parent_id"], model["parent_id"]),
                f"{model['parameters'] / 1e6:,.1f} M" if model["parameters"] else "",
                size_text(model["size_bytes"]) if model["size_bytes"] else "",
                model["license"],
                model["stage"],
                ", ".join(model["tags"]),
            )
            for model in models
        ],
        empty=_("There are no models yet. Fetch one: terakoya models pull smollm2-135m-instruct-q4_1"),
    )


@app.command("show", help=_("Show one model."))
def show(model: ModelArgument, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        info = connection.client.models.get(model)
    if json_wanted():
        print_json(info)
        return
    said = {name: value for name, value in info.items() if name not in ("card", "history", "lineage")}
    print_fields({"line": _line(info["history"])} | said | {"card": info["card"]})


def _line(history: list[dict[str, Any]]) -> str:
    """Such as "base (base) -> tuned (adapter, task_1) -> tuned-merged (merged, task_2)"."""
    return " -> ".join(
        f"{step['name']} ({', '.join(part for part in (step['kind'], step['task_id']) if part)})" for step in history
    )


@app.command("card", help=_("Print a model's card: its origin, data, settings, scores, licence and limits."))
def card(model: ModelArgument) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        say(connection.client.models.card(model))


@app.command(
    "pull",
    help=_(
        "Fetch a model: a starter by its id, hf:organisation/name@revision from a model hub, folder:NAME or "
        "file:NAME.gguf from the import folder. Its hashes and files are checked."
    ),
)
def pull(
    source: Annotated[str, typer.Argument(help=_("Id of a starter model, or a source."), show_default=False)],
    name: Annotated[str | None, typer.Option(help=_("Name to keep it under."))] = None,
    base: Annotated[str | None, typer.Option(help=_("Of an adapter: the model that it belongs to."))] = None,
    once: Annotated[
        bool, typer.Option("--once", help=_("Do nothing if this data folder has fetched it before."))
    ] = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.settings import read_settings

    marker = read_settings().data_dir / "cache" / f"fetched-{Path(source).name}"
    if once and marker.exists():
        return
    from terakoya.cli.connection import connect
    from terakoya.cli.follow import follow
    from terakoya.exceptions import Conflict

    with connect() as connection:
        try:
            task_id = connection.client.models.pull(source, name=name, base=base)
        except Conflict:
            if not once:
                raise
        else:
            follow(connection, task_id)
    if once:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()


@app.command("mark", help=_("Say something of a model: notes, tags, a stage, its licence, the engine that answers."))
def mark(
    model: ModelArgument,
    notes: Annotated[str | None, typer.Option(help=_("Notes, in place of those there are."))] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help=_("A tag; all of them take the old ones' place."))
    ] = None,
    stage: Annotated[str | None, typer.Option(help=_("draft or approved."))] = None,
    engine: Annotated[str | None, typer.Option(help=_("auto, llama.cpp or pytorch."))] = None,
    license: Annotated[str | None, typer.Option(help=_("Its licence, where its source does not say."))] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    marks = {"notes": notes, "tags": tag, "stage": stage, "engine": engine, "license": license}
    with connect() as connection:
        given = {name: value for name, value in marks.items() if value is not None}
        print_info(connection.client.models.mark(model, **given))


@app.command("merge", help=_("Put an adapter into its base's weights, and check the result."))
def merge(
    model: ModelArgument,
    name: Annotated[str | None, typer.Option(help=_("Name to keep it under."))] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.follow import follow

    with connect() as connection:
        follow(connection, connection.client.models.merge(model, name=name))


@app.command("interpolate", help=_("Score points between the weights before and after a run; keep one."))
def interpolate(
    model: ModelArgument,
    share: Annotated[
        list[float] | None, typer.Option(help=_("A point to score, 0 before to 1 after; may be repeated."))
    ] = None,
    keep: Annotated[float | None, typer.Option(help=_("Register this point as a model."))] = None,
    rows: Annotated[int | None, typer.Option(help=_("Held-out rows of each task to score at most."), min=1)] = None,
    name: Annotated[str | None, typer.Option(help=_("Name to keep it under."))] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.follow import follow

    asked = {"shares": share or None, "keep": keep, "rows": rows, "name": name}
    options = {field: value for field, value in asked.items() if value is not None}
    with connect() as connection:
        follow(connection, connection.client.models.interpolate(model, **options))


@app.command("export", help=_("Write a model in another form, open it again and check it."))
def export(
    model: ModelArgument,
    format: Annotated[
        str,
        typer.Option(
            "--format", help=_("One of %(formats)s; GGUF with an Ollama Modelfile.", formats=", ".join(ExportFormat))
        ),
    ] = DEFAULT_FORMAT.value,
    name: Annotated[str | None, typer.Option(help=_("Name to keep it under."))] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.follow import follow

    with connect() as connection:
        follow(connection, connection.client.models.export(model, format, name=name))


@app.command("load", help=_("Open a model now, so that its first answer need not wait for it."))
def load(model: ModelArgument, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        loaded = connection.client.models.load(model)
    if json_wanted():
        print_json(loaded)
    else:
        remark(_("%(name)s is open in %(engine)s (%(seconds)s s).", name=model, **loaded))


@app.command("unload", help=_("Close a model, so that its memory is free."))
def unload(model: ModelArgument, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        connection.client.models.unload(model)
    print_json({"closed": model}) if json_wanted() else remark(_("%(name)s is closed.", name=model))


@app.command("rerank", help=_("Order texts by how well they answer a question, with a reranker."))
def rerank(
    model: ModelArgument,
    query: Annotated[str, typer.Argument(help=_("What is asked."), show_default=False)],
    documents: Annotated[list[str], typer.Argument(help=_("The texts."), show_default=False)],
    top: Annotated[int | None, typer.Option(help=_("So many of the best; all of them unless given."), min=1)] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        results = connection.client.models.rerank(model, query, documents, top_n=top)
    if json_wanted():
        print_json(results)
        return
    for result in results:
        say(f"{result['relevance_score']:.3f}  {documents[result['index']]}")


@app.command("delete", help=_("Delete a model that no other is built on."))
def delete(
    model: ModelArgument,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        info = connection.client.models.get(model)
        if not yes:
            typer.confirm(_("Delete model %(name)s?", name=info["name"]), abort=True, err=True)
        connection.client.models.delete(info["id"])
    print_json({"deleted": info["id"]}) if json_wanted() else remark(_("Deleted %(name)s.", name=info["name"]))
