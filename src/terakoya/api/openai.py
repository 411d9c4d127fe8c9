"""OpenAI's chat API: which models answer, and conversations with them, streamed or whole."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.responses import Response

from terakoya.api import server_sent
from terakoya.api.dependencies import Models
from terakoya.api.openai_answers import Answer, Choice, begin, streamed
from terakoya.api.openai_errors import OpenAIRoute
from terakoya.api.schemas.openai import ChatCompletionRequest, OpenAIModel, OpenAIModelList
from terakoya.domain.datasets import Message
from terakoya.domain.models import ModelInfo
from terakoya.models.client import AnswerPart

router = APIRouter(tags=["openai"], route_class=OpenAIRoute)


@router.get("/v1/models")
def list_openai_models(models: Models) -> OpenAIModelList:
    """The models that answer, and those that embed or rerank, by name."""
    return OpenAIModelList(data=[_model(info) for info in models.list()])


@router.get("/v1/models/{model_id}")
def get_openai_model(model_id: str, models: Models) -> OpenAIModel:
    return _model(models.get(model_id))


@router.post("/v1/chat/completions")
async def complete_chat(body: ChatCompletionRequest, request: Request, models: Models) -> Response:
    """Answer a conversation. What can be checked is checked before the stream begins.

    ``system_fingerprint`` names the engine that answered and how its weights are stored.
    """
    seed = secrets.randbits(31) if body.seed is None else body.seed
    messages = [Message(message.role, message.text) for message in body.messages]
    name = (await run_sync(models.get, body.model)).name
    begun = await begin(
        [
            models.chat(
                body.model,
                messages,
                max_new_tokens=body.max_new_tokens,
                temperature=body.temperature,
                seed=(seed + number) % 2**32,
                sampling=body.sampling,
            )
            for number in range(body.n)
        ]
    )
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": name}
    if body.stream:
        chunks = streamed(
            head | {"object": "chat.completion.chunk"},
            begun,
            _pieces,
            opening=[_piece(answer, {"role": "assistant", "content": ""}) for answer in begun.answers],
            includes_usage=body.includes_usage,
        )
        return StreamingResponse(chunks, media_type=server_sent.MEDIA_TYPE)
    answers = await begun.read_all(request)
    completion = head | {
        "object": "chat.completion",
        "system_fingerprint": begun.engine,
        "choices": [_choice(answer, with_logprobs=body.logprobs) for answer in answers],
        "usage": begun.usage().model_dump(),
    }
    return JSONResponse(completion)


def _choice(answer: Answer, *, with_logprobs: bool) -> dict[str, Any]:
    return {
        "index": answer.index,
        "message": {"role": "assistant", "content": answer.text},
        "logprobs": {"content": answer.logprobs} if with_logprobs else None,
        "finish_reason": answer.finish_reason,
    }


def _pieces(answer: Answer, part: AnswerPart) -> Iterator[Choice]:
    if part.delta or part.logprobs:
        logprobs = {"content": list(part.logprobs)} if part.logprobs else None
        yield _piece(answer, {"content": part.delta}, logprobs=logprobs)
    if part.reason is not None:
        yield _piece(answer, {}, answer.finish_reason)


def _piece(answer: Answer, delta: dict[str, str], reason: str | None = None, *, logprobs: Any = None) -> Choice:
    return {"index": answer.index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _model(info: ModelInfo) -> OpenAIModel:
    return OpenAIModel(id=info.name, created=int(info.created_at.timestamp()))
