"""OpenAI's older API of texts that are gone on with: no template, no turns."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.responses import Response

from terakoya.api import server_sent
from terakoya.api.dependencies import Models
from terakoya.api.openai_answers import Answer, Begun, begin
from terakoya.api.openai_errors import OpenAIRoute, envelope
from terakoya.api.schemas.openai import CompletionRequest
from terakoya.exceptions import AppException

router = APIRouter(tags=["openai"], route_class=OpenAIRoute)


@router.post("/v1/completions")
async def complete_text(body: CompletionRequest, request: Request, models: Models) -> Response:
    """Go on with each prompt, ``n`` times."""
    seed = secrets.randbits(31) if body.seed is None else body.seed
    name = (await run_sync(models.get, body.model)).name
    begun = await begin(
        [
            models.complete(
                body.model,
                prompt,
                max_new_tokens=body.max_tokens,
                temperature=body.temperature,
                seed=(seed + number) % 2**32,
                sampling=body.sampling,
            )
            for prompt in body.prompts
            for number in range(body.n)
        ]
    )
    head = {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": name,
    }
    if body.stream:
        chunks = _chunks(head, begun, body)
        return StreamingResponse(chunks, media_type=server_sent.MEDIA_TYPE)
    answers = await begun.read_all(request)
    completion = head | {
        "system_fingerprint": begun.engine,
        "choices": [_choice(answer, body) for answer in answers],
        "usage": begun.usage(len(body.prompts)).model_dump(),
    }
    return JSONResponse(completion)


def _choice(answer: Answer, body: CompletionRequest) -> dict[str, Any]:
    return {
        "index": answer.index,
        "text": answer.text,
        "logprobs": None if body.logprobs is None else _logprobs(answer.logprobs, 0),
        "finish_reason": answer.finish_reason,
    }


def _logprobs(entries: Sequence[dict[str, Any]], start: int) -> dict[str, Any]:
    """Return the older form, of parallel lists; ``start``: where in the answer's text the first begins."""
    offsets, place = [], start
    for entry in entries:
        offsets.append(place)
        place += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{other["token"]: other["logprob"] for other in entry["top_logprobs"]} for entry in entries],
        "text_offset": offsets,
    }


async def _chunks(head: dict[str, Any], begun: Begun, body: CompletionRequest) -> AsyncIterator[str]:
    """Server-sent events; an error in mid-answer is the last of them, without ``[DONE]``."""

    def chunk(index: int, text: str, reason: str | None = None, logprobs: dict[str, Any] | None = None) -> str:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return server_sent.event(head | {"choices": [choice]} | ({"usage": None} if body.includes_usage else {}))

    try:
        async with aclosing(begun.read()) as pieces:
            async for answer, part in pieces:
                if part.delta or part.logprobs:
                    start = len(answer.text) - len(part.delta)
                    yield chunk(
                        answer.index, part.delta, logprobs=_logprobs(part.logprobs, start) if part.logprobs else None
                    )
                if part.reason is not None:
                    head = head | {"system_fingerprint": part.engine}
                    yield chunk(answer.index, "", answer.finish_reason)
        if body.includes_usage:
            usage = begun.usage(len(body.prompts)).model_dump()
            yield server_sent.event(head | {"choices": [], "usage": usage})
    except AppException as error:
        yield server_sent.event(envelope(error))
        return
    yield server_sent.DONE
