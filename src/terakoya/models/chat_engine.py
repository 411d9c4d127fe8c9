"""Answers a conversation with a model, token by token: the synchronous heart of the model server. Knows nothing of
HTTP, queues or processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from terakoya.exceptions import InvalidConfig, Unavailable
from terakoya.models.base_loader import LoadedModel
from terakoya.models.cache import ModelCache
from terakoya.models.generation import Detokenizer, stop_ids_of, stream
from terakoya.models.prompt_writer import Prompt, PromptWriter
from terakoya.models.wire import ChatRequest


class ChatEngine:
    def __init__(self, cache: ModelCache, prompts: PromptWriter) -> None:
        self._cache = cache
        self._prompts = prompts

    def answer(self, request: ChatRequest, is_cancelled: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Yield ``{"delta": text}`` as it is written, then ``{"finished": true, "tokens", "prompt_tokens", "reason"}``.

        ``reason``: "stop" where the model ended, "length" at ``max_new_tokens``, "context" where its window is full.
        Ends early, without the last event, when cancelled. Raises: AppException.
        """
        with self._cache.get_cached_model(request.artifact) as loaded:
            prompt = self._prompts.write(request.artifact.root.path, request.messages)
            yield from _written(loaded, request, prompt, is_cancelled)


def _written(
    loaded: LoadedModel, request: ChatRequest, prompt: Prompt, is_cancelled: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    limit = min(request.max_new_tokens, _room(loaded, prompt))
    deadline = time.monotonic() + request.timeout_seconds
    text = Detokenizer(loaded.tokenizer)
    count = 0
    for token in stream(
        loaded.module,
        loaded.tokenizer,
        prompt.ids,
        max_new_tokens=limit,
        temperature=request.temperature,
        seed=request.seed,
        stop_ids=stop_ids_of(loaded.module, loaded.tokenizer) | {prompt.end_token_id},
        is_cancelled=is_cancelled,
    ):
        count += 1
        if delta := text.push(token):
            yield {"delta": delta}
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the answer took over {request.timeout_seconds:g} s and was stopped after {count} tokens; "
                "ask for fewer, or raise TERAKOYA_GENERATION_TIMEOUT_SECONDS"
            )
    if is_cancelled():
        return
    if delta := text.flush():
        yield {"delta": delta}
    reason = "stop" if count < limit else "length" if limit == request.max_new_tokens else "context"
    yield {"finished": True, "tokens": count, "prompt_tokens": len(prompt.ids), "reason": reason}


def _room(loaded: LoadedModel, prompt: Prompt) -> int:
    """Return how many tokens fit behind the prompt. Raises: InvalidConfig if none does."""
    config: Any = loaded.module.config
    window: int = getattr(config, "max_position_embeddings", 1 << 30)
    if len(prompt.ids) >= window:
        name = loaded.artifact.info.name
        raise InvalidConfig(
            f"the prompt has {len(prompt.ids)} tokens; the model {name!r} reads {window} with its answer"
        )
    return window - len(prompt.ids)
