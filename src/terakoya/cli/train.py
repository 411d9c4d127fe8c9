"""``terakoya train MODEL DATASET``: start a run, and watch it. Knows which options become which request fields; what
they may be is checked by the server.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terakoya.cli.output import JsonOption, json_wanted, print_json, remark, say
from terakoya.cli.texts import _
from terakoya.exceptions import AppException, Conflict, InvalidDataset

if TYPE_CHECKING:
    from terakoya.client.client import Client


def train(
    model: Annotated[str, typer.Argument(help=_("Name or id of the model to tune."), show_default=False)],
    dataset: Annotated[
        str, typer.Argument(help=_("Name or id of a dataset, or a file, which is uploaded first."), show_default=False)
    ],
    watch: Annotated[bool, typer.Option("--watch", "-w", help=_("Stay and show progress and report card."))] = False,
    name: Annotated[str | None, typer.Option(help=_("Name of the model that comes out."))] = None,
    strategy: Annotated[str | None, typer.Option(help=_("lora (default) or full."))] = None,
    rank: Annotated[int | None, typer.Option(help=_("LoRA rank."), min=1)] = None,
    alpha: Annotated[float | None, typer.Option(help=_("LoRA alpha; by default twice the rank."))] = None,
    dropout: Annotated[float | None, typer.Option(help=_("LoRA dropout."))] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help=_("Peak learning rate; by default chosen by the model's size."))
    ] = None,
    epochs: Annotated[int | None, typer.Option(help=_("Passes over the training rows."), min=1)] = None,
    max_steps: Annotated[int | None, typer.Option(help=_("Optimizer steps, instead of epochs."), min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help=_("Examples per optimizer step."), min=1)] = None,
    max_length: Annotated[int | None, typer.Option(help=_("Rows with more tokens are refused."), min=1)] = None,
    max_examples: Annotated[int | None, typer.Option(help=_("Held-out rows to score at most."), min=1)] = None,
    seed: Annotated[int | None, typer.Option(help=_("Seed of order and initialisation."), min=0)] = None,
    priority: Annotated[
        int | None, typer.Option(help=_("-100 to 100; of queued runs the higher starts first."), min=-100, max=100)
    ] = None,
    max_hours: Annotated[float | None, typer.Option(help=_("Stop the run when it has worked for so long."))] = None,
    no_progress_minutes: Annotated[
        float | None, typer.Option(help=_("Kill and restart its process after so long without a sign of life."))
    ] = None,
    max_restarts: Annotated[
        int | None, typer.Option(help=_("Restarts in a row of a process that died, without a new checkpoint."), min=0)
    ] = None,
    dataset_name: Annotated[str | None, typer.Option(help=_("Name for an uploaded file."))] = None,
    json_output: JsonOption = False,
) -> None:
    """Tune a model on a dataset."""
    from terakoya.cli.connection import connect
    from terakoya.cli.follow import follow, leave_running

    adapter = _given(rank=rank, alpha=alpha, dropout=dropout)
    options = _given(
        name=name,
        strategy=strategy,
        learning_rate=learning_rate,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
        adapter=adapter or None,
        evaluation=_given(max_examples=max_examples) or None,
        priority=priority,
        limits=_given(max_hours=max_hours, no_progress_minutes=no_progress_minutes, max_restarts=max_restarts) or None,
    )
    file = _file_named(dataset)
    with connect() as connection:
        if file is None:
            task_id = connection.client.train(model, dataset, **options)
        else:
            task_id = _train_on_file(connection.client, model, file, dataset_name, options)
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


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _file_named(dataset: str) -> Path | None:
    """Return the file that the argument names; None if it is the name or id of a dataset.

    Raises: InvalidDataset for what can only be a path and is not there.
    """
    path = Path(dataset)
    if path.is_file():
        return path
    if "/" in dataset or path.suffix in (".jsonl", ".json", ".ndjson", ".csv", ".txt"):
        raise InvalidDataset(f"there is no file {dataset!r} to upload, and no dataset is called that")
    return None


def _train_on_file(client: Client, model: str, file: Path, name: str | None, options: dict[str, Any]) -> str:
    """Upload and start; a run that is refused leaves no dataset behind."""
    try:
        info = client.datasets.add(file, name=name)
    except Conflict as error:
        raise Conflict(
            f"{error}. To train on the stored one give its name instead of a file; to upload this file too, "
            "add --dataset-name NAME"
        ) from error
    remark(_("Uploaded %(file)s as dataset %(name)s: %(rows)s rows", file=file, name=info["name"], rows=info["rows"]))
    for notice in info.get("notices") or ():
        remark(f"  {notice}")
    try:
        return client.train(model, info["id"], **options)
    except AppException:
        client.datasets.delete(info["id"])
        raise
