"""``terakoya demo``: the whole way once, with the bundled samples. It ends with status 0 only if everything it is
about really happened.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terakoya.cli.output import JsonOption, json_wanted, print_json, print_table, remark, say
from terakoya.cli.texts import _

if TYPE_CHECKING:
    from terakoya.client.client import Client

FAILED = 1
MAX_STEPS = 50
MAX_EXAMPLES = 100
SEED = 7


class Stages:
    """What each stage took and came to, in order."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[dict[str, Any]]:
        remark(f"\n== {title}")
        row: dict[str, Any] = {"stage": name, "title": title, "result": ""}
        started = time.monotonic()
        yield row
        row["seconds"] = round(time.monotonic() - started, 1)
        self.rows.append(row)

    def total_seconds(self) -> float:
        return round(sum(float(row["seconds"]) for row in self.rows), 1)


def demo(
    max_steps: Annotated[
        int, typer.Option(help=_("Training steps of 8 rows; 125 see each of the 999 rows once."), min=1)
    ] = MAX_STEPS,
    max_examples: Annotated[int, typer.Option(help=_("Held-out rows to score, of 324."), min=2)] = MAX_EXAMPLES,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    stages = Stages()
    with connect() as connection:
        run, answers = _all_stages(connection.client, stages, max_steps=max_steps, max_examples=max_examples)
    succeeded = all(answer["as_expected"] for answer in answers)
    if json_wanted():
        summary = {"stages": stages.rows, "seconds": stages.total_seconds(), "model_id": run["model_id"]}
        print_json({"type": "demo", "succeeded": succeeded, "answers": answers} | summary)
    else:
        _print_summary(stages, succeeded)
    if not succeeded:
        raise typer.Exit(FAILED)


def _all_stages(
    client: Client, stages: Stages, *, max_steps: int, max_examples: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from terakoya.cli import demo_stages
    from terakoya.models.sources import STARTERS

    base = next(iter(STARTERS))
    with stages.stage("models", _("The starter models")) as row:
        fetched = demo_stages.fetch_models(client, STARTERS)
        row["result"] = _("%(new)s fetched, %(old)s there already", new=fetched, old=len(STARTERS) - fetched)
    with stages.stage("training", _("Teaching a small model to sort a team's inbox")) as row:
        remark(
            _(
                "%(steps)s steps, seed %(seed)s, judged on at most %(rows)s held-out rows: short, so that it fits a "
                "demo. `terakoya train` sees every row.",
                steps=max_steps,
                seed=SEED,
                rows=max_examples,
            )
        )
        run = demo_stages.train(client, base, max_steps=max_steps, max_examples=max_examples, seed=SEED)
        row["result"] = _report(run)
    with stages.stage("chat", _("One message, before and after")) as row:
        tuned = client.models.get(run["model_id"])["name"]
        replies = demo_stages.chat_once(client, (base, tuned))
        row["result"] = tuned
        _print_replies(demo_stages.MESSAGE, replies)
    with stages.stage("documents", _("Reading the sample documents")) as row:
        documents = demo_stages.index_documents(client)
        passages = sum(document["passages"] for document in documents.values())
        row["result"] = _("%(count)s documents, %(passages)s passages", count=len(documents), passages=passages)
    with stages.stage("questions", _("Asking them")) as row:
        answers = [_ask(client, question, documents) for question in demo_stages.questions()]
        right = sum(answer["as_expected"] for answer in answers)
        row["result"] = _("%(right)s of %(all)s as they should be", right=right, all=len(answers))
    return run, answers


def _report(run: dict[str, Any]) -> str:
    from terakoya.cli.report import print_report

    if not json_wanted():
        print_report(run["report"])
    metric = run["report"]["heldout"]["exact_match"]
    before, after = (f"{100 * metric[side]['value']:.1f}%" for side in ("before", "after"))
    return _("%(before)s right before, %(after)s after", before=before, after=after)


def _print_replies(message: str, replies: dict[str, str]) -> None:
    if json_wanted():
        return
    say(f"> {message}")
    for model, reply in replies.items():
        say(f"[{model}] {reply}")


def _ask(client: Client, question: Any, documents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    from terakoya.cli.ask import print_answer
    from terakoya.cli.demo_stages import COLLECTION, judge

    answer = client.ask(question.question, collection=COLLECTION)
    as_expected = judge(question, answer, documents)
    if not json_wanted():
        say(f"\n> {question.question}")
        print_answer(answer)
        if not as_expected:
            wanted = _("the documents do not hold it") if question.fact is None else question.fact
            remark(_("That is not what was expected: %(wanted)s", wanted=wanted))
    shown = ("answer", "mode", "verdict", "citations", "trace_id")
    return {"question": question.question, "as_expected": as_expected} | {name: answer[name] for name in shown}


def _print_summary(stages: Stages, succeeded: bool) -> None:
    say("")
    rows = [(row["title"], f"{row['seconds']:.1f}", row["result"]) for row in stages.rows]
    total = (_("in all"), f"{stages.total_seconds():.1f}", "")
    print_table((_("stage"), _("seconds"), _("result")), [*rows, total], empty="")
    if succeeded:
        say(_("Everything worked. See it in the browser: terakoya serve, then Documents, Ask and Chat."))
    else:
        say(_("Not everything came out as it should; see above."))
