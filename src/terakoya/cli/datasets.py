"""``terakoya datasets``: training data on the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terakoya.cli.output import (
    JsonOption,
    YesOption,
    json_wanted,
    print_info,
    print_json,
    print_table,
    remark,
    say,
    size_text,
)
from terakoya.cli.texts import _

app = typer.Typer(help=_("Training data."), no_args_is_help=True, rich_markup_mode=None)
DatasetArgument = Annotated[str, typer.Argument(help=_("Name or id of the dataset."), show_default=False)]


@app.command("list", help=_("List datasets."))
def list_datasets(json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        datasets = connection.client.datasets.list()
    if json_wanted():
        print_json({"datasets": datasets})
        return
    print_table(
        (_("name"), _("rows"), _("held out"), _("format"), _("size")),
        [
            (
                dataset["name"],
                f"{dataset['rows']:,}",
                f"{dataset['heldout_rows']:,}",
                dataset["format"],
                size_text(dataset["size_bytes"]),
            )
            for dataset in datasets
        ],
        empty=_("There are no datasets yet. Add one: terakoya datasets add FILE"),
    )


@app.command("add", help=_("Upload a JSONL file; every row is checked."))
def add(
    file: Annotated[Path, typer.Argument(help=_("File of one JSON object a line."), show_default=False)],
    name: Annotated[str | None, typer.Option(help=_("Name; by default the file's."))] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        info = connection.client.datasets.add(file, name=name)
    if json_wanted():
        print_json(info)
        return
    say(_("Added %(name)s: %(rows)s rows, id %(id)s", name=info["name"], rows=info["rows"], id=info["id"]))
    for notice in info.get("notices") or ():
        remark(f"  {notice}")


@app.command("show", help=_("Show one dataset."))
def show(dataset: DatasetArgument, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        info = connection.client.datasets.get(dataset)
    print_info(info)


@app.command("preview", help=_("Show its first rows."))
def preview(
    dataset: DatasetArgument,
    limit: Annotated[int, typer.Option(help=_("How many rows."), min=1)] = 5,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        rows = connection.client.datasets.preview(dataset, limit=limit)
    if json_wanted():
        print_json({"rows": rows})
        return
    for row in rows:
        say(_("row %(number)s", number=row.get("row", "?")) + (f" [{row['split']}]" if row.get("split") else ""))
        for message in row.get("messages", ()):
            say(f"  {message['role']}: {message['content']}")


@app.command("delete", help=_("Delete a dataset."))
def delete(
    dataset: DatasetArgument,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        info = connection.client.datasets.get(dataset)
        if not yes:
            typer.confirm(_("Delete dataset %(name)s?", name=info["name"]), abort=True, err=True)
        connection.client.datasets.delete(info["id"])
    print_json({"deleted": info["id"]}) if json_wanted() else remark(_("Deleted %(name)s.", name=info["name"]))
