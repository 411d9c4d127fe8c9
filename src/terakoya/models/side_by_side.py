"""Several answers written at once and told apart by a label, as one stream. One that finds no room beside the others
waits until one of them has ended. Knows nothing of models.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from terakoya.exceptions import AppException, Unavailable

Event = dict[str, Any]
Start = Callable[[], AsyncGenerator[Event, None]]
_WAITING_EVENTS = 64
"""A reader who stops reading stops the writers after so many."""


async def side_by_side(answers: Mapping[str, Start], label: str) -> AsyncGenerator[Event, None]:
    """Yield the events of all answers as they come, each with its key under ``label``; closing it ends all of them.

    An answer that fails ends with ``{"error", "code"}``, and the others go on.
    """
    events: asyncio.Queue[Event | BaseException | None] = asyncio.Queue(_WAITING_EVENTS)
    turns = _Turns(len(answers))
    writers = [asyncio.create_task(_write(label, key, start, events, turns)) for key, start in answers.items()]
    try:
        waiting = len(writers)
        while waiting:
            event = await events.get()
            if event is None:
                waiting -= 1
            elif isinstance(event, BaseException):
                raise event
            else:
                yield event
    finally:
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)


class _Turns:
    """How many write, and the end of each, for those that wait for room."""

    def __init__(self, writing: int) -> None:
        self._writing = writing
        self._ended = asyncio.Event()

    def end(self) -> None:
        self._writing -= 1
        ended, self._ended = self._ended, asyncio.Event()
        ended.set()

    async def another_has_ended(self) -> bool:
        """Wait for it; False at once where no other writes, so that waiting would be for nothing."""
        if self._writing <= 1:
            return False
        self._writing -= 1
        await self._ended.wait()
        self._writing += 1
        return True


async def _write(
    label: str, key: str, start: Start, events: asyncio.Queue[Event | BaseException | None], turns: _Turns
) -> None:
    last: BaseException | None = None
    try:
        while True:
            has_begun = False
            try:
                async with aclosing(start()) as answer:
                    async for event in answer:
                        has_begun = True
                        await events.put({label: key} | event)
                break
            except AppException as error:
                if isinstance(error, Unavailable) and not has_begun and await turns.another_has_ended():
                    continue
                await events.put({label: key, "error": str(error), "code": error.code})
                break
    except Exception as error:  # noqa: BLE001  raised again where the events are read
        last = error
    turns.end()
    await events.put(last)
