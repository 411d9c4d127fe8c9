"""Training data: upload as a form or as a raw stream, look at it, delete it."""

from __future__ import annotations

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request

from terakoya.api.dependencies import ContainerDep, Datasets
from terakoya.api.schemas.datasets import DatasetList, DatasetView, Preview, ResourceName
from terakoya.api.uploads import Upload, received_body, received_form
from terakoya.domain.names import check_name
from terakoya.security.limits import safe_label

router = APIRouter(tags=["datasets"])

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}, "name": {"type": "string"}},
                }
            }
        },
    }
}
_RAW = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get("/api/datasets")
def list_datasets(datasets: Datasets) -> DatasetList:
    return DatasetList(datasets=[DatasetView.of(info) for info in datasets.list()])


@router.post("/api/datasets", status_code=201, openapi_extra=_FORM)
async def add_dataset(request: Request, container: ContainerDep) -> DatasetView:
    """Add a JSONL file; without ``name`` the file's own is taken."""
    limit = container.settings.upload_limit_bytes
    async with received_form(request, container.data_dir.uploads, limit) as upload:
        name = upload.fields.get("name") or _stem(upload.filename)
        return await _import(container, upload, name)


@router.put("/api/datasets/{name}", status_code=201, openapi_extra=_RAW)
async def put_dataset(
    name: ResourceName,
    request: Request,
    container: ContainerDep,
    filename: Annotated[str | None, Query(max_length=1000)] = None,
) -> DatasetView:
    """Add a JSONL file sent as the bare body; ``filename`` is kept as a label."""
    limit = container.settings.upload_limit_bytes
    async with received_body(request, container.data_dir.uploads, limit) as upload:
        upload.filename = safe_label(filename)
        return await _import(container, upload, name)


@router.get("/api/datasets/{dataset_id}")
def get_dataset(dataset_id: str, datasets: Datasets) -> DatasetView:
    return DatasetView.of(datasets.get(dataset_id))


@router.get("/api/datasets/{dataset_id}/preview")
def preview_dataset(dataset_id: str, datasets: Datasets, limit: Annotated[int, Query(ge=1, le=200)] = 20) -> Preview:
    """The first rows, as they are stored."""
    return Preview(rows=list(datasets.preview(dataset_id, limit)))


@router.delete("/api/datasets/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: str, datasets: Datasets) -> None:
    datasets.delete(dataset_id)


async def _import(container: ContainerDep, upload: Upload, name: str) -> DatasetView:
    def read() -> DatasetView:
        info = container.datasets.import_file(upload.path, name=check_name(name), original_filename=upload.filename)
        return DatasetView.of(info)

    return await run_sync(read)


def _stem(filename: str | None) -> str:
    return (filename or "").rsplit(".", 1)[0] or "dataset"
