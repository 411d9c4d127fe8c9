"""Makes training rows of questions whose answers were verified: the prompt as a writing model gets it, and the answer
it should have written, each sentence with the number it cites. Questions without an answer teach to refuse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from terakoya.domain.documents import Citation, CollectionInfo
from terakoya.exceptions import InvalidQuestions
from terakoya.rag.core.evidence import evidence_sentences
from terakoya.rag.core.prompt import REFUSAL, Prompt, build_prompt
from terakoya.rag.core.speaking import PASSAGES_READ, Outcome, Question, Speaker
from terakoya.rag.core.trace import QueryTrace
from terakoya.rag.evaluation.judging import supports
from terakoya.rag.evaluation.preparing import Judgeable
from terakoya.rag.retrieval.retriever import Retrieved, Retriever

PROMPT_TOKENS = 1_500
"""Shorter than what a model may get when it answers: long rows cost much to learn."""
_CHARACTERS_PER_TOKEN = 2
Progress = Callable[[int, int], None]
Register = Callable[[str, Sequence[dict[str, Any]]], str]
"""Makes a data set of a name from rows; returns its id. Blocks."""


async def training_rows(
    retriever: Retriever,
    speaker: Speaker,
    collection: CollectionInfo,
    questions: Sequence[Judgeable],
    progress: Progress,
) -> list[dict[str, Any]]:
    """Return a row for each question whose quoted answer rests on what should be found, or that has none.

    Raises: InvalidQuestions if no question gives a row; Unavailable.
    """
    rows = []
    for number, one in enumerate(questions):
        progress(number, len(questions))
        found = await retriever.search(
            collection, one.question.question, limit=PASSAGES_READ, settings=collection.retrieval
        )
        row = await _row(speaker, collection, one, found)
        if row is not None:
            rows.append(row)
    progress(len(questions), len(questions))
    if not rows:
        raise InvalidQuestions("no question has an answer whose citations could be verified against what is expected")
    return rows


async def _row(speaker: Speaker, collection: CollectionInfo, one: Judgeable, found: Retrieved) -> dict[str, Any] | None:
    prompt = await asyncio.to_thread(_prompt, found)
    if not one.question.answerable:
        return _conversation(prompt, REFUSAL) if prompt.numbered else None
    outcome = await _quoted(speaker, Question(collection, one.question.question, "extractive"), found)
    is_sound = outcome.citations and all(citation.verified for citation in outcome.citations)
    if not is_sound or not any(supports(citation, one.targets, one.question.answers) for citation in outcome.citations):
        return None
    numbers = {(s.hit.passage.document_id, s.start, s.end): number for number, s in prompt.numbered.items()}
    places = [numbers.get(_place(citation)) for citation in outcome.citations]
    if None in places:  # it lies beyond what the prompt could hold
        return None
    parts = [
        f"{' '.join(citation.quote.split())} [{number}]"
        for citation, number in zip(outcome.citations, places, strict=True)
    ]
    return _conversation(prompt, " ".join(parts))


async def _quoted(speaker: Speaker, question: Question, found: Retrieved) -> Outcome:
    outcome = Outcome()
    async with aclosing(speaker.speak(question, found, QueryTrace("training_set"))) as parts:
        async for part in parts:
            if isinstance(part, Outcome):
                outcome = part
    return outcome


def _prompt(found: Retrieved) -> Prompt:
    sentences = evidence_sentences(found.hits[:PASSAGES_READ])
    return build_prompt(
        found.query,
        found.language,
        sentences,
        budget_tokens=PROMPT_TOKENS,
        count_tokens=lambda text: len(text) // _CHARACTERS_PER_TOKEN + 1,
    )


def _conversation(prompt: Prompt, answer: str) -> dict[str, Any]:
    asked = [{"role": message.role, "content": message.content} for message in prompt.messages]
    return {"messages": [*asked, {"role": "assistant", "content": answer}]}


def _place(citation: Citation) -> tuple[str, int, int]:
    return citation.document_id, citation.start, citation.end
