"""What chat and text completions share: several answers to one request, begun together so that what is refused has a
status, then read side by side, streamed or to their ends. Knows no field of OpenAI's but the frame of a stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from terakoya.api import server_sent
from terakoya.api.openai_errors import envelope
from terakoya.api.schemas.openai import Usage
from terakoya.exceptions import AppException
from terakoya.models.client import AnswerPart

FINISH_REASONS = {"stop": "stop", "length": "length", "context": "length"}
Parts = AsyncGenerator[AnswerPart, None]


@dataclass
class Answer:
    """One of a request's answers, read so far."""

    index: int
    text: str = ""
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    end: AnswerPart = field(default_factory=AnswerPart)

    def take(self, part: AnswerPart) -> None:
        self.text += part.delta
        self.logprobs.extend(part.logprobs)
        if part.reason is not None:
            self.end = part

    @property
    def finish_reason(self) -> str | None:
        return FINISH_REASONS.get(self.end.reason or "", self.end.reason)


class Begun:
    """Answers of which each has its first piece."""

    def __init__(self, firsts: Sequence[AnswerPart], rests: Sequence[Parts]) -> None:
        self._firsts = firsts
        self._rests = rests
        self.answers = [Answer(index) for index in range(len(rests))]

    async def read(self) -> AsyncGenerator[tuple[Answer, AnswerPart], None]:
        """Yield the pieces as they come, each already taken by its answer. The first error ends all."""
        pieces: asyncio.Queue[tuple[int, AnswerPart | BaseException | None]] = asyncio.Queue(maxsize=64)
        readers = [asyncio.create_task(self._pass_on(index, pieces)) for index in range(len(self._rests))]
        waiting = len(readers)
        try:
            while waiting:
                index, piece = await pieces.get()
                if piece is None:
                    waiting -= 1
                elif isinstance(piece, BaseException):
                    raise piece
                else:
                    self.answers[index].take(piece)
                    yield self.answers[index], piece
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def _pass_on(self, index: int, pieces: asyncio.Queue[tuple[int, AnswerPart | BaseException | None]]) -> None:
        last: BaseException | None = None
        try:
            async with aclosing(self._rests[index]) as rest:
                await pieces.put((index, self._firsts[index]))
                async for part in rest:
                    await pieces.put((index, part))
        except Exception as error:  # noqa: BLE001  raised again where the pieces are read
            last = error
        await pieces.put((index, last))

    async def read_all(self, request: Request) -> list[Answer]:
        """Return the answers at their ends, or as they are when nobody waits for them any more."""
        async with aclosing(self.read()) as pieces:
            async for _ in pieces:
                if await request.is_disconnected():
                    break  # the model is free for the next
        return self.answers

    def usage(self, prompts: int = 1) -> Usage:
        """``prompts``: the answers are as many times several to each of so many prompts."""
        share = max(1, len(self.answers) // prompts)
        read = sum(answer.end.prompt_tokens for answer in self.answers[::share])
        written = sum(answer.end.tokens for answer in self.answers)
        return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)

    @property
    def engine(self) -> str:
        """Which wrote them; "" before the first has ended."""
        return next((answer.end.engine for answer in self.answers if answer.end.engine), "")


async def begin(streams: Sequence[Parts]) -> Begun:
    """Wait for the first piece of each. Raises: what any of them raises, the others then being closed."""
    firsts = await asyncio.gather(*(anext(parts) for parts in streams), return_exceptions=True)
    errors = [first for first in firsts if isinstance(first, BaseException)]
    if errors:
        for parts in streams:
            await parts.aclose()
        raise errors[0]
    return Begun([first for first in firsts if not isinstance(first, BaseException)], streams)


Choice = dict[str, Any]


async def streamed(
    head: dict[str, Any],
    begun: Begun,
    choices: Callable[[Answer, AnswerPart], Iterable[Choice]],
    *,
    opening: Iterable[Choice] = (),
    includes_usage: bool,
    prompts: int = 1,
) -> AsyncIterator[str]:
    """Yield server-sent events of one choice each; an error in mid-answer is the last of them, without ``[DONE]``.

    ``choices``: what is said of a piece that its answer has taken. ``opening``: what is said before the first.
    """

    def chunk(choice: Choice) -> str:
        return server_sent.event(head | {"choices": [choice]} | ({"usage": None} if includes_usage else {}))

    for choice in opening:
        yield chunk(choice)
    try:
        async with aclosing(begun.read()) as pieces:
            async for answer, part in pieces:
                if part.reason is not None:
                    head = head | {"system_fingerprint": part.engine}
                for choice in choices(answer, part):
                    yield chunk(choice)
        if includes_usage:
            yield server_sent.event(head | {"choices": [], "usage": begun.usage(prompts).model_dump()})
    except AppException as error:
        yield server_sent.event(envelope(error))
        return
    yield server_sent.DONE
