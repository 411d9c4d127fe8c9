"""The thin OpenAI-compatible side: which models answer, and a conversation with one of them, streamed or whole."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.responses import Response

from terakoya.api import server_sent
from terakoya.api.dependencies import Models
from terakoya.api.openai_errors import OpenAIRoute, envelope
from terakoya.api.schemas.openai import ChatCompletionRequest, OpenAIModel, OpenAIModelList, Usage
from terakoya.domain.datasets import Message
from terakoya.domain.models import ModelInfo
from terakoya.exceptions import AppException, InvalidConfig
from terakoya.models.client import AnswerPart

router = APIRouter(tags=["openai"], route_class=OpenAIRoute)

FINISH_REASONS = {"stop": "stop", "length": "length", "context": "length"}


@router.get("/v1/models")
def list_chat_models(models: Models) -> OpenAIModelList:
    """The models that can answer, by name."""
    return OpenAIModelList(data=[_model(info) for info in models.list() if info.can_answer])


@router.get("/v1/models/{model_id}")
def get_chat_model(model_id: str, models: Models) -> OpenAIModel:
    info = models.get(model_id)
    if not info.can_answer:
        raise InvalidConfig(f"{info.name!r} turns texts into vectors for retrieval and cannot answer")
    return _model(info)


@router.post("/v1/chat/completions")
async def complete_chat(body: ChatCompletionRequest, request: Request, models: Models) -> Response:
    """Answer a conversation. What can be checked is checked before the stream begins."""
    parts = models.chat(
        body.model,
        [Message(message.role, message.text) for message in body.messages],
        max_new_tokens=body.max_new_tokens,
        temperature=body.temperature,
        seed=secrets.randbits(32) if body.seed is None else body.seed,
    )
    name = (await run_sync(models.get, body.model)).name
    first = await anext(parts)
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": name}
    if body.stream:
        chunks = _chunks(head, first, parts, includes_usage=body.includes_usage)
        return StreamingResponse(chunks, media_type=server_sent.MEDIA_TYPE)
    return JSONResponse(await _completion(head, first, parts, request))


async def _completion(
    head: dict[str, Any], first: AnswerPart, rest: AsyncGenerator[AnswerPart, None], request: Request
) -> dict[str, Any]:
    text = ""
    async with aclosing(_joined(first, rest)) as parts:
        async for part in parts:
            text += part.delta
            if await request.is_disconnected():
                break  # nobody waits for it: the model is free for the next
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": FINISH_REASONS.get(part.reason or "", part.reason),
    }
    return head | {"object": "chat.completion", "choices": [choice], "usage": _usage(part).model_dump()}


async def _chunks(
    head: dict[str, Any], first: AnswerPart, rest: AsyncGenerator[AnswerPart, None], *, includes_usage: bool
) -> AsyncIterator[str]:
    """Server-sent events; an error in mid-answer is the last of them, without ``[DONE]``."""

    def chunk(delta: dict[str, str], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        usage = {"usage": None} if includes_usage else {}
        return server_sent.event(head | {"object": "chat.completion.chunk", "choices": [choice]} | usage)

    yield chunk({"role": "assistant", "content": ""})
    try:
        async with aclosing(_joined(first, rest)) as parts:
            async for part in parts:
                if part.delta:
                    yield chunk({"content": part.delta})
        yield chunk({}, FINISH_REASONS.get(part.reason or "", part.reason))
        if includes_usage:
            usage = {"object": "chat.completion.chunk", "choices": [], "usage": _usage(part).model_dump()}
            yield server_sent.event(head | usage)
    except AppException as error:
        yield server_sent.event(envelope(error))
        return
    yield server_sent.DONE


async def _joined(first: AnswerPart, rest: AsyncGenerator[AnswerPart, None]) -> AsyncGenerator[AnswerPart, None]:
    async with aclosing(rest):
        yield first
        async for part in rest:
            yield part


def _usage(end: AnswerPart) -> Usage:
    total = end.prompt_tokens + end.tokens
    return Usage(prompt_tokens=end.prompt_tokens, completion_tokens=end.tokens, total_tokens=total)


def _model(info: ModelInfo) -> OpenAIModel:
    return OpenAIModel(id=info.name, created=int(info.created_at.timestamp()))
