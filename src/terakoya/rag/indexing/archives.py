"""Takes the documents out of a ZIP or tar archive, in the child process: into one file, with a list of what came from
where. Nothing is ever written under a name that the archive chose. An archive that means harm is refused whole: names
that lead out of it, more entries or bytes than it may have. Links, archives in it and files of other types are named.
"""

from __future__ import annotations

import hashlib
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, Literal

from terakoya.exceptions import InvalidConfig, UnreadableDocument
from terakoya.rag.indexing.parsers import known_suffixes
from terakoya.rag.indexing.zip_limits import ALLOWED, entries_beyond
from terakoya.rag.sources import check_source

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
"""Endings of the archives that are read, with their dots."""
MAX_ENTRIES = 20_000
_OTHER_ARCHIVES = (".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".lzh", ".cab", ".iso", ".jar")
_READ_BYTES = 1 << 20
_UTF_8_NAME = 0x800
_ENCRYPTED = 1

Outcome = Literal["document", "link", "archive", "encrypted", "too_large", "damaged", "other_type"]
"""Of an entry; "other_type" is no fault, the file is only none that is read."""


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    total_bytes: int
    """Of all documents together, unpacked."""
    file_bytes: int
    """Of one of them."""


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    """A path inside the archive, checked."""
    outcome: Outcome
    start: int = 0
    size: int = 0
    """Where it is in the file of contents, in bytes."""
    sha256: str = ""


def is_archive(filename: str) -> bool:
    return filename.lower().endswith(ARCHIVE_SUFFIXES)


def unpack(path: Path, contents: BinaryIO, limits: ArchiveLimits) -> Iterator[Entry]:
    """Yield what there is, in order, documents once their bytes are in ``contents``. Folders and hidden files are
    passed over.

    Raises: UnreadableDocument if the archive is refused whole, or is none.
    """
    if zipfile.is_zipfile(path):
        yield from _unpack_zip(path, _Sink(contents, limits))
    else:
        yield from _unpack_tar(path, _Sink(contents, limits))


class _Sink:
    """Where the bytes of documents go, counted."""

    def __init__(self, contents: BinaryIO, limits: ArchiveLimits) -> None:
        self._contents = contents
        self._limits = limits
        self._suffixes = known_suffixes()
        self._total = 0
        self._entries = 0

    def named(self, name: str) -> str | None:
        """Return an entry's name as it is stored, None for one that is passed over.

        Raises: UnreadableDocument for one that leads out of the archive, or too many of them.
        """
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise _too_many(self._entries)
        try:
            checked = check_source(name.removeprefix("./"))
        except InvalidConfig as error:
            raise UnreadableDocument(f"the archive is refused, nothing of it was added: {error}") from error
        parts = PurePosixPath(checked).parts
        return None if any(part.startswith(".") or part == "__MACOSX" for part in parts) else checked

    def refused(self, name: str, size: int) -> Outcome | None:
        """Return why an entry's bytes are not wanted, by its name and the size it claims."""
        lower = name.lower()
        if lower.endswith((*ARCHIVE_SUFFIXES, *_OTHER_ARCHIVES)):
            return "archive"
        if not lower.endswith(self._suffixes):
            return "other_type"
        return "too_large" if size > self._limits.file_bytes else None

    def take(self, name: str, file: IO[bytes]) -> Entry:
        """Copy a document's bytes. Raises: UnreadableDocument beyond the limit of all of them."""
        start, size, digest = self._contents.tell(), 0, hashlib.sha256()
        while chunk := file.read(_READ_BYTES):
            size += len(chunk)
            self._total += len(chunk)
            if self._total > self._limits.total_bytes:
                raise UnreadableDocument(
                    f"the archive is refused, nothing of it was added: it unpacks to more than "
                    f"{self._limits.total_bytes:,} bytes"
                )
            if size > self._limits.file_bytes:
                return Entry(name, "too_large")
            digest.update(chunk)
            self._contents.write(chunk)
        return Entry(name, "document", start, size, digest.hexdigest())


def _unpack_zip(path: Path, sink: _Sink) -> Iterator[Entry]:
    if (found := entries_beyond(path, MAX_ENTRIES)) is not None:
        raise _too_many(found)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            names = [sink.named(_decoded(info)) for info in infos]  # all of them before the first is unpacked
            for info, name in zip(infos, names, strict=True):
                if name is not None:
                    yield _of_zip(archive, info, name, sink)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise UnreadableDocument(f"the archive is damaged or cut off: {error}") from error


def _of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, sink: _Sink) -> Entry:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return Entry(name, "link")
    if (refused := sink.refused(name, info.file_size)) is not None:
        return Entry(name, refused)
    if info.flag_bits & _ENCRYPTED:
        return Entry(name, "encrypted")
    if info.compress_type not in ALLOWED:
        return Entry(name, "damaged")
    try:
        with archive.open(info) as file:
            return sink.take(name, file)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return Entry(name, "damaged")


def _decoded(info: zipfile.ZipInfo) -> str:
    """Return an entry's name; without the mark of UTF-8, as UTF-8 or what Japanese Windows writes."""
    if info.flag_bits & _UTF_8_NAME:
        return info.filename
    raw = info.filename.encode("cp437", errors="replace")
    for encoding in ("utf-8", "cp932"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return info.filename


def _unpack_tar(path: Path, sink: _Sink) -> Iterator[Entry]:
    try:
        with path.open("rb") as file:
            mode: Any = "r|gz" if file.read(2) == b"\x1f\x8b" else "r|"
        with tarfile.open(path, mode) as archive:
            for info in archive:
                if info.isdir():
                    continue
                name = sink.named(info.name)
                if name is not None:
                    yield _of_tar(archive, info, name, sink)
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of the archive
        raise UnreadableDocument(f"the archive is damaged or cut off, or no ZIP or tar.gz archive: {error}") from error


def _of_tar(archive: tarfile.TarFile, info: tarfile.TarInfo, name: str, sink: _Sink) -> Entry:
    if not info.isreg():
        return Entry(name, "link")
    if (refused := sink.refused(name, info.size)) is not None:
        return Entry(name, refused)
    file = archive.extractfile(info)
    return Entry(name, "damaged") if file is None else sink.take(name, file)


def _too_many(entries: int) -> UnreadableDocument:
    return UnreadableDocument(
        f"the archive is refused, nothing of it was added: it has {entries:,} or more entries; at most {MAX_ENTRIES:,} "
        "are taken"
    )
