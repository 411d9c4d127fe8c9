"""``terakoya chains``: tasks learned one after the other, what each left for the next, and how it went."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from terakoya.cli.output import (
    JsonOption,
    YesOption,
    json_wanted,
    print_json,
    print_table,
    remark,
    say,
    size_text,
)
from terakoya.cli.texts import _, shared

app = typer.Typer(help=_("Chains: tasks learned one after the other."), no_args_is_help=True, rich_markup_mode=None)
ChainArgument = Annotated[
    str, typer.Argument(help=_("Id of the chain, or name or id of a model in it."), show_default=False)
]
DatasetArgument = Annotated[str, typer.Argument(help=_("Name or id of the next task's dataset."), show_default=False)]
NameOption = Annotated[str | None, typer.Option(help=_("Name of the model that comes out."))]
RecipeOption = Annotated[
    Path | None, typer.Option(help=_("YAML with further settings; what stands on the command line goes before it."))
]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help=_("Stay and show progress and report card."))]
BudgetOption = Annotated[
    float | None, typer.Option(help=_("How much worse earlier tasks may become, in nats a label (ewc)."))
]
PenaltyOption = Annotated[
    float | None, typer.Option(help=_("A fixed lambda instead of a budget; 0 for no penalty (ewc)."))
]
ShareOption = Annotated[
    float | None, typer.Option(help=_("Share of the rows kept for later tasks; 0 keeps none (ewc)."))
]
EpochsOption = Annotated[int | None, typer.Option(help=_("Passes over the training rows."), min=1)]
StepsOption = Annotated[int | None, typer.Option(help=_("Optimizer steps, instead of epochs."), min=1)]
RateOption = Annotated[float | None, typer.Option(help=_("Peak learning rate; by default chosen by the model's size."))]


@app.command("list", help=_("List chains, newest first."))
def list_chains(json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        chains = connection.client.chains.list()
    if json_wanted():
        print_json({"chains": chains})
        return
    print_table(
        (_("id"), _("name"), _("tasks"), _("trains"), _("begun with"), _("go on from"), _("size"), _("problem")),
        [
            (
                chain["id"],
                chain["name"],
                chain["tasks"],
                chain["space"],
                chain["base"] and chain["base"]["name"],
                ", ".join(chain["heads"]),
                size_text(chain["size_bytes"]),
                chain["problem"],
            )
            for chain in chains
        ],
        empty=_("There are no chains yet. Begin one: terakoya chains begin MODEL DATASET"),
    )


@app.command("show", help=_("Show the tasks of a chain and check every byte of it."))
def show(chain: ChainArgument, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        found = connection.client.chains.get(chain)
        verdict = connection.client.chains.verify(found["id"])
    if json_wanted():
        print_json(found | {"verified": verdict})
        return
    base = found["base"]["name"] if found["base"] else _("deleted")
    say(_("Chain %(name)s (%(id)s), begun with %(base)s", name=found["name"], id=found["id"], base=base))
    _print_links(found, verdict)
    if found["running"]:
        say(_("Unfinished runs: %(runs)s", runs=", ".join(found["running"])))
    _print_damages(verdict)


@app.command("matrix", help=_("Show the scores of every task after every task of a chain."))
def matrix(
    chain: ChainArgument,
    model: Annotated[str | None, typer.Option(help=_("The model up to which, where the chain branches."))] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.chain_matrix import print_matrix
    from terakoya.cli.connection import connect

    with connect() as connection:
        found = connection.client.chains.matrix(chain, model=model)
    print_json(found) if json_wanted() else print_matrix(found)


@app.command("begin", help=_("Learn the first task of a new chain."))
def begin(
    model: Annotated[str, typer.Argument(help=_("Name or id of the model to tune."), show_default=False)],
    dataset: DatasetArgument,
    name: NameOption = None,
    base: Annotated[str | None, typer.Option(help=_("What ewc trains: lora (default) or full."))] = None,
    replay_share: ShareOption = None,
    epochs: EpochsOption = None,
    max_steps: StepsOption = None,
    learning_rate: RateOption = None,
    recipe: RecipeOption = None,
    watch: WatchOption = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.train import given, retention_fields, with_recipe

    options = given(
        name=name,
        base=base,
        retention=retention_fields(None, None, replay_share),
        epochs=epochs,
        max_steps=max_steps,
        learning_rate=learning_rate,
    )
    options = with_recipe(recipe, {"model": model, "dataset": dataset} | options)
    _start(lambda client: client.chains.begin(**options), watch=watch)


@app.command("extend", help=_("Learn the next task of a chain without losing the earlier ones."))
def extend(
    chain: ChainArgument,
    dataset: DatasetArgument,
    after: Annotated[
        str | None, typer.Option(help=_("The model to go on from, where the chain has more than one."))
    ] = None,
    branch: Annotated[
        bool, typer.Option("--branch", help=_("Begin a branch where another task has gone on from that model."))
    ] = False,
    name: NameOption = None,
    budget: BudgetOption = None,
    penalty: PenaltyOption = None,
    replay_share: ShareOption = None,
    epochs: EpochsOption = None,
    max_steps: StepsOption = None,
    learning_rate: RateOption = None,
    recipe: RecipeOption = None,
    watch: WatchOption = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.train import given, retention_fields, with_recipe

    options = given(
        after=after,
        name=name,
        retention=retention_fields(budget, penalty, replay_share),
        epochs=epochs,
        max_steps=max_steps,
        learning_rate=learning_rate,
    )
    options = with_recipe(recipe, {"dataset": dataset} | options)
    _start(lambda client: client.chains.extend(chain, branch=branch, **options), watch=watch)


@app.command("branch", help=_("Learn another task from a model that a task has gone on from already."))
def branch(
    model: Annotated[str, typer.Argument(help=_("Name or id of the model to branch from."), show_default=False)],
    dataset: DatasetArgument,
    name: NameOption = None,
    budget: BudgetOption = None,
    penalty: PenaltyOption = None,
    replay_share: ShareOption = None,
    epochs: EpochsOption = None,
    max_steps: StepsOption = None,
    learning_rate: RateOption = None,
    recipe: RecipeOption = None,
    watch: WatchOption = False,
    json_output: JsonOption = False,
) -> None:
    extend(
        model,
        dataset,
        after=model,
        branch=True,
        name=name,
        budget=budget,
        penalty=penalty,
        replay_share=replay_share,
        epochs=epochs,
        max_steps=max_steps,
        learning_rate=learning_rate,
        recipe=recipe,
        watch=watch,
    )


@app.command("verify", help=_("Check every byte of a chain against its hashes."))
def verify(chain: ChainArgument, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        verdict = connection.client.chains.verify(chain)
    if json_wanted():
        print_json(verdict)
    else:
        _print_damages(verdict)
    if not verdict["intact"]:
        raise typer.Exit(1)


@app.command("erase", help=_("Erase the rows that a chain keeps of its tasks, for good."))
def erase(
    chain: ChainArgument,
    link: Annotated[str | None, typer.Option(help=_("Only those of this link."))] = None,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        found = connection.client.chains.get(chain)
        for cost in found["erasing_costs"]:
            remark("- " + shared(f"cost.{cost['code']}", otherwise=cost["message"]))
        if not yes:
            typer.confirm(_("Erase the kept rows of %(name)s?", name=link or found["name"]), abort=True, err=True)
        erased = connection.client.chains.erase_rows(found["id"], link=link)
    if json_wanted():
        print_json(erased)
        return
    say(_("Erased %(rows)s rows, %(size)s.", rows=erased["rows"], size=size_text(erased["freed_bytes"])))


@app.command("delete", help=_("Delete a chain with all its folders, or the last link of a branch."))
def delete(
    chain: ChainArgument,
    link: Annotated[
        str | None, typer.Option(help=_("Only this link, the last of its branch, whose model is gone."))
    ] = None,
    models: Annotated[bool, typer.Option("--models", help=_("The chain's models too."))] = False,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        found = connection.client.chains.get(chain)
        if not yes:
            typer.confirm(_("Delete chain %(name)s?", name=link or found["name"]), abort=True, err=True)
        if link is None:
            connection.client.chains.delete(found["id"], models=models)
        else:
            connection.client.chains.delete_link(found["id"], link)
    name = link or found["id"]
    print_json({"deleted": name}) if json_wanted() else remark(_("Deleted %(name)s.", name=name))


def _start(start: Any, *, watch: bool) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.follow import follow, leave_running

    with connect() as connection:
        task_id = start(connection.client)
        if watch:
            if not json_wanted():
                remark(_("Run %(id)s", id=task_id))
            follow(connection, task_id)
            return
        if json_wanted():
            print_json({"task_id": task_id})
        else:
            say(_("Started run %(id)s\nWatch it: terakoya tasks watch %(id)s", id=task_id))
        leave_running(connection, task_id)


def _print_links(found: Mapping[str, Any], verdict: Mapping[str, Any]) -> None:
    intact = {each["link"]: each["intact"] for each in verdict["links"]}
    print_table(
        (
            _("task"),
            _("link"),
            _("model"),
            _("dataset"),
            _("after"),
            _("lambda"),
            _("kept rows"),
            _("size"),
            _("bytes"),
        ),
        [
            (
                link["number"],
                link["link"],
                link["model"]["name"] if link["model"] else _("deleted"),
                link["dataset"] or link["data_sha256"][:12],
                link["parent"],
                f"{link['strength']:.3g}",
                _kept(link["kept"]),
                size_text(link["size_bytes"]),
                _("as written") if intact.get(link["link"]) else _("damaged"),
            )
            for link in found["links"]
        ],
        empty=_("This chain has no link yet: its first run has not ended."),
    )


def _kept(kept: Mapping[str, Any]) -> str:
    if kept["erased"]:
        return _("erased")
    return _("%(replay)s to rehearse, %(heldout)s to score", replay=kept["replay_rows"], heldout=kept["heldout_rows"])


def _print_damages(verdict: Mapping[str, Any]) -> None:
    if verdict["intact"]:
        say(_("Every byte is as it was written."))
    for link in verdict["links"]:
        for damage in link["damages"]:
            say(_("%(link)s: %(file)s is %(problem)s", link=link["link"], **_in_words(damage)))
        if link["problem"]:
            say(f"{link['link']}: {link['problem']}")


def _in_words(damage: Mapping[str, str]) -> dict[str, str]:
    words = {"missing": _("missing"), "changed": _("changed"), "foreign": _("not part of it")}
    return {"file": damage["file"], "problem": words.get(damage["problem"], damage["problem"])}
