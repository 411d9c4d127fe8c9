"""The container of Word, PowerPoint and Excel files: a ZIP archive of XML parts that refer to each other. Opened with
limits on entries and on what is unpacked; macros, pictures and embedded files are never unpacked. Knows nothing of what
the parts say.

Read by streams of our own rather than python-docx, python-pptx and openpyxl: those build the whole document as a tree
first (some 20 times its XML in memory), which an upload must not be able to ask for.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname, join, normpath
from types import TracebackType
from typing import IO

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers.parsed import clean_title
from terakoya.rag.indexing.parsers.xml_events import END, START, TEXT, Event, xml_events
from terakoya.rag.indexing.zip_limits import ALLOWED, entries_beyond

MAX_ENTRIES = 20_000
MAX_UNPACKED_BYTES = 512 << 20
"""Of all parts that are read: about ten times what the longest document that is taken needs."""
_MAX_RELATIONSHIPS = 100_000
_DOCUMENT = "/officeDocument"
_PROPERTIES = "/core-properties"


@dataclass(frozen=True, slots=True)
class Relationship:
    kind: str
    """The last part of its type: "slide", "styles", ..."""
    target: str
    """Name of the part, without a slash at its beginning."""


class Package:
    """To be used as a context."""

    def __init__(self, path: Path) -> None:
        """Raises: UnreadableDocument if it is no archive, has too many entries, or is encrypted."""
        if (found := entries_beyond(path, MAX_ENTRIES)) is not None:
            raise _too_many(found)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError) as error:
            raise UnreadableDocument(
                f"the file is damaged or cut off, or no Office document at all: {error}"
            ) from error
        if len(self._zip.infolist()) > MAX_ENTRIES:  # its own count may lie
            raise _too_many(len(self._zip.infolist()))
        self._parts = {info.filename.lower(): info for info in self._zip.infolist()}
        self._left = MAX_UNPACKED_BYTES

    def __enter__(self) -> Package:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._parts

    def main_part(self, *content: str) -> str:
        """Return the name of the part that the document begins with. ``content``: names it may have.

        Raises: UnreadableDocument if there is none: it is another kind of archive.
        """
        found = [one.target for one in self.relationships("").values() if one.kind.endswith(_DOCUMENT)]
        for name in (*found, *content):
            if name in self:
                return name
        raise UnreadableDocument(f"the file is an archive, but holds no {content[0]!r}: it is another kind of document")

    def title(self) -> str | None:
        """Return the title in the document's properties, None without one."""
        names = [one.target for one in self.relationships("").values() if one.kind.endswith(_PROPERTIES)]
        for name in names:
            pieces: list[str] = []
            is_title = False
            for kind, value, _ in self.events(name) if name in self else ():
                if kind == TEXT:
                    pieces += [value] if is_title else []
                else:
                    is_title = kind == START and value == "title"
            return clean_title("".join(pieces))
        return None

    def relationships(self, part: str) -> dict[str, Relationship]:
        """Return what a part refers to inside the package, by id; references to elsewhere are left out."""
        folder, _, name = part.rpartition("/")
        path = join(folder, "_rels", f"{name}.rels")
        found: dict[str, Relationship] = {}
        if path not in self:
            return found
        for kind, element, attributes in self.events(path):
            if kind != START or element != "Relationship" or attributes.get("TargetMode") == "External":
                continue
            target = attributes.get("Target", "")
            inside = target.lstrip("/") if target.startswith("/") else normpath(join(dirname(part), target))
            found[attributes.get("Id", "")] = Relationship("/" + attributes.get("Type", "").rsplit("/", 1)[-1], inside)
            if len(found) > _MAX_RELATIONSHIPS:
                raise UnreadableDocument(f"the part {path!r} holds more than {_MAX_RELATIONSHIPS:,} relationships")
        return found

    def related(self, part: str, kind: str) -> str | None:
        """Return the name of a part of this kind that ``part`` refers to and the package holds."""
        for one in self.relationships(part).values():
            if one.kind == f"/{kind}" and one.target in self:
                return one.target
        return None

    def events(self, name: str) -> Iterator[Event]:
        """Yield a part's XML. Raises: UnreadableDocument."""
        with self.open(name) as file:
            yield from xml_events(file, name)

    @contextmanager
    def open(self, name: str) -> Iterator[_Part]:
        """Raises: UnreadableDocument without such a part, and while reading it."""
        info = self._parts.get(name.lower())
        if info is None:
            raise UnreadableDocument(f"the document lacks its part {name!r}; it is damaged")
        if info.flag_bits & 1:
            raise UnreadableDocument("the document is encrypted; save a copy without the password and add that")
        if info.compress_type not in ALLOWED:
            raise UnreadableDocument(f"the part {name!r} is packed in a way that Office documents never are")
        if info.file_size > self._left:
            raise _too_large()
        try:
            with self._zip.open(info) as file:
                yield _Part(self, file)
        except _DAMAGE as error:
            raise UnreadableDocument(f"the part {name!r} of the document is damaged: {error}") from error

    def _take(self, size_bytes: int) -> None:
        self._left -= size_bytes
        if self._left < 0:
            raise _too_large()


_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, UnicodeDecodeError)
"""What ``zipfile`` raises where bytes are not as they should be: places that no file has, ways it does not know."""


class _Part:
    """A part as a stream whose bytes are counted."""

    def __init__(self, package: Package, file: IO[bytes]) -> None:
        self._package = package
        self._file = file

    def read(self, size: int, /) -> bytes:
        chunk = self._file.read(size)
        self._package._take(len(chunk))
        return chunk


class Skipping:
    """Whether an event lies inside an element that is left out, itself included."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._depth = 0

    def __call__(self, kind: str, name: str) -> bool:
        if self._depth:
            self._depth += (kind == START) - (kind == END)
            return True
        if kind == START and name in self._names:
            self._depth = 1
            return True
        return False


def is_on(attributes: object, name: str = "val") -> bool:
    """Whether a switch such as ``<w:vanish/>`` or ``hidden="1"`` is on; without a value it is."""
    value = attributes.get(name, "1") if hasattr(attributes, "get") else "1"
    return str(value).lower() not in ("0", "false", "off", "none")


def _too_large() -> UnreadableDocument:
    return UnreadableDocument(f"the document unpacks to more than {MAX_UNPACKED_BYTES >> 20:,} MiB; split it")


def _too_many(entries: int) -> UnreadableDocument:
    return UnreadableDocument(
        f"the document's archive has {entries:,} or more entries; at most {MAX_ENTRIES:,} are read"
    )
