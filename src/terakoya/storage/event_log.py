"""A task's events: one JSON line each in ``events.jsonl``, appended by several processes, numbered by the reader.
Knows the envelope (time, attempt, type), not what the types mean, save that ``finished`` ends a log.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from terakoya.domain.events import Event, EventType
from terakoya.storage.files import DataDir, full_disk_is_named
from terakoya.storage.json_text import to_json

EVENTS_FILE = "events.jsonl"
_POLL_SECONDS = 0.1
_CHUNK_BYTES = 256 * 1024


def append_event(path: Path, type: str, attempt: int, fields: Mapping[str, Any], *, durably: bool = False) -> None:
    """Append one line by one write, closing first a line that a killed writer left torn."""
    envelope = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "attempt": attempt, "type": str(type)}
    line = to_json({**envelope, **fields}) + b"\n"
    with full_disk_is_named(path):
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            # A short write (full disk) leaves a torn line that the next one closes; writing the rest raises the reason.
            while line := line[os.write(descriptor, line) :]:
                pass
            if durably:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


class EventWriter:
    """The Observer of a worker: every notice becomes a line of its task's log."""

    def __init__(self, path: Path, attempt: int) -> None:
        self._path = path
        self._attempt = attempt

    def notify(self, type: EventType, /, **fields: Any) -> None:
        append_event(self._path, type, self._attempt, fields)


@dataclass
class _Cursor:
    """A place in a log, always after a whole line."""

    path: Path
    offset: int = 0
    lines: int = 0
    unreadable: int = 0
    """Lines that were no JSON object: torn by a kill. They keep their number, so a gap in ``seq`` shows them."""
    last: bytes = b""

    def advance(self, after: int) -> list[Event]:
        """Read up to a chunk of whole lines; return the events numbered above ``after``."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            chunk = file.read(_CHUNK_BYTES)
            while b"\n" not in chunk and (more := file.read(_CHUNK_BYTES)):
                chunk += more  # a single line longer than a chunk
        whole = chunk[: chunk.rfind(b"\n") + 1]
        self.offset += len(whole)
        return list(self._events(whole.split(b"\n")[:-1], after))

    def _events(self, lines: list[bytes], after: int) -> Iterator[Event]:
        for line in lines:
            self.lines += 1
            self.last = line
            if self.lines <= after:
                continue
            if (event := _parse(line)) is None:
                self.unreadable += 1
            else:
                yield {"seq": self.lines, **event}

    @property
    def is_at_end(self) -> bool:
        try:
            return os.stat(self.path).st_size <= self.offset  # noqa: PTH116  called ten times a second a client
        except FileNotFoundError:
            return True

    @property
    def is_finished(self) -> bool:
        """Whether the last line read is ``finished``; a later attempt would have appended to it."""
        return (_parse(self.last) or {}).get("type") == EventType.FINISHED


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


class FileEventLog:
    """The EventLog of the web process. A log that does not exist yet is an empty one."""

    def __init__(self, data_dir: DataDir) -> None:
        self._data_dir = data_dir

    def append(self, task_id: str, type: str, *, attempt: int, **fields: Any) -> None:
        """``finished`` is synced: the database then says that nobody needs to append it again."""
        path = self._path(task_id)
        path.parent.mkdir(exist_ok=True)
        append_event(path, type, attempt, fields, durably=type == EventType.FINISHED)

    def read(self, task_id: str, *, after: int = 0, limit: int | None = None) -> Sequence[Event]:
        cursor = _Cursor(self._path(task_id))
        events: list[Event] = []
        while not cursor.is_at_end and (limit is None or len(events) < limit):
            before = cursor.offset
            events += cursor.advance(after)
            if cursor.offset == before:
                break  # what is left is a line still being written, or torn
        return events if limit is None else events[:limit]

    async def follow(self, task_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """Yield each event above ``after`` once and in order. The caller's pace is the reader's: nothing is queued."""
        cursor = _Cursor(self._path(task_id))
        while True:
            before = cursor.offset
            if not cursor.is_at_end:
                for event in await asyncio.to_thread(cursor.advance, after):
                    yield event
            if cursor.offset != before:
                continue
            if cursor.is_at_end and cursor.is_finished:
                return
            await asyncio.sleep(_POLL_SECONDS)

    def _path(self, task_id: str) -> Path:
        return self._data_dir.task(task_id) / EVENTS_FILE
