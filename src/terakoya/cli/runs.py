"""``terakoya runs``: training runs, their recipes and the presets that runs can start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from terakoya.cli.output import JsonOption, json_wanted, print_json, print_table, remark, say
from terakoya.cli.texts import _, shared
from terakoya.exceptions import Conflict

app = typer.Typer(help=_("Training runs: results, recipes, presets."), no_args_is_help=True, rich_markup_mode=None)
RunId = Annotated[str, typer.Argument(help=_("Id of the run."), show_default=False)]


@app.command("list", help=_("List training runs, newest first, with how each was judged."))
def list_runs(json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        runs = connection.client.runs.list()
    if json_wanted():
        print_json({"runs": runs})
        return
    print_table(
        (_("id"), _("name"), _("state"), _("created"), _("verdict")),
        [
            (run["id"], run["name"], shared(f"state.{run['state']}"), run["created_at"][:19], _verdict(run))
            for run in runs
        ],
        empty=_("There are no runs yet. Start one: terakoya train MODEL DATASET"),
    )


@app.command("recipe", help=_("Print the YAML that gives this run again, or write it to a file."))
def recipe(
    run: RunId,
    output: Annotated[Path | None, typer.Option("--output", "-o", help=_("File to write; it must not exist."))] = None,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        text = connection.client.runs.recipe(run)
    if output is None:
        say(text.rstrip("\n"))
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise Conflict(f"the file {str(output)!r} is there already; choose another name") from error
    remark(_("Wrote %(file)s. Run it: terakoya train --recipe %(file)s", file=output))


@app.command("presets", help=_("List the presets with the reason for each."))
def presets(json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        found = connection.client.runs.options()["presets"]
    if json_wanted():
        print_json({"presets": found})
        return
    print_table(
        (_("name"), _("models"), _("settings"), _("reason")),
        [(each["name"], _sizes(each), _settings(each["fields"]), each["reason"]) for each in found],
        empty="",
    )


def _verdict(run: dict[str, Any]) -> str:
    verdict = run["result"].get("verdict")
    if not verdict:
        return ""
    is_share = verdict["metric"] == "exact_match"
    before, after = (f"{verdict[side]:.1%}" if is_share else f"{verdict[side]:.2f}" for side in ("before", "after"))
    if is_share:
        return _("%(before)s to %(after)s right", before=before, after=after)
    return _("loss %(before)s to %(after)s", before=before, after=after)


def _sizes(preset: dict[str, Any]) -> str:
    if not preset["above"] and preset["up_to"] is None:
        return _("any")
    low = f"{preset['above'] / 1e6:,.0f}M" if preset["above"] else "0"
    return f"{low} - {preset['up_to'] / 1e6:,.0f}M" if preset["up_to"] else f"{low} -"


def _settings(fields: dict[str, Any], prefix: str = "") -> str:
    parts = [
        _settings(value, f"{prefix}{name}.") if isinstance(value, dict) else f"{prefix}{name}={value}"
        for name, value in fields.items()
    ]
    return " ".join(parts)
