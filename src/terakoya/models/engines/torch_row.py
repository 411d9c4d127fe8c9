"""One answer that the PyTorch engine writes: which token comes next, and what text and likelihoods are said of it.
Knows nothing of the batch it is in.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import AppException, ModelLoadError
from terakoya.models.base_loader import LoadedModel
from terakoya.models.engines.base import Event, Say, Task
from terakoya.models.generation import Detokenizer, stop_ids_of
from terakoya.models.sampling import StopTexts, TokenSampler
from terakoya.models.wire import ChatRequest

NAME = "pytorch"


class Opening:
    """Wants its model to be there. Waited for by the thread that asked; all else is the batch's thread's."""

    def __init__(self, artifact: ModelArtifact, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        self.artifact = artifact
        self.is_cancelled = is_cancelled
        self.is_to_be_asked_again = False
        """The base broke before its turn: another may be opened."""
        self.waits_for_all = False
        """Its adapter cannot work beside others: it begins when nothing else is written."""
        self._error: Exception | None = None
        self._ended = threading.Event()

    def wait(self, seconds: float | None = None) -> bool:
        """Return whether it has ended. Raises: what ended it."""
        if not self._ended.wait(seconds):
            return False
        if self._error is not None:
            raise self._error
        return True

    def end(self, error: Exception | None = None) -> None:
        self._error = error
        self._ended.set()


class TorchRow(Opening):
    def __init__(self, request: ChatRequest, task: Task, is_cancelled: Callable[[], bool], say: Say) -> None:
        super().__init__(request.artifact, is_cancelled)
        self.request = request
        self.task = task
        self.adapter: str | None = None
        """Its name on the base; set when the row joins."""
        self.token = 0
        """Chosen last."""
        self.has_joined = False
        self._say = say
        self._count = 0

    @property
    def most_tokens(self) -> int:
        """Prompt and answer together at their longest."""
        return len(self.task.prompt.ids) + self.task.max_new_tokens

    def join(self, loaded: LoadedModel) -> None:
        """Get ready to choose tokens. The time of writing begins now: waiting for a place is not counted."""
        self.task = dataclasses.replace(self.task, deadline=time.monotonic() + self.request.timeout_seconds)
        self.has_joined = True
        self._tokenizer = loaded.tokenizer
        self._stop_ids = stop_ids_of(loaded.module, loaded.tokenizer) | {self.task.prompt.end_token_id}
        self._text, self._stops = Detokenizer(loaded.tokenizer), StopTexts(self.request.sampling.stop)
        self._sampler = TokenSampler(
            self.request.sampling,
            temperature=self.request.temperature,
            seed=self.request.seed,
            prompt_ids=self.task.prompt.ids,
            device=next(loaded.module.parameters()).device,
        )

    def take(self, logits: Tensor) -> bool:
        """Choose a token, [vocabulary] -> whether the answer goes on."""
        try:
            if bool(logits.isnan().any()):
                raise ModelLoadError(
                    f"the model {self.artifact.info.name!r} computed what is no number; fetch it again"
                )
            return self._take(logits)
        except AppException as error:
            self.end(error)
            return False

    def _take(self, logits: Tensor) -> bool:
        if self.is_cancelled():
            self.end()
            return False
        self.token = int(self._sampler.pick(logits[None]))
        if self.token in self._stop_ids:
            self._finish("stop")
            return False
        self._count += 1
        event: Event = {"delta": self._stops.push(self._text.push(self.token))}
        if self.request.sampling.top_logprobs is not None:
            event["logprobs"] = [_likelihood(self._tokenizer, self.token, self._sampler)]
        if event["delta"] or "logprobs" in event:
            self._say(event)
        if self._stops.is_found:
            self._finish("stop")
            return False
        self.task.check_time(self.request, self._count)
        if self._count == self.task.max_new_tokens:
            self._finish(self.task.limit_reason)
            return False
        return True

    def _finish(self, reason: str) -> None:
        if not self._stops.is_found and (delta := self._stops.push(self._text.flush()) + self._stops.flush()):
            self._say({"delta": delta})
        self._say(
            {
                "finished": True,
                "tokens": self._count,
                "prompt_tokens": len(self.task.prompt.ids),
                "reason": "stop" if self._stops.is_found else reason,
                "engine": NAME,
            }
        )
        self.end()


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
