"""Lets a model answer from numbered sentences, and checks what it wrote. Whether the model may is decided elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from terakoya.domain.documents import Language
from terakoya.domain.models import ModelArtifact
from terakoya.models.context import context_window, token_counter
from terakoya.models.service import ChatClient
from terakoya.rag.core.citations import CheckedAnswer, MarkerFilter, check_answer
from terakoya.rag.core.evidence import EvidenceSentence
from terakoya.rag.core.prompt import REFUSAL, Prompt, build_prompt

MAX_PROMPT_TOKENS = 3000
"""A longer prompt costs seconds on a CPU before the first word."""
MAX_NEW_TOKENS = 300
_TEMPLATE_TOKENS = 64
"""What a chat template adds around the messages, generously."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote, checked. ``answer`` is None where it says that the documents do not hold it."""

    answer: CheckedAnswer | None
    prompt_sentences: int


async def write(
    chat: ChatClient,
    artifact: ModelArtifact,
    question: str,
    language: Language,
    sentences: Sequence[EvidenceSentence],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> AsyncGenerator[str | Written, None]:
    """Yield the text as it is written, without markers, then the checked whole. Closing it stops the model.

    Raises: ModelLoadError, InvalidConfig, Unavailable.
    """
    prompt = await asyncio.to_thread(_prompt, artifact, question, language, sentences, max_new_tokens)
    markers = MarkerFilter()
    written = ""
    held = ""  # while it may still become the refusal
    parts = chat.stream(artifact, prompt.messages, max_new_tokens=max_new_tokens)
    async with aclosing(parts):
        async for part in parts:
            written += part.delta
            held += part.delta
            if not _may_refuse(written):
                if text := markers.push(held):
                    yield text
                held = ""
    if text := "" if _may_refuse(written) else markers.flush():
        yield text
    refuses = REFUSAL in written or not written.strip()
    answer = None if refuses else await asyncio.to_thread(check_answer, written.strip(), prompt.numbered)
    yield Written(answer, len(prompt.numbered))


def _prompt(
    artifact: ModelArtifact,
    question: str,
    language: Language,
    sentences: Sequence[EvidenceSentence],
    max_new_tokens: int,
) -> Prompt:
    budget = min(context_window(artifact) - max_new_tokens - _TEMPLATE_TOKENS, MAX_PROMPT_TOKENS)
    return build_prompt(question, language, sentences, budget_tokens=budget, count_tokens=token_counter(artifact))


def _may_refuse(written: str) -> bool:
    start = written.strip()
    return REFUSAL.startswith(start) or start.startswith(REFUSAL)
