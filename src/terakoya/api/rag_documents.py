"""Collections of documents and the documents in them: add, list, read, delete, rebuild."""

from __future__ import annotations

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse

from terakoya.api.dependencies import ContainerDep, Documents, Limit
from terakoya.api.schemas.rag_documents import (
    CollectionChange,
    CollectionList,
    CollectionView,
    DocumentAccepted,
    DocumentList,
    DocumentView,
    NewCollection,
    TextView,
)
from terakoya.api.schemas.tasks import TaskAccepted
from terakoya.api.uploads import Upload, received_form
from terakoya.domain.documents import DEFAULT_COLLECTION
from terakoya.exceptions import InvalidConfig
from terakoya.rag.service import MAX_TEXT_CHARACTERS

router = APIRouter(tags=["documents"])

MAX_COLLECTION_CHARACTERS = 200
_FIELDS = frozenset({"collection", "title"})
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
                        "collection": {"type": "string", "default": DEFAULT_COLLECTION},
                        "title": {"type": "string"},
                    },
                }
            }
        },
    }
}
Collection = Annotated[str | None, Query(min_length=1, max_length=MAX_COLLECTION_CHARACTERS)]
Offset = Annotated[int, Query(ge=0, le=2**53)]


@router.get("/rag/collections")
def list_collections(documents: Documents) -> CollectionList:
    return CollectionList(collections=[CollectionView.of(info) for info in documents.list_collections()])


@router.post("/rag/collections", status_code=201)
def add_collection(body: NewCollection, documents: Documents) -> CollectionView:
    """Make an empty collection, pinned to the embedder that the server is set to."""
    return CollectionView.of(documents.add_collection(body.name))


@router.get("/rag/collections/{collection}")
def get_collection(collection: str, documents: Documents) -> CollectionView:
    return CollectionView.of(documents.get_collection(collection))


@router.patch("/rag/collections/{collection}")
def change_collection(collection: str, body: CollectionChange, documents: Documents) -> CollectionView:
    """Set how it is searched from now on; what is left out is the default."""
    return CollectionView.of(documents.set_retrieval(collection, body.retrieval.settings()))


@router.delete("/rag/collections/{collection}", status_code=204)
async def delete_collection(collection: str, documents: Documents) -> None:
    """Delete it with every document in it."""
    await documents.delete_collection(collection)


@router.post("/rag/collections/{collection}/rebuild", status_code=202)
def rebuild_collection(collection: str, documents: Documents) -> TaskAccepted:
    """Make its index anew from the database; nothing is parsed or embedded again."""
    return TaskAccepted(task_id=documents.rebuild(collection).id)


@router.post("/rag/documents", status_code=202, openapi_extra=_FORM)
async def add_document(
    request: Request, response: Response, container: ContainerDep, documents: Documents
) -> DocumentAccepted:
    """Add a file: PDF, Word, PowerPoint, Excel, CSV, JSON, HTML, Markdown or text.

    The same file again is the same document (200).
    """
    limit = container.settings.document_limit_bytes
    async with received_form(request, container.data_dir.uploads, limit) as upload:
        collection = _collection_of(upload)
        added = await run_sync(
            lambda: documents.add(
                upload.path, collection=collection, filename=upload.filename, title=upload.fields.get("title")
            )
        )
    response.status_code = 200 if added.is_duplicate else 202
    document = added.document
    return DocumentAccepted(document_id=document.id, task_id=document.task_id, duplicate=added.is_duplicate)


@router.get("/rag/documents")
def list_documents(documents: Documents, collection: Collection = None, limit: Limit = 1000) -> DocumentList:
    """Newest first; of every collection unless one is named."""
    names = {info.id: info.name for info in documents.list_collections()}
    found = documents.list(collection, limit=limit)
    return DocumentList(documents=[DocumentView.of(info, names.get(info.collection_id, "")) for info in found])


@router.get("/rag/documents/{document_id}")
def get_document(document_id: str, documents: Documents) -> DocumentView:
    info = documents.get(document_id)
    return DocumentView.of(info, documents.get_collection(info.collection_id).name)


@router.delete("/rag/documents/{document_id}", status_code=204)
async def delete_document(document_id: str, documents: Documents) -> None:
    """Delete its file, text, passages and vectors."""
    await documents.delete(document_id)


@router.get("/rag/documents/{document_id}/text")
def get_text(
    document_id: str,
    documents: Documents,
    start: Offset = 0,
    end: Annotated[
        int | None, Query(ge=0, le=2**53, description=f"at most {MAX_TEXT_CHARACTERS} characters come")
    ] = None,
) -> TextView:
    """A piece of the stored text, to which the offsets of citations refer."""
    return TextView.model_validate(documents.text(document_id, start=start, end=end))


@router.get("/rag/documents/{document_id}/file", response_class=FileResponse)
def get_file(document_id: str, documents: Documents) -> FileResponse:
    """The original file, to be saved, never to be shown as a page of ours."""
    info, path = documents.file(document_id)
    return FileResponse(path, filename=info.filename, media_type="application/octet-stream")


def _collection_of(upload: Upload) -> str:
    """Raises: InvalidConfig for fields that are not known, and for a name that none can have."""
    if unknown := sorted(set(upload.fields) - _FIELDS):
        raise InvalidConfig(
            f"unknown form fields {unknown!r}; known are 'file', {', '.join(map(repr, sorted(_FIELDS)))}"
        )
    collection = upload.fields.get("collection", "").strip() or DEFAULT_COLLECTION
    if len(collection) > MAX_COLLECTION_CHARACTERS:
        raise InvalidConfig(
            f"a collection's name or id has at most {MAX_COLLECTION_CHARACTERS} characters; got {len(collection)}: "
            f"{collection[:40]!r}"
        )
    return collection
