"""``terakoya datasets``: training data on the server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from terakoya.cli.texts import _, shared
from terakoya.exceptions import InvalidConfig, InvalidDataset

if TYPE_CHECKING:
    from terakoya.client.client import Client

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


@app.command("add", help=_("Upload a file of rows (JSONL, JSON, CSV, TSV, Parquet, also .gz); every row is checked."))
def add(
    file: Annotated[Path, typer.Argument(help=_("The file."), show_default=False)],
    name: Annotated[str | None, typer.Option(help=_("Name; by default the file's."))] = None,
    map: Annotated[
        list[str] | None,
        typer.Option(
            help=_("Which column is what, once for each: --map prompt=Frage --map answer=Antwort"),
            metavar="MEANING=COLUMN",
            show_default=False,
        ),
    ] = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help=_("Leave bad rows out instead of refusing the file."))
    ] = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.dataset_report import findings

    mapping = _mapping(map or [])
    with connect() as connection:
        info = add_explained(connection.client, file, name=name, mapping=mapping, skip_bad_rows=skip_bad_rows)
        found = connection.client.datasets.report(info["id"])
    if json_wanted():
        print_json(info)
        return
    say(_("Added %(name)s: %(rows)s rows, id %(id)s", name=info["name"], rows=info["rows"], id=info["id"]))
    for finding in findings(found):
        remark(f"  {finding}")


def add_explained(client: Client, file: Path, **options: Any) -> dict[str, Any]:
    """Upload a file. Raises: InvalidDataset, its bad rows having been shown, and whatever else the server says."""
    try:
        return client.datasets.add(file, **options)
    except InvalidDataset as error:
        raise _explained(error) from error


@app.command("report", help=_("Show what the check of every row found."))
def report(dataset: DatasetArgument, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.dataset_report import print_report

    with connect() as connection:
        found = connection.client.datasets.report(dataset)
    print_json(found) if json_wanted() else print_report(found)


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
        for part in ("rejected", "text"):
            if part in row:
                say(f"  {shared(f'part.{part}')}: {row[part]}")


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


def _mapping(pairs: list[str]) -> dict[str, str]:
    """Return ``meaning=column`` pairs as a mapping. Raises: InvalidConfig."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        meaning, equals, column = pair.partition("=")
        if not equals or not meaning or not column:
            raise InvalidConfig(f"--map takes MEANING=COLUMN, such as prompt=Frage; got {pair!r}")
        if meaning in mapping:
            raise InvalidConfig(f"--map names {meaning!r} twice: {mapping[meaning]!r} and {column!r}")
        mapping[meaning] = column
    return mapping


def _explained(error: InvalidDataset) -> InvalidDataset:
    """Show the bad rows of a refused file, and return the error in a sentence; as it is without rows, or for JSON."""
    from terakoya.cli.dataset_report import print_bad_rows

    report = (error.details or {}).get("report")
    if json_wanted() or not report or not report["bad_rows"]:
        return error
    print_bad_rows(report)
    counts = {name: f"{report['rows'][name]:,}" for name in ("bad", "read")}
    return InvalidDataset(
        _("%(bad)s of %(read)s rows cannot be used: correct them, name columns with --map, or add --skip-bad-rows")
        % counts
    )
