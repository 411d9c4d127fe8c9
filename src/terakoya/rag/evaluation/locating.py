"""Finds the places in a collection's stored texts that should be found for a question. White space, width and case do
not count, so a passage that was copied from a page is found in the text that was read from the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from terakoya.domain.document_ports import DocumentRepository
from terakoya.domain.documents import DocumentInfo, DocumentStatus
from terakoya.domain.evaluation import Expected, SetQuestion
from terakoya.domain.names import name_key
from terakoya.exceptions import DocumentNotFound
from terakoya.rag.text_places import squeeze

_ALL = 10**9
_TEXTS_HELD = 8


@dataclass(frozen=True, slots=True)
class Place:
    document_id: str
    start: int = 0
    end: int | None = None
    """None for any place of the document."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that should be found: any of the places is it."""

    places: tuple[Place, ...]


class NotLocated(Exception):
    """Why a question cannot be judged, in words."""


class Locator:
    """Of one collection as it is now. Blocks: it reads documents."""

    def __init__(self, documents: DocumentRepository, collection_id: str) -> None:
        self._repository = documents
        found = documents.list_documents(collection_id, limit=_ALL)
        self._documents = [document for document in found if document.status is DocumentStatus.READY]
        self._squeezed = lru_cache(maxsize=_TEXTS_HELD)(self._read)

    def targets(self, question: SetQuestion) -> tuple[Target, ...]:
        """Return what should be found; nothing for one that is judged by its answers alone. Raises: NotLocated."""
        return tuple(self._target(one) for one in question.expected)

    def _target(self, expected: Expected) -> Target:
        documents = self._called(expected.document)
        if expected.passage is None:
            return Target(tuple(Place(document.id) for document in documents))
        places = tuple(place for document in documents for place in self._places(document, expected.passage))
        if not places:
            where = f"the document {expected.document!r}" if expected.document else "any document"
            raise NotLocated(f"the passage {expected.passage[:40]!r} does not stand in {where}")
        return Target(places)

    def _called(self, name: str | None) -> Sequence[DocumentInfo]:
        if name is None:
            return self._documents
        key = name_key(name)
        found = [
            document
            for document in self._documents
            if document.id == name or key in (name_key(document.title), name_key(document.filename))
        ]
        if not found:
            raise NotLocated(f"no document that can be asked has the id, title or filename {name[:80]!r}")
        return found

    def _places(self, document: DocumentInfo, passage: str) -> Iterator[Place]:
        squeezed, origin = self._squeezed(document.id)
        wanted, _ = squeeze(passage)
        at = squeezed.find(wanted) if wanted else -1
        while at >= 0:
            yield Place(document.id, origin[at], origin[at + len(wanted) - 1] + 1)
            at = squeezed.find(wanted, at + len(wanted))

    def _read(self, document_id: str) -> tuple[str, Sequence[int]]:
        try:
            return squeeze(self._repository.text_of(document_id))
        except DocumentNotFound:  # deleted meanwhile
            return "", ()
