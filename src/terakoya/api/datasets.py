"""Training data: upload as a form or as a raw stream, look at it, delete it."""

from __future__ import annotations

from typing import Annotated

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request

from terakoya.api.dependencies import ContainerDep, Datasets
from terakoya.api.schemas.datasets import (
    DatasetList,
    DatasetView,
    Preview,
    Report,
    ResourceName,
    read_flag,
    read_mapping,
)
from terakoya.api.uploads import Upload, received_body, received_form
from terakoya.domain.names import check_name
from terakoya.exceptions import InvalidConfig
from terakoya.security.limits import safe_label

router = APIRouter(tags=["datasets"])

_imports = CapacityLimiter(2)
"""Imports at once; others wait here, without a thread that other routes need."""
_FIELDS = frozenset({"name", "mapping", "skip_bad_rows"})
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "name": {"type": "string"},
                        "mapping": {
                            "type": "string",
                            "description": 'which column is what: {"prompt": "Frage", "answer": "Antwort"} or '
                            "prompt=Frage,answer=Antwort",
                        },
                        "skip_bad_rows": {"type": "boolean"},
                    },
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
    """Add a file of rows; without ``name`` the file's own is taken. A file with a bad row is refused, with the report
    in the error's ``details``, unless ``skip_bad_rows`` says otherwise.
    """
    limit = container.settings.upload_limit_bytes
    async with received_form(request, container.data_dir.uploads, limit) as upload:
        _refuse_unknown_fields(upload.fields)
        name = upload.fields.get("name") or _stem(upload.filename)
        mapping = read_mapping(upload.fields.get("mapping"))
        skip_bad_rows = read_flag(upload.fields.get("skip_bad_rows"), "skip_bad_rows")
        return await _import(container, upload, name, mapping, skip_bad_rows)


@router.put("/api/datasets/{name}", status_code=201, openapi_extra=_RAW)
async def put_dataset(
    name: ResourceName,
    request: Request,
    container: ContainerDep,
    filename: Annotated[str | None, Query(max_length=1000)] = None,
    mapping: Annotated[str | None, Query(max_length=4096)] = None,
    skip_bad_rows: bool = False,
) -> DatasetView:
    """Add a file sent as the bare body; its ``filename`` decides where its content could be of several formats."""
    limit = container.settings.upload_limit_bytes
    columns = read_mapping(mapping)
    async with received_body(request, container.data_dir.uploads, limit) as upload:
        upload.filename = safe_label(filename)
        return await _import(container, upload, name, columns, skip_bad_rows)


@router.get("/api/datasets/{dataset_id}")
def get_dataset(dataset_id: str, datasets: Datasets) -> DatasetView:
    return DatasetView.of(datasets.get(dataset_id))


@router.get("/api/datasets/{dataset_id}/preview")
def preview_dataset(dataset_id: str, datasets: Datasets, limit: Annotated[int, Query(ge=1, le=200)] = 20) -> Preview:
    """The first rows, as they are stored."""
    return Preview(rows=list(datasets.preview(dataset_id, limit)))


@router.get("/api/datasets/{dataset_id}/report")
def report_on_dataset(dataset_id: str, datasets: Datasets) -> Report:
    """What the import found: bad rows that were left out, repeats, overlap, lengths, fields that were not read."""
    return Report.model_validate(datasets.report(dataset_id))


@router.delete("/api/datasets/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: str, datasets: Datasets) -> None:
    datasets.delete(dataset_id)


async def _import(
    container: ContainerDep, upload: Upload, name: str, mapping: dict[str, str], skip_bad_rows: bool
) -> DatasetView:
    def read() -> DatasetView:
        info = container.datasets.import_file(
            upload.path,
            name=check_name(name),
            original_filename=upload.filename,
            mapping=mapping,
            skip_bad_rows=skip_bad_rows,
        )
        return DatasetView.of(info)

    return await run_sync(read, limiter=_imports)


def _refuse_unknown_fields(fields: dict[str, str]) -> None:
    if unknown := sorted(fields.keys() - _FIELDS):
        raise InvalidConfig(f"the form has a field {unknown[0][:40]!r}; known are file, {', '.join(sorted(_FIELDS))}")


def _stem(filename: str | None) -> str:
    """Return the name without its ending, and without .gz before that."""
    return (filename or "").removesuffix(".gz").rsplit(".", 1)[0] or "dataset"
