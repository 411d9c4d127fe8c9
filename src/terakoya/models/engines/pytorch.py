"""Answers with a torch module, token by token: any architecture that Transformers has, on any device. One answer a
model is written at a time. Knows nothing of HTTP, queues or processes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import InvalidConfig
from terakoya.models.base_loader import LoadedModel
from terakoya.models.cache import ModelCache
from terakoya.models.engines.base import Event, OpenModel, Say, Task, prepare
from terakoya.models.generation import Detokenizer, stop_ids_of, stream
from terakoya.models.prompt_writer import PromptWriter
from terakoya.models.sampling import StopTexts, TokenSampler
from terakoya.models.wire import ChatRequest

NAME = "pytorch"


class PyTorchEngine:
    name = NAME

    def __init__(self, cache: ModelCache, prompts: PromptWriter) -> None:
        self._cache = cache
        self._prompts = prompts

    def answer(self, request: ChatRequest, is_cancelled: Callable[[], bool], say: Say) -> None:
        if request.sampling.json_schema is not None:
            raise InvalidConfig(
                f"the engine {NAME!r}, which answers for {request.artifact.info.name!r}, cannot hold an answer to a "
                "JSON schema; the engine 'llama.cpp' can, for models it can open"
            )
        with self._cache.get_cached_model(request.artifact) as loaded:
            _write(loaded, request, prepare(request, self._prompts), is_cancelled, say)

    def load(self, artifact: ModelArtifact) -> None:
        with self._cache.get_cached_model(artifact):
            pass

    def unload(self, artifact: ModelArtifact) -> bool:
        return self._cache.drop(artifact.root.info.content_sha256)

    def open_models(self) -> list[OpenModel]:
        return [
            OpenModel(artifact, self.name, size, len(adapters)) for artifact, size, adapters in self._cache.open_models
        ]


def _write(loaded: LoadedModel, request: ChatRequest, task: Task, is_cancelled: Callable[[], bool], say: Say) -> None:
    device = next(loaded.module.parameters()).device
    sampler = TokenSampler(
        request.sampling,
        temperature=request.temperature,
        seed=request.seed,
        prompt_ids=task.prompt.ids,
        device=device,
    )
    text, stops = Detokenizer(loaded.tokenizer), StopTexts(request.sampling.stop)
    count = 0
    for token in stream(
        loaded.module,
        loaded.tokenizer,
        task.prompt.ids,
        max_new_tokens=task.max_new_tokens,
        stop_ids=stop_ids_of(loaded.module, loaded.tokenizer) | {task.prompt.end_token_id},
        is_cancelled=is_cancelled,
        sampler=sampler,
    ):
        count += 1
        event: Event = {"delta": stops.push(text.push(token))}
        if request.sampling.top_logprobs is not None:
            event["logprobs"] = [_likelihood(loaded.tokenizer, token, sampler)]
        if event["delta"] or "logprobs" in event:
            say(event)
        if stops.is_found:
            break
        task.check_time(request, count)
    if is_cancelled():
        return
    if not stops.is_found and (delta := stops.push(text.flush()) + stops.flush()):
        say({"delta": delta})
    reason = "stop" if stops.is_found or count < task.max_new_tokens else task.limit_reason
    say(
        {
            "finished": True,
            "tokens": count,
            "prompt_tokens": len(task.prompt.ids),
            "reason": reason,
            "engine": NAME,
        }
    )


def _likelihood(tokenizer: Any, token: int, sampler: TokenSampler) -> dict[str, Any]:
    top = [_token(tokenizer, number, value) for number, value in sampler.top]
    return _token(tokenizer, token, sampler.logprob) | {"top_logprobs": top}


def _token(tokenizer: Any, token: int, logprob: float) -> dict[str, Any]:
    text: str = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    whole = text.encode() if "\N{REPLACEMENT CHARACTER}" not in text else _bytes(tokenizer, token)
    return {"token": text, "logprob": logprob, "bytes": list(whole)}


def _bytes(tokenizer: Any, token: int) -> bytes:
    """Return the bytes of a token that ends within a character, of a byte-level vocabulary."""
    table = _byte_of_letter()
    return bytes(table[letter] for letter in tokenizer.convert_ids_to_tokens(token) if letter in table)


@functools.cache
def _byte_of_letter() -> dict[str, int]:
    """Byte-level vocabularies write printable bytes of Latin-1 as themselves, all others from U+0100 on, in order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [number for number in range(256) if number not in printable]
    return {chr(number): number for number in printable} | {chr(256 + n): number for n, number in enumerate(others)}
