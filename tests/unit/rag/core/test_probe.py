from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import pytest

from rag_stand_ins import Script, ScriptedChat, numbered_lines, question_of
from terakoya.domain.datasets import Message
from terakoya.domain.documents import Language
from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import Unavailable
from terakoya.rag.core.probe import CitationProbe, ProbeResult, content_key
from terakoya.rag.core.probe_cases import CASES
from terakoya.rag.core.prompt import REFUSAL


class Results:
    def __init__(self) -> None:
        self.saved: dict[tuple[str, Language, str], dict[str, object]] = {}

    def find(self, model_sha256: str, language: Language, probe: str) -> dict[str, object] | None:
        return self.saved.get((model_sha256, language, probe))

    def save(self, model_sha256: str, language: Language, probe: str, result: dict[str, object]) -> None:
        self.saved[model_sha256, language, probe] = result


def capable(messages: Sequence[Message]) -> str:
    """Knows the right answers, as a good model would."""
    question = question_of(messages)
    case = next(case for cases in CASES.values() for case in cases if case.question == question)
    if not case.accepted:
        return REFUSAL
    lines = numbered_lines(messages)
    number = next(number for number, line in lines.items() if line.startswith(case.source))
    return f"{lines[number]} [{number}]"


def inventing_citations(messages: Sequence[Message]) -> str:
    answer = capable(messages)
    return re.sub(r"\[(\d+)\]$", "[77]", answer)


def citing_the_first(messages: Sequence[Message]) -> str:
    return re.sub(r"\[(\d+)\]$", "[3]", capable(messages))


def changing_numbers(messages: Sequence[Message]) -> str:
    text, bracket, number = capable(messages).rpartition("[")
    return re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), text) + bracket + number


def never_refusing(messages: Sequence[Message]) -> str:
    return "It is not known. [1]" if capable(messages) == REFUSAL else capable(messages)


def always_refusing(messages: Sequence[Message]) -> str:
    return REFUSAL


async def probed(script: Script, artifact: ModelArtifact, language: Language) -> ProbeResult:
    return await CitationProbe(ScriptedChat(script), Results()).result(artifact, language)


@pytest.mark.parametrize("language", list(Language))
async def test_a_model_that_cites_copies_and_refuses_passes(language: Language, artifact: ModelArtifact) -> None:
    result = await probed(capable, artifact, language)
    assert (result.passed, result.tried, result.needed, result.has_passed) == (8, 8, 7, True)


@pytest.mark.parametrize("language", list(Language))
@pytest.mark.parametrize(
    "script", [inventing_citations, citing_the_first, changing_numbers, never_refusing, always_refusing]
)
async def test_a_model_that_does_not_fails(script: Script, language: Language, artifact: ModelArtifact) -> None:
    result = await probed(script, artifact, language)
    assert not result.has_passed
    assert "did not pass the citation probe in" in result.reason("writer", language)


async def test_the_probe_ends_once_failing_is_certain(artifact: ModelArtifact) -> None:
    result = await probed(always_refusing, artifact, Language.ENGLISH)
    assert (result.passed, result.tried) == (0, 2)


async def test_a_model_is_probed_once_a_language(artifact: ModelArtifact) -> None:
    chat = ScriptedChat(capable)
    probe = CitationProbe(chat, Results())
    english = await asyncio.gather(*(probe.result(artifact, Language.ENGLISH) for _ in range(3)))
    assert len(set(english)) == 1
    assert len(chat.asked) == len(CASES[Language.ENGLISH])
    await probe.result(artifact, Language.JAPANESE)
    assert len(chat.asked) == len(CASES[Language.ENGLISH]) + len(CASES[Language.JAPANESE])


async def test_a_probe_that_takes_too_long_is_no_result(artifact: ModelArtifact) -> None:
    class Slow(ScriptedChat):
        async def stream(self, *arguments, **options):  # type: ignore[no-untyped-def]
            await asyncio.sleep(60)
            yield

    results = Results()
    with pytest.raises(Unavailable, match="not done after"):
        await CitationProbe(Slow(capable), results, timeout_seconds=0.05).result(artifact, Language.ENGLISH)
    assert results.saved == {}


def test_an_adapters_key_depends_on_its_base(artifact: ModelArtifact) -> None:
    adapter = ModelArtifact(artifact.info, artifact.path, base=artifact)
    assert content_key(artifact) == artifact.info.content_sha256
    assert content_key(adapter) != content_key(artifact)
    assert len(content_key(adapter)) == 64
