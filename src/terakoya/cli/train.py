"""``terakoya train MODEL DATASET``: start a run, and watch it. Knows which options become which request fields; what
they may be is checked by the server.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terakoya.cli.output import JsonOption, json_wanted, print_json, remark, say
from terakoya.cli.texts import _
from terakoya.exceptions import AppException, Conflict, InvalidConfig, InvalidDataset

if TYPE_CHECKING:
    from terakoya.client.client import Client


def train(
    model: Annotated[str | None, typer.Argument(help=_("Name or id of the model to tune."), show_default=False)] = None,
    dataset: Annotated[
        str | None,
        typer.Argument(help=_("Name or id of a dataset, or a file, which is uploaded first."), show_default=False),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help=_("YAML with the settings; what stands on the command line goes before it."))
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=_("A named set of settings; `terakoya runs presets` lists them."))
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help=_("Stay and show progress and report card."))] = False,
    name: Annotated[str | None, typer.Option(help=_("Name of the model that comes out."))] = None,
    strategy: Annotated[str | None, typer.Option(help=_("lora (default), full or ewc."))] = None,
    objective: Annotated[
        str | None, typer.Option(help=_("supervised, text, dpo or orpo; by default what the data is for."))
    ] = None,
    beta: Annotated[float | None, typer.Option(help=_("Strength of a preference: DPO's beta, ORPO's lambda."))] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(help=_("DPO: the share of pairs that may be the wrong way round."))
    ] = None,
    adapter_kind: Annotated[str | None, typer.Option(help=_("lora (default), rslora, dora or qlora."))] = None,
    quantization: Annotated[str | None, typer.Option(help=_("nf4: keep the frozen base in 4 bits."))] = None,
    rank: Annotated[int | None, typer.Option(help=_("LoRA rank."), min=1)] = None,
    alpha: Annotated[float | None, typer.Option(help=_("LoRA alpha; by default twice the rank."))] = None,
    dropout: Annotated[float | None, typer.Option(help=_("LoRA dropout."))] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help=_("Peak learning rate; by default chosen by the model's size."))
    ] = None,
    epochs: Annotated[int | None, typer.Option(help=_("Passes over the training rows."), min=1)] = None,
    max_steps: Annotated[int | None, typer.Option(help=_("Optimizer steps, instead of epochs."), min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help=_("Examples per optimizer step."), min=1)] = None,
    max_length: Annotated[int | None, typer.Option(help=_("Most tokens of a row."), min=1)] = None,
    long_rows: Annotated[
        str | None, typer.Option(help=_("Of longer rows: refuse (default), drop, truncate or split."))
    ] = None,
    gradient_checkpointing: Annotated[
        str | None, typer.Option(help=_("Recompute activations to save memory: auto (default), on or off."))
    ] = None,
    max_examples: Annotated[int | None, typer.Option(help=_("Held-out rows to score at most."), min=1)] = None,
    evaluate_every: Annotated[
        int | None, typer.Option(help=_("Score some held-out rows every so many steps."), min=1)
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help=_("Stop early after so many evaluations without a better loss."), min=1)
    ] = None,
    sample_prompt: Annotated[
        list[str] | None, typer.Option(help=_("Answer this at each evaluation; may be repeated."))
    ] = None,
    tracker: Annotated[
        list[str] | None, typer.Option(help=_("tensorboard or mlflow: send the curves there too."))
    ] = None,
    base: Annotated[str | None, typer.Option(help=_("What ewc trains: lora (default) or full."))] = None,
    after: Annotated[
        str | None, typer.Option(help=_("Go on from this model, made by ewc, as the next task of its chain."))
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help=_("How much worse earlier tasks may become, in nats a label (ewc)."))
    ] = None,
    penalty: Annotated[
        float | None, typer.Option(help=_("A fixed lambda instead of a budget; 0 for no penalty (ewc)."))
    ] = None,
    replay_share: Annotated[
        float | None, typer.Option(help=_("Share of the rows kept for later tasks; 0 keeps none (ewc)."))
    ] = None,
    replay_generate: Annotated[
        int | None,
        typer.Option(help=_("Rows that the model writes itself where no earlier ones are kept (ewc).")),
    ] = None,
    general_budget: Annotated[
        float | None, typer.Option(help=_("How much worse general text may become, in nats a token (ewc)."))
    ] = None,
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
    plan: Annotated[bool, typer.Option("--plan", help=_("Only say what the run would need; start nothing."))] = False,
    dataset_name: Annotated[str | None, typer.Option(help=_("Name for an uploaded file."))] = None,
    json_output: JsonOption = False,
) -> None:
    """Tune a model on a dataset."""
    from terakoya.cli.connection import connect
    from terakoya.cli.follow import follow, leave_running

    adapter = given(kind=adapter_kind, quantization=quantization, rank=rank, alpha=alpha, dropout=dropout)
    options = given(
        name=name,
        strategy=strategy,
        objective=objective,
        objective_settings=given(beta=beta, label_smoothing=label_smoothing) or None,
        learning_rate=learning_rate,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        max_length=max_length,
        long_rows=long_rows,
        gradient_checkpointing=gradient_checkpointing,
        seed=seed,
        adapter=adapter or None,
        evaluation=given(max_examples=max_examples, every_steps=evaluate_every) or None,
        early_stopping=given(patience=patience) or None,
        sample_prompts=sample_prompt or None,
        trackers=tracker or None,
        base=base,
        after=after,
        retention=retention_fields(budget, penalty, replay_share, replay_generate, general_budget),
        preset=preset,
        priority=priority,
        limits=given(max_hours=max_hours, no_progress_minutes=no_progress_minutes, max_restarts=max_restarts) or None,
    )
    options = with_recipe(recipe, given(model=model, dataset=dataset) | options)
    model, dataset = (_named(options, field) for field in ("model", "dataset"))
    file = _file_named(dataset)
    with connect() as connection:
        if plan:
            _plan(connection.client, model, dataset, file, dataset_name, options)
            return
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


def _plan(
    client: Client, model: str, dataset: str, file: Path | None, name: str | None, options: dict[str, Any]
) -> None:
    """Print the plan; a file is uploaded for that and deleted again."""
    from terakoya.cli.plan import print_plan

    remark(_("Looking at the data, and the first time at this machine …"))
    if file is None:
        print_plan(client.plan(model, dataset, **options))
        return
    info = _upload(client, file, name)
    try:
        print_plan(client.plan(model, info["id"], **options))
    finally:
        client.datasets.delete(info["id"])


def with_recipe(path: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    """Lay the options over the recipe's fields. Raises: InvalidConfig naming the lines that are wrong."""
    if path is None:
        return options
    from terakoya.domain.merging import merged
    from terakoya.training.recipe import MAX_BYTES, read_recipe

    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        return merged(read_recipe(content.decode("utf-8-sig"), name=str(path)), options)
    except OSError as error:
        raise InvalidConfig(f"the recipe {str(path)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"the recipe {str(path)!r} is not UTF-8: {error.reason} at byte {error.start}") from error


def _named(options: dict[str, Any], field: str) -> str:
    """Take the model or the dataset out of the options. Raises: typer.BadParameter if neither place has it."""
    value = options.pop(field, None)
    if value is None:
        raise typer.BadParameter(_("give it here or in a recipe (--recipe FILE)"), param_hint=field.upper())
    return str(value)


def retention_fields(
    budget: float | None,
    penalty: float | None,
    replay_share: float | None,
    replay_generate: int | None = None,
    general_budget: float | None = None,
) -> dict[str, Any] | None:
    """Return the request's ``retention``, None if nothing of it was given."""
    parts = given(
        budget=budget,
        general_budget=general_budget,
        regulariser=given(strength=penalty) or None,
        replay=given(share=replay_share, generate=replay_generate) or None,
    )
    return parts or None


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
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
    info = _upload(client, file, name)
    try:
        return client.train(model, info["id"], **options)
    except AppException:
        client.datasets.delete(info["id"])
        raise


def _upload(client: Client, file: Path, name: str | None) -> dict[str, Any]:
    from terakoya.cli.dataset_report import findings
    from terakoya.cli.datasets import add_explained

    try:
        info = add_explained(client, file, name=name)
    except Conflict as error:
        raise Conflict(
            f"{error}. To train on the stored one give its name instead of a file; to upload this file too, "
            "add --dataset-name NAME"
        ) from error
    remark(_("Uploaded %(file)s as dataset %(name)s: %(rows)s rows", file=file, name=info["name"], rows=info["rows"]))
    for finding in findings(client.datasets.report(info["id"])):
        remark(f"  {finding}")
    return info
