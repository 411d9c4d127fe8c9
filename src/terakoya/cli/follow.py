"""Watching a task to its end from the command line: events, then the outcome, then the exit status. Shared by every
command that starts or watches something.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from terakoya.cli.connection import Connection
from terakoya.cli.output import json_wanted, print_json, remark, say
from terakoya.cli.progress import show_events
from terakoya.cli.texts import _

if TYPE_CHECKING:
    from terakoya.client.client import Client

FAILED = 1
PAUSED = 3
INTERRUPTED = 130
STARTED_SECONDS = 30.0


def follow(connection: Connection, task_id: str, *, after: int = 0) -> None:
    """Show the task until it has ended, then its result. Raises: typer.Exit unless it succeeded."""
    try:
        show_events(_until_paused(connection.client, task_id, after=after))
    except KeyboardInterrupt:
        _say_it_goes_on(connection, task_id)
        raise typer.Exit(INTERRUPTED) from None
    task = show_outcome(connection.client, task_id)
    if task["state"] != "succeeded":
        raise typer.Exit(PAUSED if task["state"] == "paused" else FAILED)


def _until_paused(client: Client, task_id: str, *, after: int) -> Iterator[dict[str, Any]]:
    """Yield events until the task has ended or rests; one that was paused and goes on is followed further."""
    for event in client.watch(task_id, after=after):
        yield event
        if event.get("state") == "paused":
            task = client.tasks.get(task_id)
            if task["state"] == "paused" and task["attempt"] == event["attempt"]:  # not an earlier pause, told again
                return


def show_outcome(client: Client, task_id: str) -> dict[str, Any]:
    """Print what became of an ended task: its report card, its model, or why it failed."""
    task = client.tasks.get(task_id)
    if task["kind"] == "training":
        task = client.runs.get(task_id)
    if json_wanted():
        print_json({"type": "task", "task": task})
        return task
    if task.get("report"):
        from terakoya.cli.report import print_report

        print_report(task["report"])
    if (task.get("result") or {}).get("points"):
        from terakoya.cli.points import print_points

        print_points(task["result"])
    if task["state"] == "succeeded":
        model = client.models.get(task["model_id"]) if task.get("model_id") else None
        say(_("Done: model %(name)s", name=model["name"]) if model else _("Done."))
    elif task["state"] == "cancelled":
        remark(_("Cancelled. `terakoya tasks resume %(id)s` goes on from the last checkpoint.", id=task_id))
    elif task["state"] == "paused":
        remark(_("Paused. `terakoya tasks resume %(id)s` goes on from there.", id=task_id))
    else:
        remark(_("Failed: %(error)s", error=task.get("error") or task["state"]))
        remark(_("The whole log: terakoya tasks logs %(id)s", id=task_id))
    return task


def leave_running(connection: Connection, task_id: str) -> None:
    """Leave a task that was just started to itself, after saying what that means if the server ends with us."""
    if connection.is_temporary:
        _wait_for_its_process(connection.client, task_id)
        _explain_temporary_server(connection.client, task_id)


def _say_it_goes_on(connection: Connection, task_id: str) -> None:
    remark(_("\nYou stopped watching; the run goes on."))
    leave_running(connection, task_id)
    remark(_("Watch again: terakoya tasks watch %(id)s\nStop it: terakoya tasks cancel %(id)s", id=task_id))


def _wait_for_its_process(client: Client, task_id: str) -> None:
    """Wait until the task has a process of its own, which outlives the server; behind another one it only queues."""
    deadline = time.monotonic() + STARTED_SECONDS
    while time.monotonic() < deadline:
        tasks = client.tasks.list()
        task = next(task for task in tasks if task["id"] == task_id)
        is_behind_another = task["state"] == "queued" and any(
            other["state"] in ("running", "pausing", "cancelling") and other["kind"] == task["kind"] for other in tasks
        )
        if is_behind_another or task["state"] not in ("queued", "preparing"):
            return
        time.sleep(0.1)


def _explain_temporary_server(client: Client, task_id: str) -> None:
    if client.tasks.get(task_id)["state"] == "queued":
        remark(_("The server of this command stops now. The task is queued and starts with the next server."))
    else:
        remark(
            _(
                "The server of this command stops now; the task's own process goes on. The next server "
                "(`terakoya serve`, or any command) takes it up again and registers its model."
            )
        )
