"""OpenAI's older API of texts that are gone on with: no template, no turns."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.responses import Response

from terakoya.api import server_sent
from terakoya.api.dependencies import Models
from terakoya.api.openai_answers import Answer, Choice, begin, streamed
from terakoya.api.openai_errors import OpenAIRoute
from terakoya.api.schemas.openai import CompletionRequest
from terakoya.models.client import AnswerPart

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
        chunks = streamed(head, begun, _pieces, includes_usage=body.includes_usage, prompts=len(body.prompts))
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


def _pieces(answer: Answer, part: AnswerPart) -> Iterator[Choice]:
    if part.delta or part.logprobs:
        start = len(answer.text) - len(part.delta)
        yield _piece(answer, part.delta, logprobs=_logprobs(part.logprobs, start) if part.logprobs else None)
    if part.reason is not None:
        yield _piece(answer, "", answer.finish_reason)


def _piece(answer: Answer, text: str, reason: str | None = None, *, logprobs: Any = None) -> Choice:
    return {"index": answer.index, "text": text, "logprobs": logprobs, "finish_reason": reason}
