"""Receives a file as it streams in: straight to a server-named file, never held in memory, under a running cap.
Knows nothing of what the file holds.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path

from anyio.to_thread import run_sync
from fastapi import Request

from terakoya.api.multipart import MultipartReader
from terakoya.exceptions import StorageFull
from terakoya.security.limits import ByteCap, safe_label

WRITE_BYTES = 1024 * 1024
MULTIPART_OVERHEAD_BYTES = 64 * 1024


class Upload:
    """A received file and what came with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        """The client's name for it, as a label."""


@asynccontextmanager
async def received_body(request: Request, uploads: Path, limit_bytes: int) -> AsyncIterator[Upload]:
    """Stream the request's body to a file that is gone after the block. Raises: TooLarge, StorageFull."""
    cap = ByteCap(limit_bytes, what="an upload")
    _expect_length(request, cap)
    async with _upload_file(uploads) as (upload, sink):
        async for chunk in request.stream():
            cap.add(len(chunk))
            await sink.write(chunk)
        await sink.flush()
        yield upload


@asynccontextmanager
async def received_form(request: Request, uploads: Path, limit_bytes: int) -> AsyncIterator[Upload]:
    """Stream the part ``file`` of a multipart form to a file that is gone after the block; collect its text fields.

    Raises: TooLarge; BadForm if it is no such form; StorageFull.
    """
    cap = ByteCap(limit_bytes + MULTIPART_OVERHEAD_BYTES, what="an upload")
    _expect_length(request, cap)
    file_cap = ByteCap(limit_bytes, what="an upload")
    reader = MultipartReader(request.headers.get("content-type", ""), file_field="file")
    async with _upload_file(uploads) as (upload, sink):
        async for chunk in request.stream():
            cap.add(len(chunk))
            for piece in reader.feed(chunk):
                file_cap.add(len(piece))
                await sink.write(piece)
        reader.finish()
        await sink.flush()
        upload.fields = reader.fields
        upload.filename = safe_label(reader.filename)
        yield upload


def _expect_length(request: Request, cap: ByteCap) -> None:
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit():
        cap.expect(int(length[:20]))


class _Sink:
    """Writes in large pieces, from a worker thread."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._waiting = bytearray()

    async def write(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) >= WRITE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        data, self._waiting = self._waiting, bytearray()
        await run_sync(_write, self._file, data)


def _write(file: FileIO, data: bytearray) -> None:
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("the disk has no room for this upload; free some space and send it again") from error
        raise


@asynccontextmanager
async def _upload_file(uploads: Path) -> AsyncIterator[tuple[Upload, _Sink]]:
    path = uploads / f"upload_{secrets.token_hex(16)}"
    file = await run_sync(_create, path)
    try:
        yield Upload(path), _Sink(file)
    finally:
        file.close()
        path.unlink(missing_ok=True)


def _create(path: Path) -> FileIO:
    return path.open("xb", buffering=0)
