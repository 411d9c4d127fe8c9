from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from tests.unit.rag.core.conftest import HANDBOOK

from rag_stand_ins import Script, ScriptedChat, honest
from terakoya.domain.datasets import Message
from terakoya.domain.documents import Hit, Language
from terakoya.domain.models import ModelArtifact
from terakoya.rag.core.evidence import evidence_sentences
from terakoya.rag.core.generative import Written, write
from terakoya.rag.core.prompt import REFUSAL


async def written(script: Script, hits: list[Hit], artifact: ModelArtifact) -> tuple[str, Written]:
    chat = ScriptedChat(script)
    text, whole = "", None
    async for part in write(chat, artifact, "When may lamps be returned?", Language.ENGLISH, evidence_sentences(hits)):
        if isinstance(part, Written):
            whole = part
        else:
            text += part
    assert whole is not None
    return text, whole


async def test_text_comes_without_markers_and_the_checked_whole_last(
    hit_of: Callable[..., Hit], artifact: ModelArtifact
) -> None:
    text, whole = await written(honest, [hit_of(HANDBOOK)], artifact)
    assert text == "Lamps may be returned within 21 days of delivery."
    assert whole.answer is not None
    assert whole.answer.text == f"{text} [1]"
    assert whole.answer.citations[0].verified


@pytest.mark.parametrize("refusal", [REFUSAL, f"{REFUSAL}.", f"\n{REFUSAL}", ""])
async def test_a_refusal_is_no_answer_and_is_never_shown(
    refusal: str, hit_of: Callable[..., Hit], artifact: ModelArtifact
) -> None:
    text, whole = await written(lambda _: refusal, [hit_of(HANDBOOK)], artifact)
    assert text.strip() == ""
    assert whole.answer is None


async def test_an_answer_that_begins_like_the_refusal_is_shown(
    hit_of: Callable[..., Hit], artifact: ModelArtifact
) -> None:
    text, whole = await written(lambda _: "NO, lamps may be returned. [1]", [hit_of(HANDBOOK)], artifact)
    assert text == "NO, lamps may be returned."
    assert whole.answer is not None


async def test_closing_it_stops_the_model(hit_of: Callable[..., Hit], artifact: ModelArtifact) -> None:
    def endless(messages: Sequence[Message]) -> str:
        return "Lamps and more lamps. " * 10_000

    chat = ScriptedChat(endless)
    parts = write(chat, artifact, "When?", Language.ENGLISH, evidence_sentences([hit_of(HANDBOOK)]))
    await anext(parts)
    await parts.aclose()
    assert chat.stopped == 1


async def test_a_long_context_is_cut_to_what_the_model_reads(
    hit_of: Callable[..., Hit], artifact: ModelArtifact
) -> None:
    chat = ScriptedChat(honest)
    hits = [hit_of("Lamps are mentioned here once more. " * 60, document_id=f"document_{n}") for n in range(20)]
    async for part in write(chat, artifact, "When?", Language.ENGLISH, evidence_sentences(hits)):
        if isinstance(part, Written):
            assert 0 < part.prompt_sentences < 20 * 60
    words = sum(len(message.content.split()) for message in chat.asked[0])
    assert words < 2048 - 300
