"""Training runs: start, watch, stop, resume, and the report card of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import quote

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Response, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import AfterValidator

from terakoya.api.dependencies import ContainerDep, Datasets, Limit, Models, Plans, Tasks, Training
from terakoya.api.live import serve_events
from terakoya.api.schemas.plan import TrainingPlan
from terakoya.api.schemas.tasks import CancelRequest, RunList, RunView, TaskAccepted
from terakoya.api.schemas.training import TrainingOptions, options_for
from terakoya.registry import Registry
from terakoya.training.adapters import ADAPTERS
from terakoya.training.methods import STRATEGIES
from terakoya.training.objectives.methods import OBJECTIVES
from terakoya.training.plan_service import plan_to_json
from terakoya.training.request import TrainingRequest

router = APIRouter(tags=["training"])
_plans = CapacityLimiter(2)


def _attached(name: str) -> dict[str, str]:
    """Source: RFC 6266, with the name in UTF-8 as RFC 8187 writes it."""
    file = quote(f"{name}.yaml", safe="")
    return {"content-disposition": f"attachment; filename=\"recipe.yaml\"; filename*=utf-8''{file}"}


class RecipeResponse(PlainTextResponse):
    media_type = "application/yaml"


def _known(table: Registry[Any]) -> Callable[[str | None], str | None]:
    """Return what refuses a name that is not in the table, naming those that are."""

    def check(name: str | None) -> str | None:
        if name is not None and name not in table:
            raise ValueError(f"unknown name; available: {', '.join(table)}")
        return name

    return check


Chosen = Annotated[str | None, Query(max_length=200)]
Strategy = Annotated[str, Query(max_length=100), AfterValidator(_known(STRATEGIES))]
ChosenObjective = Annotated[str | None, Query(max_length=100), AfterValidator(_known(OBJECTIVES))]
ChosenKind = Annotated[str | None, Query(max_length=100), AfterValidator(_known(ADAPTERS))]


@router.get("/api/train/options")
def get_options(
    training: Training,
    models: Models,
    datasets: Datasets,
    model: Chosen = None,
    dataset: Chosen = None,
    strategy: Strategy = "lora",
    preset: Chosen = None,
    objective: ChosenObjective = None,
    adapter_kind: ChosenKind = None,
) -> TrainingOptions:
    """What can be trained how: objectives with their settings, adapter kinds, every preset and the reason for it.
    ``resolved`` is what the chosen model, dataset, strategy or preset, objective and adapter kind lead to.
    """
    return options_for(
        models.list(),
        datasets.list(),
        model=model,
        dataset=dataset,
        strategy=strategy,
        preset=preset,
        objective=objective,
        adapter_kind=adapter_kind,
    )


@router.post("/api/train/plan")
async def plan_training(request: TrainingRequest, plans: Plans, measure: bool = True) -> TrainingPlan:
    """What the request would lead to: memory, time, steps, tokens, long rows, and rows as the model will see them.
    Starts nothing. ``measure=false`` does without measuring this machine where that has not been done yet.
    """
    # A limiter of its own: plans that wait for a child must not take the threads of everything else.
    plan = await run_sync(lambda: plans.plan(request, measure=measure), limiter=_plans)
    return TrainingPlan.model_validate(plan_to_json(plan))


@router.post("/api/train", status_code=202)
def start_training(request: TrainingRequest, training: Training) -> TaskAccepted:
    """Queue a run and return at once; it starts when a slot is free."""
    return TaskAccepted(task_id=training.start(request).id)


@router.get("/api/train")
def list_runs(training: Training, limit: Limit = 100) -> RunList:
    """Newest first, without report cards."""
    return RunList(runs=[RunView.with_report(run, None) for run in training.list(limit=limit)])


@router.get("/api/train/{task_id}")
def get_run(task_id: str, training: Training) -> RunView:
    return RunView.with_report(training.get(task_id), training.report(task_id))


@router.get("/api/train/{task_id}/recipe", response_class=RecipeResponse)
def get_recipe(
    task_id: str, training: Training, format: Annotated[Literal["yaml", "json"], Query()] = "yaml"
) -> Response:
    """The request that gives this run again: every setting that was in effect, as YAML to keep or as JSON to post."""
    fields, text = training.recipe(task_id)
    if format == "json":
        return JSONResponse(fields)
    return RecipeResponse(text, headers=_attached(training.get(task_id).name))


@router.post("/api/train/{task_id}/cancel")
def cancel_run(task_id: str, training: Training, tasks: Tasks, body: CancelRequest | None = None) -> RunView:
    training.get(task_id)
    return RunView.with_report(tasks.cancel(task_id, keep=body is not None and body.keep), None)


@router.post("/api/train/{task_id}/pause")
def pause_run(task_id: str, training: Training, tasks: Tasks) -> RunView:
    training.get(task_id)
    return RunView.with_report(tasks.pause(task_id), None)


@router.post("/api/train/{task_id}/resume")
def resume_run(task_id: str, training: Training, tasks: Tasks) -> RunView:
    training.get(task_id)
    return RunView.with_report(tasks.resume(task_id), None)


@router.websocket("/ws/training/{task_id}")
async def watch_run(websocket: WebSocket, task_id: str, container: ContainerDep) -> None:
    await serve_events(websocket, container.training.get, container.event_log, task_id)
