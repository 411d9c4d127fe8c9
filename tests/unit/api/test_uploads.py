from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from terakoya.api.uploads import WRITE_BYTES, received_body, received_form
from terakoya.exceptions import TooLarge

LIMIT = 3 * WRITE_BYTES


class Sender:
    """A client that sends chunks for as long as it is read from."""

    def __init__(self, chunks: list[bytes], **headers: str) -> None:
        self.chunks = chunks
        self.read = 0
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.request = Request({"type": "http", "method": "PUT", "headers": named}, self._receive)

    async def _receive(self) -> dict[str, Any]:
        chunk = self.chunks[self.read]
        self.read += 1
        return {"type": "http.request", "body": chunk, "more_body": self.read < len(self.chunks)}


async def receive(receiver: Callable[..., Any], sender: Sender, uploads: Path) -> bytes:
    async with receiver(sender.request, uploads, LIMIT) as upload:
        return bytes(await asyncio.to_thread(upload.path.read_bytes))


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


async def test_a_body_is_received_whole_and_gone_afterwards(tmp_path: Path) -> None:
    chunks = [bytes([number]) * 70_000 for number in range(40)]
    assert await receive(received_body, Sender(chunks), tmp_path) == b"".join(chunks)
    assert is_empty(tmp_path)


async def test_reading_stops_at_the_cap(tmp_path: Path) -> None:
    sender = Sender([b"x" * WRITE_BYTES] * 100)
    with pytest.raises(TooLarge):
        await receive(received_body, sender, tmp_path)
    assert sender.read == 4
    assert is_empty(tmp_path)


async def test_an_announced_length_over_the_cap_is_refused_unread(tmp_path: Path) -> None:
    sender = Sender([b"x"], content_length=str(LIMIT + 1))
    with pytest.raises(TooLarge):
        await receive(received_body, sender, tmp_path)
    assert sender.read == 0


async def test_reading_of_a_form_stops_at_the_cap(tmp_path: Path) -> None:
    head = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="../../x"\r\n\r\n'
    sender = Sender([head, *[b"x" * WRITE_BYTES] * 100], content_type="multipart/form-data; boundary=cut")
    with pytest.raises(TooLarge):
        await receive(received_form, sender, tmp_path)
    assert sender.read == 5
    assert is_empty(tmp_path)


async def test_nothing_stays_when_the_client_goes_away(tmp_path: Path) -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionError("gone")

    sender = Sender([b""])
    sender.request.stream = stream  # type: ignore[method-assign, assignment]
    with pytest.raises(ConnectionError):
        await receive(received_body, sender, tmp_path)
    assert is_empty(tmp_path)


async def test_the_file_is_named_by_the_server_and_the_label_is_harmless(tmp_path: Path) -> None:
    body = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="../../x"\r\n\r\nrow\r\n--cut--\r\n'
    sender = Sender([body], content_type="multipart/form-data; boundary=cut")
    async with received_form(sender.request, tmp_path, LIMIT) as upload:
        assert upload.path.parent == tmp_path
        assert upload.path.name.startswith("upload_")
        assert upload.filename == "x"
