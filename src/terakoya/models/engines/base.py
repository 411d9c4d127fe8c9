"""The port of the engines, and what all of them need to know of an answer before it begins. Knows neither torch nor
llama.cpp.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ContextOverflow, Unavailable
from terakoya.models.context import context_window
from terakoya.models.prompt_writer import Prompt, PromptWriter
from terakoya.models.wire import ChatRequest

Event = dict[str, Any]
Say = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class OpenModel:
    """One that is in memory."""

    artifact: ModelArtifact
    engine: str
    size_bytes: int
    adapters: int


class Engine(Protocol):
    @property
    def name(self) -> str:
        """ "llama.cpp" or "pytorch": what requests and settings call it."""
        ...

    def answer(self, request: ChatRequest, is_cancelled: Callable[[], bool], say: Say) -> None:
        """Say ``{"delta": text}`` as it is written, with ``"logprobs"`` where they were asked for, then ``{"finished":
        true, "tokens", "prompt_tokens", "reason", "engine"}``. An answer that has not begun may say
        ``{"waiting": true}`` now and then.

        ``reason``: "stop" where the model ended, "length" at ``max_new_tokens``, "context" where its window is full.
        Ends early, without the last event, when cancelled. Raises: AppException.
        """
        ...

    def load(self, artifact: ModelArtifact) -> None:
        """Open the model, so that the first answer need not wait for it. Raises: AppException."""
        ...

    def unload(self, artifact: ModelArtifact) -> bool:
        """Close it unless somebody uses it; return whether it is closed now."""
        ...

    def open_models(self) -> list[OpenModel]: ...

    @property
    def is_opening(self) -> bool:
        """Whether answers may be waiting for a model to be opened."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """An answer to be written: its prompt, and how long it may become."""

    prompt: Prompt
    max_new_tokens: int
    window_is_short: bool
    """The window ends the answer before ``max_new_tokens`` would."""
    deadline: float

    @property
    def limit_reason(self) -> str:
        return "context" if self.window_is_short else "length"

    def check_time(self, request: ChatRequest, tokens: int) -> None:
        """Raises: Unavailable once the time is up."""
        if time.monotonic() > self.deadline:
            raise Unavailable(
                f"the answer took over {request.timeout_seconds:g} s and was stopped after {tokens} tokens; "
                "ask for fewer, or raise TERAKOYA_GENERATION_TIMEOUT_SECONDS"
            )


def prepare(request: ChatRequest, prompts: PromptWriter) -> Task:
    """Write the prompt and see what fits behind it. Raises: ContextOverflow saying by how much it is too long."""
    folder = request.artifact.root.path
    if request.text is not None:
        prompt = prompts.tokenize(folder, request.text)
    else:
        prompt = prompts.write(folder, request.messages)
    window, length = context_window(request.artifact), len(prompt.ids)
    if length >= window:
        raise ContextOverflow(
            f"the prompt has {length} tokens; the model {request.artifact.info.name!r} reads {window} with its answer, "
            f"so it is {length - window + 1} too long; shorten it by as many"
        )
    room = window - length
    return Task(
        prompt,
        max_new_tokens=min(request.max_new_tokens, room),
        window_is_short=room < request.max_new_tokens,
        deadline=time.monotonic() + request.timeout_seconds,
    )
