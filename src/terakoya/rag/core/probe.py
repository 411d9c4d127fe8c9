"""The citation probe: whether a model, in a language, answers from numbered sentences, cites the right ones, copies
numbers, and says so when they do not hold the answer. Only one that passes may write answers. Results are kept by the
model's content, so a copy under another name need not be probed again.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import defaultdict
from contextlib import aclosing
from dataclasses import asdict, dataclass
from unicodedata import normalize

from terakoya.domain.document_ports import ProbeRepository
from terakoya.domain.documents import Hit, Language, Passage
from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import Unavailable
from terakoya.models.service import ChatClient
from terakoya.rag.core.evidence import EvidenceSentence, evidence_sentences
from terakoya.rag.core.generative import Written, write
from terakoya.rag.core.probe_cases import CASES, VERSION, ProbeCase

PASS_SHARE = 0.8
TIMEOUT_SECONDS = 120.0
_MAX_NEW_TOKENS = 80


@dataclass(frozen=True, slots=True)
class ProbeResult:
    passed: int
    tried: int
    """Fewer than ``cases`` where failing was certain before the end."""
    cases: int
    needed: int

    @property
    def has_passed(self) -> bool:
        return self.passed >= self.needed

    def reason(self, model: str, language: Language) -> str:
        return (
            f"model {model!r} did not pass the citation probe in {language.value} "
            f"({self.passed} of {self.tried} tried; {self.needed} of {self.cases} are needed)"
        )


class CitationProbe:
    def __init__(self, chat: ChatClient, results: ProbeRepository, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._chat = chat
        self._results = results
        self._timeout_seconds = timeout_seconds
        self._running: defaultdict[tuple[str, Language], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def result(self, artifact: ModelArtifact, language: Language) -> ProbeResult:
        """Return what is known of the model in the language, probing it the first time.

        Raises: Unavailable if the probe takes too long or the model server fails; nothing is stored then.
        """
        key = content_key(artifact)
        async with self._running[key, language]:
            stored = await asyncio.to_thread(self._results.find, key, language, VERSION)
            if stored is not None:
                return ProbeResult(**stored)
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    result = await self._probe(artifact, language)
            except TimeoutError as error:
                raise Unavailable(
                    f"the citation probe of model {artifact.info.name!r} in {language.value} was not done after "
                    f"{self._timeout_seconds:g} s; ask again when the machine is less busy, or in the extractive mode"
                ) from error
            await asyncio.to_thread(self._results.save, key, language, VERSION, asdict(result))
            return result

    async def _probe(self, artifact: ModelArtifact, language: Language) -> ProbeResult:
        cases = CASES[language]
        needed = math.ceil(PASS_SHARE * len(cases))
        passed = 0
        for tried, case in enumerate(cases, start=1):
            passed += await self._passes(artifact, language, case)
            if tried - passed > len(cases) - needed:
                return ProbeResult(passed, tried, len(cases), needed)
        return ProbeResult(passed, len(cases), len(cases), needed)

    async def _passes(self, artifact: ModelArtifact, language: Language, case: ProbeCase) -> bool:
        sentences = _sentences(case)
        parts = write(self._chat, artifact, case.question, language, sentences, max_new_tokens=_MAX_NEW_TOKENS)
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, Written):
                    return _is_right(case, part)
        return False


def content_key(artifact: ModelArtifact) -> str:
    """Return the hash of the model's content; an adapter's and its base's together."""
    if artifact.base is None:
        return artifact.info.content_sha256
    return hashlib.sha256(f"{artifact.info.content_sha256}:{content_key(artifact.base)}".encode()).hexdigest()


def _sentences(case: ProbeCase) -> tuple[EvidenceSentence, ...]:
    hits = []
    for number, (title, text) in enumerate(case.documents):
        passage = Passage(f"probe-{number}", f"probe-{number}", 1, 0, 0, len(text), text)
        hits.append(Hit(passage, title, score=1.0))
    return evidence_sentences(hits)


def _is_right(case: ProbeCase, written: Written) -> bool:
    if written.answer is None or not case.accepted:
        return written.answer is None and not case.accepted
    text = normalize("NFKC", written.answer.text).casefold()
    quotes = [citation.quote for citation in written.answer.citations if citation.verified]
    return (
        any(normalize("NFKC", accepted).casefold() in text for accepted in case.accepted)
        and any(quote.startswith(case.source) for quote in quotes)
        and all(citation.verified for citation in written.answer.citations)
    )
