"""``terakoya evaluate``: how well a collection answers questions whose answers are known. The server does the work;
this sends questions, starts, watches and prints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from terakoya.cli.evaluation_report import print_evaluation
from terakoya.cli.output import JsonOption, YesOption, json_wanted, print_info, print_json, print_table, remark, say
from terakoya.cli.texts import _
from terakoya.exceptions import InvalidConfig

app = typer.Typer(help=_("How well the documents are searched and asked."), no_args_is_help=True, rich_markup_mode=None)
CollectionOption = Annotated[str, typer.Option(help=_("Name or id of the collection."))]
NameOption = Annotated[str | None, typer.Option(help=_("Name of the questions; by default the file's own."))]
QuestionsArgument = Annotated[str, typer.Argument(help=_("Name or id of the questions."), show_default=False)]
EvaluationArgument = Annotated[str, typer.Argument(help=_("Id of the evaluation."), show_default=False)]
SettingsOption = Annotated[
    str | None,
    typer.Option("--with", help=_("Settings to try, such as fusion=rrf,dense_weight=0.6; else the collection's own.")),
]
AgainstOption = Annotated[
    str | None, typer.Option(help=_("Settings to compare with, question by question; 'collection' for its own."))
]
AnswersOption = Annotated[
    Literal["none", "extractive", "generative"],
    typer.Option(help=_("Whose answers are judged; none measures the search alone.")),
]
_COLLECTION = "collection"


@app.command("import", help=_("Import questions: JSONL, JSON, CSV or TSV with question, document, passage, answer."))
def import_questions(
    file: Annotated[Path, typer.Argument(help=_("File of questions."), show_default=False)],
    collection: CollectionOption = "default",
    name: NameOption = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        added = connection.client.evaluations.import_questions(file, collection=collection, name=name)
    _say_added(added)
    for problem in added["problems"]:
        remark(f"  {problem}")
    if added["problem_count"]:
        remark(_("%(count)s questions cannot be judged on the documents as they are.", count=added["problem_count"]))


@app.command("generate", help=_("Make questions from the documents' own words; they are easier than people's."))
def generate(
    name: Annotated[str, typer.Argument(help=_("Name of the questions."), show_default=False)],
    collection: CollectionOption = "default",
    count: Annotated[int, typer.Option(help=_("How many."), min=1, max=1000)] = 100,
    seed: Annotated[int, typer.Option(help=_("Chooses the passages."), min=0)] = 0,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        made = connection.client.evaluations.generate_questions(name, collection=collection, count=count, seed=seed)
    _say_added(made)


@app.command("questions", help=_("List the sets of questions; or show, or delete one."))
def questions(
    show: Annotated[str | None, typer.Option(help=_("Show the questions of this set."))] = None,
    remove: Annotated[str | None, typer.Option("--delete", help=_("Delete this set and its evaluations."))] = None,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        client = connection.client
        if remove is not None:
            if not yes:
                typer.confirm(_("Delete questions %(name)s and their evaluations?", name=remove), abort=True, err=True)
            client.evaluations.delete_questions(remove)
        found = client.evaluations.questions(show, limit=1000) if show is not None else []
        sets = client.evaluations.question_sets()
    if show is not None:
        _print_questions(found)
        return
    if json_wanted():
        print_json({"question_sets": sets})
        return
    print_table(
        (_("name"), _("collection"), _("questions"), _("origin"), _("id")),
        [(one["name"], one["collection"], f"{one['questions']:,}", _origin(one["origin"]), one["id"]) for one in sets],
        empty=_("There are no questions yet: terakoya evaluate import FILE, or terakoya evaluate generate NAME"),
    )


@app.command("run", help=_("Put the questions to their collection; with --against, compare two settings."))
def run(
    questions: QuestionsArgument,
    settings: SettingsOption = None,
    against: AgainstOption = None,
    answers: AnswersOption = "extractive",
    model: Annotated[str | None, typer.Option(help=_("Model that writes generative answers."))] = None,
    against_model: Annotated[
        str | None, typer.Option(help=_("Model of the second configuration, such as a tuned adapter."))
    ] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.follow import follow

    with connect() as connection:
        client = connection.client
        own = _settings_of(client, questions)
        way = {"answers": "generative" if model or against_model else answers}
        chosen = [_configuration(settings or _COLLECTION, own, way, model)]
        if against is not None or against_model is not None:
            chosen.append(_configuration(against or settings or _COLLECTION, own, way, against_model or model))
        task_id = client.evaluations.start(questions, *chosen)
        follow(connection, task_id)
        evaluation = client.evaluations.get(task_id)
    if not json_wanted():
        print_evaluation(evaluation)


@app.command("tune", help=_("Find the settings of the search that suit the questions best."))
def tune(
    questions: QuestionsArgument,
    apply: Annotated[
        bool, typer.Option("--apply", help=_("Set the collection so if they are better on questions not chosen by."))
    ] = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.follow import follow

    with connect() as connection:
        task_id = connection.client.evaluations.tune(questions, apply=apply)
        follow(connection, task_id)
        evaluation = connection.client.evaluations.get(task_id)
    if not json_wanted():
        print_evaluation(evaluation)


@app.command("calibrate", help=_("Fit the decision to answer or to refuse to your own questions."))
def calibrate(
    questions: QuestionsArgument,
    apply: Annotated[bool, typer.Option("--apply", help=_("Let the collection decide so from now on."))] = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.follow import follow

    with connect() as connection:
        task_id = connection.client.evaluations.calibrate(questions, apply=apply)
        follow(connection, task_id)
        evaluation = connection.client.evaluations.get(task_id)
    if not json_wanted():
        print_evaluation(evaluation)


@app.command("export", help=_("Make a training set of the questions whose answers can be verified."))
def export(
    questions: QuestionsArgument,
    name: Annotated[str, typer.Argument(help=_("Name of the new dataset."), show_default=False)],
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.follow import follow

    with connect() as connection:
        task_id = connection.client.evaluations.export(questions, name)
        follow(connection, task_id)
        result = connection.client.tasks.get(task_id)["result"]
    if not json_wanted():
        say(_("Dataset %(name)s: %(rows)s rows of %(questions)s questions", name=name, **result))


@app.command("list", help=_("List evaluations."))
def list_evaluations(
    collection: Annotated[str | None, typer.Option(help=_("Only those of this collection."))] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        found = connection.client.evaluations.list(collection=collection)
    if json_wanted():
        print_json({"evaluations": found})
        return
    print_table(
        (_("id"), _("collection"), _("questions"), _("kind"), "nDCG@10"),
        [(one["id"], one["collection"], one["question_set"], one["kind"], _headline(one)) for one in found],
        empty=_("There are no evaluations yet: terakoya evaluate run QUESTIONS"),
    )


@app.command("show", help=_("Show an evaluation."))
def show(evaluation: EvaluationArgument, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        found = connection.client.evaluations.get(evaluation)
    if json_wanted():
        print_info(found)
    else:
        print_evaluation(found)


@app.command("delete", help=_("Delete an evaluation; its questions stay."))
def delete(evaluation: EvaluationArgument, yes: YesOption = False, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        if not yes:
            typer.confirm(_("Delete evaluation %(id)s?", id=evaluation), abort=True, err=True)
        connection.client.evaluations.delete(evaluation)
    if json_wanted():
        print_json({"deleted": evaluation})


@app.command("settings", help=_("Show how a collection is searched, or set it."))
def settings(
    collection: Annotated[str, typer.Argument(help=_("Name or id of the collection."))] = "default",
    change: Annotated[
        str | None,
        typer.Option("--set", help=_("Settings, such as fusion=rrf,candidates=80; what is left out is the default.")),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        collections = connection.client.collections
        if change is not None:
            info = collections.set_retrieval(collection, **parse_settings(change))
        else:
            info = collections.get(collection)
    print_info(info["retrieval"])


def parse_settings(text: str) -> dict[str, Any]:
    """Return ``fusion=rrf,candidates=80`` as a JSON object. Raises: InvalidConfig for what is not name=value."""
    settings: dict[str, Any] = {}
    for part in text.split(","):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign or not name or not value:
            raise InvalidConfig(f"settings are written name=value,name=value; got {part!r}")
        settings[name] = _value(value)
    return settings


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _settings_of(client: Any, questions: str) -> dict[str, Any]:
    """How the collection of the questions is set."""
    sets = client.evaluations.question_sets()
    name = next((one["collection_id"] for one in sets if questions in (one["id"], one["name"])), None)
    retrieval: dict[str, Any] = {} if name is None else client.collections.get(name)["retrieval"]
    return retrieval


def _configuration(text: str, own: dict[str, Any], way: dict[str, Any], model: str | None) -> dict[str, Any]:
    retrieval = own if text == _COLLECTION else parse_settings(text)
    name = _("as it is") if text == _COLLECTION else text
    return {"name": f"{name}; {model}" if model else name, "retrieval": retrieval, "model": model, **way}


def _say_added(added: dict[str, Any]) -> None:
    if json_wanted():
        print_json(added)
    else:
        say(_("%(name)s: %(count)s questions, id %(id)s", name=added["name"], count=added["questions"], id=added["id"]))


def _print_questions(found: list[dict[str, Any]]) -> None:
    if json_wanted():
        print_json({"questions": found})
        return
    for one in found:
        say(one["question"])
        for expected in one["expected"]:
            say("  " + ": ".join(part for part in (expected["document"], expected["passage"]) if part))
        for answer in one["answers"]:
            say(f"  = {answer}")
        if not one["answerable"]:
            say("  " + _("not answerable"))


def _origin(origin: str) -> str:
    return _("imported") if origin == "imported" else _("made from the documents")


def _headline(evaluation: dict[str, Any]) -> str:
    values = [one["figures"]["ndcg_at_10"] for one in evaluation["report"].get("configurations", [])]
    return " / ".join("-" if value is None else f"{value['value']:.3f}" for value in values)
