"""Adds what an archive holds, file by file: each is a document of its own with its own task, acknowledged by itself.
Knows nothing of how archives are unpacked or documents stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import uuid4

from terakoya.exceptions import (
    AppException,
    CollectionNotFound,
    ModelNotFound,
    StorageFull,
    Unavailable,
    UnreadableDocument,
)
from terakoya.rag.indexing.archives import ARCHIVE_SUFFIXES, ArchiveLimits, Entry, is_archive
from terakoya.rag.indexing.parse_child import ParseChildren
from terakoya.rag.indexing.unpack_result import Unpacked
from terakoya.rag.service import Added, DocumentService

_REASONS = {
    "link": "a link, or no file at all; links are not followed",
    "archive": "an archive inside the archive; unpack it and add what it holds",
    "encrypted": "it has a password",
    "damaged": "it is damaged, or packed in a way that is not read",
}


@dataclass(frozen=True, slots=True)
class AddedFrom:
    """What became of one entry: a document, an error, or neither for a file of a type that is not read."""

    path: str
    added: Added | None = None
    error: AppException | None = None


class ArchiveService:
    def __init__(
        self,
        documents: DocumentService,
        children: ParseChildren,
        *,
        work_dir: Path,
        limits: ArchiveLimits,
        timeout_seconds: float,
        memory_bytes: int,
    ) -> None:
        """``work_dir`` is on the disk of the data folder; files are in it until they are documents."""
        self._documents = documents
        self._children = children
        self._work_dir = work_dir
        self._limits = limits
        self._timeout_seconds = timeout_seconds
        self._memory_bytes = memory_bytes

    async def add(self, upload: Path, *, collection: str, filename: str) -> Sequence[AddedFrom]:
        """Add every document of an archive under its path in it, below the archive's name unless all lie in one folder.

        Raises: UnreadableDocument if it is no archive or refused whole: nothing is added then; CollectionNotFound,
        ModelNotFound, StorageFull, Unavailable: what was added before stays, and is skipped the next time.
        """
        if not is_archive(filename):
            raise UnreadableDocument(
                f"{filename!r} is not the name of an archive; these are: {', '.join(ARCHIVE_SUFFIXES)}"
            )
        unpacked = self._children.unpacked(
            upload, limits=self._limits, timeout_seconds=self._timeout_seconds, memory_bytes=self._memory_bytes
        )
        async with unpacked as found:
            return await asyncio.to_thread(self._add_all, found, collection, filename)

    def _add_all(self, found: Unpacked, collection: str, filename: str) -> list[AddedFrom]:
        top = _folder_for(found.entries, filename)
        return [self._add(found, entry, f"{top}{entry.name}", collection) for entry in found.entries]

    def _add(self, found: Unpacked, entry: Entry, source: str, collection: str) -> AddedFrom:
        if entry.outcome == "other_type":
            return AddedFrom(entry.name)
        if entry.outcome != "document":
            largest = f"it is larger than the {self._limits.file_bytes:,} bytes that a document may have"
            return AddedFrom(entry.name, error=UnreadableDocument(_REASONS.get(entry.outcome, largest)))
        file = self._work_dir / f"upload_{uuid4().hex}"
        try:
            found.copy(entry, file)
            added = self._documents.add(
                file, collection=collection, filename=PurePosixPath(entry.name).name, title=None, source=source
            )
            return AddedFrom(entry.name, added=added)
        except (CollectionNotFound, ModelNotFound, StorageFull, Unavailable):
            raise
        except AppException as error:
            return AddedFrom(entry.name, error=error)
        finally:
            file.unlink(missing_ok=True)


def _folder_for(entries: Sequence[Entry], filename: str) -> str:
    tops = {entry.name.partition("/")[0] if "/" in entry.name else "" for entry in entries}
    if len(tops) == 1 and tops != {""}:
        return ""
    lower = filename.lower()
    suffix = max((suffix for suffix in ARCHIVE_SUFFIXES if lower.endswith(suffix)), key=len)
    return f"{filename[: -len(suffix)] or 'archive'}/"
