"""``terakoya tasks``: background work of any kind."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from terakoya.cli.output import JsonOption, json_wanted, print_fields, print_json, print_table, remark, say
from terakoya.cli.texts import _, shared
from terakoya.exceptions import InvalidConfig

app = typer.Typer(help=_("Runs and other background work."), no_args_is_help=True, rich_markup_mode=None)
TaskId = Annotated[str, typer.Argument(help=_("Id of the task."), show_default=False)]


@app.command("list", help=_("List tasks, newest first."))
def list_tasks(json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        tasks = connection.client.tasks.list()
    if json_wanted():
        print_json({"tasks": tasks})
        return
    print_table(
        (_("id"), _("kind"), _("name"), _("state"), _("created")),
        [
            (task["id"], task["kind"], task["name"], shared(f"state.{task['state']}"), task["created_at"][:19])
            for task in tasks
        ],
        empty=_("There are no tasks yet. Start one: terakoya train MODEL DATASET"),
    )


@app.command("show", help=_("Show one task, with its report card if it is a training run."))
def show(task_id: TaskId, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.report import print_report

    with connect() as connection:
        task = connection.client.tasks.get(task_id)
        if task["kind"] == "training":
            task = connection.client.runs.get(task_id)
    if json_wanted():
        print_json(task)
        return
    report = task.pop("report", None)
    if report:
        task.pop("result")  # the same figures, less legible
    print_fields(task)
    if report:
        print_report(report)


@app.command("logs", help=_("Print what the task's process wrote."))
def logs(task_id: TaskId, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        text = connection.client.tasks.logs(task_id)
    print_json({"text": text}) if json_wanted() else say(text)


@app.command("cancel", help=_("Stop a task; a training run leaves a checkpoint."))
def cancel(
    task_id: TaskId,
    keep: Annotated[
        bool, typer.Option("--keep", help=_("Stop training here, but evaluate and keep the model."))
    ] = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        task = connection.client.tasks.cancel(task_id, keep=keep)
    _print_state(task)


@app.command("pause", help=_("Stop a task so that it goes on later; its slot is free for others."))
def pause(task_id: TaskId, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        task = connection.client.tasks.pause(task_id)
    _print_state(task)


@app.command("queue", help=_("List queued tasks in the order in which they will be started."))
def list_queue(json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        tasks = connection.client.tasks.queue()
    if json_wanted():
        print_json({"tasks": tasks})
        return
    print_table(
        (_("id"), _("kind"), _("name"), _("priority"), _("created")),
        [(task["id"], task["kind"], task["name"], str(task["priority"]), task["created_at"][:19]) for task in tasks],
        empty=_("Nothing is queued."),
    )


@app.command("priority", help=_("Change the place of a queued or paused task."))
def set_priority(
    task_id: TaskId,
    priority: Annotated[
        int | None,
        typer.Argument(help=_("-100 to 100; the higher starts first. After -- if it is negative."), show_default=False),
    ] = None,
    front: Annotated[bool, typer.Option("--front", help=_("Make it the next of its kind to start."))] = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    if (priority is None) != front:
        raise InvalidConfig("give either a priority from -100 to 100 or --front")
    with connect() as connection:
        tasks = connection.client.tasks
        task = tasks.move_to_front(task_id) if priority is None else tasks.set_priority(task_id, priority)
    if json_wanted():
        print_json(task)
    else:
        remark(_("Task %(id)s: priority %(priority)s", id=task["id"], priority=task["priority"]))


@app.command("resume", help=_("Queue a failed, cancelled or paused task again from its newest checkpoint."))
def resume(
    task_id: TaskId,
    watch: Annotated[bool, typer.Option("--watch", "-w", help=_("Stay and show progress and report card."))] = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.follow import follow, leave_running

    with connect() as connection:
        seen = len(connection.client.tasks.events(task_id))
        task = connection.client.tasks.resume(task_id)
        if watch:
            follow(connection, task_id, after=seen)
            return
        _print_state(task)
        leave_running(connection, task_id)


@app.command("watch", help=_("Follow a task to its end."))
def watch(task_id: TaskId, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.follow import follow

    with connect() as connection:
        follow(connection, task_id)


def _print_state(task: dict[str, Any]) -> None:
    if json_wanted():
        print_json(task)
    else:
        remark(_("Task %(id)s: %(state)s", id=task["id"], state=shared(f"state.{task['state']}")))
