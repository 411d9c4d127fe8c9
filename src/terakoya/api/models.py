"""Models: the registry with lineage, pulling new ones, and one prompt put to several."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse

from terakoya.api import server_sent
from terakoya.api.dependencies import Models, Slider
from terakoya.api.schemas.models import (
    CompareRequest,
    ExportRequest,
    FileList,
    InterpolateRequest,
    Loaded,
    MarkRequest,
    MergeRequest,
    ModelFile,
    ModelList,
    ModelView,
    PullRequest,
)
from terakoya.api.schemas.tasks import TaskAccepted
from terakoya.models.model_card import card_of

router = APIRouter(tags=["models"])


class MarkdownResponse(PlainTextResponse):
    media_type = "text/markdown"


@router.get("/api/models")
def list_models(models: Models) -> ModelList:
    known = {info.id: info for info in models.list()}
    return ModelList(models=[ModelView.of(info, known) for info in known.values()])


@router.get("/api/models/{model_id}")
def get_model(model_id: str, models: Models) -> ModelView:
    return ModelView.of(models.get(model_id), {info.id: info for info in models.list()})


@router.get("/api/models/{model_id}/card", response_class=MarkdownResponse)
def get_card(model_id: str, models: Models) -> MarkdownResponse:
    """What is known of a model, as Markdown: where it comes from, what it learned, how it was judged, its limits."""
    return MarkdownResponse(card_of(models.get(model_id)))


@router.patch("/api/models/{model_id}")
def mark_model(model_id: str, body: MarkRequest, models: Models) -> ModelView:
    """Change notes, tags, stage, or the engine that answers; what is left out stays."""
    marked = models.mark(model_id, body.marks)
    return ModelView.of(marked, {info.id: info for info in models.list()})


@router.delete("/api/models/{model_id}", status_code=204)
def delete_model(model_id: str, models: Models) -> None:
    models.delete(model_id)


@router.post("/api/models/pull", status_code=202)
def pull_model(body: PullRequest, models: Models) -> TaskAccepted:
    """Fetch a model as a background task."""
    return TaskAccepted(task_id=models.pull(body.source, name=body.name, base=body.base).id)


@router.post("/api/models/{model_id}/merge", status_code=202)
def merge_model(model_id: str, body: MergeRequest, models: Models) -> TaskAccepted:
    """Put an adapter into its base's weights, as a background task; the result is checked against the two."""
    return TaskAccepted(task_id=models.merge(model_id, name=body.name).id)


@router.post("/api/models/{model_id}/export", status_code=202)
def export_model(model_id: str, body: ExportRequest, models: Models) -> TaskAccepted:
    """Write a model in another form, as a background task; the result is opened again and checked."""
    return TaskAccepted(task_id=models.export(model_id, body.format, name=body.name).id)


@router.post("/api/models/{model_id}/interpolate", status_code=202)
def interpolate_model(model_id: str, body: InterpolateRequest, slider: Slider) -> TaskAccepted:
    """Score points between the weights before and after the model's run, as a background task, whose result has them;
    keep one of them as a model if that is asked for.
    """
    task = slider.start(model_id, shares=body.shares, keep=body.keep, rows=body.rows, name=body.name)
    return TaskAccepted(task_id=task.id)


@router.get("/api/models/{model_id}/files")
def list_model_files(model_id: str, models: Models) -> FileList:
    return FileList(files=[ModelFile(name=name, size_bytes=size) for name, size in models.files(model_id).items()])


@router.get("/api/models/{model_id}/files/{name}", response_class=FileResponse)
def get_model_file(model_id: str, name: str, models: Models) -> FileResponse:
    path = models.file(model_id, name)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


@router.post("/api/models/{model_id}/load")
async def load_model(model_id: str, models: Models) -> Loaded:
    """Open the model now, so that the first answer need not wait for it."""
    return Loaded.model_validate(await models.load(model_id))


@router.post("/api/models/{model_id}/unload", status_code=204)
async def unload_model(model_id: str, models: Models) -> None:
    """Close the model, unless it answers just now."""
    await models.unload(model_id)


@router.post("/api/models/compare", response_class=StreamingResponse)
async def compare_models(body: CompareRequest, models: Models) -> StreamingResponse:
    """Put one prompt to each model and stream their answers as server-sent events.

    What can be checked is checked before the stream begins, so that an unknown model is an error with a status.
    """
    events = models.compare(
        body.prompt,
        body.models,
        max_new_tokens=body.max_tokens,
        temperature=body.temperature,
        system=body.system,
        seed=body.seed,
    )
    first = await anext(events, None)
    return StreamingResponse(_server_sent(first, events), media_type=server_sent.MEDIA_TYPE)


async def _server_sent(
    first: Mapping[str, Any] | None, rest: AsyncGenerator[Mapping[str, Any], None]
) -> AsyncIterator[str]:
    async with aclosing(rest):
        if first is not None:
            yield server_sent.event(first)
        async for event in rest:
            yield server_sent.event(event)
    yield server_sent.DONE
