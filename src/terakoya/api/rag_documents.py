"""Collections of documents and the documents in them: add, list, read, delete, rebuild."""

from __future__ import annotations

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse

from terakoya.api.dependencies import Archives, ContainerDep, Documents, Limit
from terakoya.api.schemas.rag_documents import (
    ArchiveAccepted,
    ArchiveEntry,
    CollectionChange,
    CollectionList,
    CollectionView,
    DeletedView,
    DocumentAccepted,
    DocumentChange,
    DocumentList,
    DocumentView,
    FilesOfFolder,
    NewCollection,
    TextView,
    UnchangedFiles,
)
from terakoya.api.schemas.tasks import TaskAccepted
from terakoya.api.uploads import Upload, received_form
from terakoya.domain.documents import DEFAULT_COLLECTION
from terakoya.exceptions import InvalidConfig
from terakoya.rag.service import MAX_TEXT_CHARACTERS

router = APIRouter(tags=["documents"])

MAX_COLLECTION_CHARACTERS = 200
_FIELDS = frozenset({"collection", "title", "path", "replaces"})
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
                        "path": {
                            "type": "string",
                            "description": "path in the folder it comes from; other content from there is replaced",
                        },
                        "replaces": {"type": "string", "description": "id of the document that it is to replace"},
                    },
                }
            }
        },
    }
}
_ARCHIVE_FORM = {
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

    The same file again is the same document (200). With ``path``, other content from the same path is the document's
    next version; with ``replaces``, the named document's: the former one is asked until the new one is ready.
    """
    limit = container.settings.document_limit_bytes
    async with received_form(request, container.data_dir.uploads, limit) as upload:
        collection = _collection_of(upload, _FIELDS)
        fields = upload.fields
        added = await run_sync(
            lambda: documents.add(
                upload.path,
                collection=collection,
                filename=upload.filename,
                title=fields.get("title"),
                source=fields.get("path") or None,
                replaces=fields.get("replaces") or None,
            )
        )
    response.status_code = 200 if added.is_duplicate else 202
    return DocumentAccepted.of(added)


@router.post("/rag/documents/unchanged")
def find_unchanged(body: FilesOfFolder, documents: Documents) -> UnchangedFiles:
    """Tell which files of a folder the collection holds already, so that only the others need to be sent."""
    files = [(file.path, file.sha256) for file in body.files]
    return UnchangedFiles(document_ids=list(documents.unchanged(body.collection, files)))


@router.post("/rag/archives", status_code=202, openapi_extra=_ARCHIVE_FORM)
async def add_archive(request: Request, container: ContainerDep, archives: Archives) -> ArchiveAccepted:
    """Add every document of a ZIP or tar.gz archive, each with a task of its own, and tell what became of each entry.

    An archive with names that lead out of it, too many entries or too much content is refused whole.
    """
    limit = container.settings.archive_limit_bytes
    async with received_form(request, container.data_dir.uploads, limit) as upload:
        collection = _collection_of(upload, frozenset({"collection"}))
        added = await archives.add(upload.path, collection=collection, filename=upload.filename or "")
    return ArchiveAccepted(entries=[ArchiveEntry.of(one) for one in added])


@router.get("/rag/documents")
def list_documents(
    documents: Documents, collection: Collection = None, limit: Limit = 1000, replaced: bool = False
) -> DocumentList:
    """Newest first; of every collection unless one is named; with ``replaced``, former versions too."""
    names = {info.id: info.name for info in documents.list_collections()}
    found = documents.list(collection, limit=limit, replaced=replaced)
    return DocumentList(documents=[DocumentView.of(info, names.get(info.collection_id, "")) for info in found])


@router.get("/rag/documents/{document_id}")
def get_document(document_id: str, documents: Documents) -> DocumentView:
    info = documents.get(document_id)
    return DocumentView.of(info, documents.get_collection(info.collection_id).name)


@router.get("/rag/documents/{document_id}/versions")
def list_versions(document_id: str, documents: Documents) -> DocumentList:
    """Every version of a document, newest first."""
    found = documents.versions(document_id)
    name = documents.get_collection(found[0].collection_id).name
    return DocumentList(documents=[DocumentView.of(info, name) for info in found])


@router.patch("/rag/documents/{document_id}")
async def change_document(document_id: str, body: DocumentChange, documents: Documents) -> DocumentView:
    """Set the tags that it can be chosen by."""
    info = await documents.set_tags(document_id, body.tags)
    return DocumentView.of(info, documents.get_collection(info.collection_id).name)


@router.delete("/rag/documents/{document_id}")
async def delete_document(document_id: str, documents: Documents) -> DeletedView:
    """Delete its file, text, passages and vectors, with those of the versions before it; the answer is the receipt.

    A version that has been replaced, or is not ready yet, is deleted alone.
    """
    return DeletedView.model_validate(await documents.delete(document_id))


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


def _collection_of(upload: Upload, known: frozenset[str]) -> str:
    """Raises: InvalidConfig for fields that are not known, and for a name that none can have."""
    if unknown := sorted(set(upload.fields) - known):
        raise InvalidConfig(f"unknown form fields {unknown!r}; known are 'file', {', '.join(map(repr, sorted(known)))}")
    collection = upload.fields.get("collection", "").strip() or DEFAULT_COLLECTION
    if len(collection) > MAX_COLLECTION_CHARACTERS:
        raise InvalidConfig(
            f"a collection's name or id has at most {MAX_COLLECTION_CHARACTERS} characters; got {len(collection)}: "
            f"{collection[:40]!r}"
        )
    return collection
