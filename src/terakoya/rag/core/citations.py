"""Reads the citations out of what a model wrote and checks each before it gets a number: the sentence it names was
given, numbers and units agree, and the words are its words. What was not checked is not claimed: a sentence that turns
its source's meaning around with the same words and numbers passes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from terakoya.domain.documents import Citation
from terakoya.rag.core.evidence import EvidenceSentence, cite
from terakoya.rag.core.quantities import contradicted
from terakoya.rag.retrieval.analysis import language_of, terms_of
from terakoya.rag.sentences import sentences

_MARKER = re.compile(r"\s?[\[［【]\s*(\d{1,4}(?:\s*[,、，]\s*\d{1,4})*)\s*[\]］】]")
_MOST_MARKER = 40
"""Characters a marker has at most; what is longer is text."""
_OVERLAP = 0.6
"""Share of a sentence's terms that its sources, their headings and titles must have."""
_OWN_OVERLAP = 0.15
"""Share that each of several sources must have by itself."""


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    text: str
    """Markers of verified citations only, numbered from 1 in the order they appear."""
    citations: tuple[Citation, ...]
    """Failed ones have the number 0."""
    sentences: int
    unsupported_sentences: int
    """Those without any verified citation."""


@dataclass(frozen=True, slots=True)
class _Written:
    """One sentence of the answer, without markers, and the numbers it cites."""

    text: str
    cited: tuple[int, ...]


def check_answer(written: str, numbered: Mapping[int, EvidenceSentence]) -> CheckedAnswer:
    """Check what a model wrote against the sentences it was given."""
    text = ""
    citations: list[Citation] = []
    numbers: dict[tuple[str, int, int], int] = {}
    unsupported_sentences = 0
    parts = _split(written)
    for part in parts:
        text += " " if text else ""
        span = (len(text), len(text) + len(part.text))
        checked = _check(part, numbered, span)
        text += part.text
        for citation in checked:
            if citation.verified:
                place = (citation.document_id, citation.start, citation.end)
                number = numbers.setdefault(place, len(numbers) + 1)
                text += f" [{number}]" if text[-1] != "]" else f"[{number}]"
                citation = replace(citation, number=number)
            citations.append(citation)
        unsupported_sentences += not any(citation.verified for citation in checked)
    return CheckedAnswer(text, tuple(citations), len(parts), unsupported_sentences)


class MarkerFilter:
    """Lets text through as it is written, but for markers, which mean nothing before they are checked."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, delta: str) -> str:
        """Return what is certainly text; what may be a marker is held back."""
        text = _MARKER.sub("", self._held + delta)
        opened = max(text.rfind(bracket) for bracket in "[［【")
        if opened < 0 or len(text) - opened > _MOST_MARKER or _closes(text[opened:]):
            opened = len(text)
        while opened > 0 and text[opened - 1].isspace():
            opened -= 1  # the space before a marker goes with it
        self._held = text[opened:]
        return text[:opened]

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held


def _closes(text: str) -> bool:
    return any(bracket in text for bracket in "]］】")


def _split(written: str) -> list[_Written]:
    """Return the sentences of an answer, each with the markers inside or right behind it."""
    clean = ""
    markers: list[tuple[int, tuple[int, ...]]] = []
    end = 0
    for match in _MARKER.finditer(written):
        clean += written[end : match.start()]
        markers.append((len(clean), tuple(int(number) for number in re.findall(r"\d+", match[1]))))
        end = match.end()
    clean += written[end:]
    spans = sentences(clean)
    cited: list[list[int]] = [[] for _ in spans]
    for position, numbers in markers:
        owner = max((place for place, (start, _) in enumerate(spans) if start < position), default=None)
        if owner is not None:
            cited[owner] += [number for number in numbers if number not in cited[owner]]
    return [_Written(clean[start:end], tuple(own)) for (start, end), own in zip(spans, cited, strict=True)]


def _check(part: _Written, numbered: Mapping[int, EvidenceSentence], span: tuple[int, int]) -> list[Citation]:
    """Return its citations, still without numbers: those of sentences that were given, then the others."""
    known = [numbered[number] for number in part.cited if number in numbered]
    checked = []
    common_reason = _why_not(part.text, known) if known else None
    for source in known:
        reason = common_reason or _own_reason(part.text, source)
        support = reason or "numbers_and_words"
        checked.append(cite(source, number=0, span=span, support=support, verified=reason is None))
    return checked + [_unknown(number, span) for number in part.cited if number not in numbered]


def _why_not(text: str, sources: Sequence[EvidenceSentence]) -> str | None:
    """Return why the sources together do not support the sentence; None if they do."""
    if contradicted(text, "\n".join(f"{source.context}\n{source.text}" for source in sources)):
        return "numbers_differ"
    return None if _overlap(text, sources) >= _OVERLAP else "weak_overlap"


def _own_reason(text: str, source: EvidenceSentence) -> str | None:
    return None if _overlap(text, [source]) >= _OWN_OVERLAP else "weak_overlap"


def _overlap(text: str, sources: Sequence[EvidenceSentence]) -> float:
    """Return the share of the sentence's terms that the sources in its own language have."""
    terms = terms_of(text)
    language = language_of(text)
    known = {
        term
        for source in sources
        if language_of(source.text) == language
        for term in (*source.terms, *source.context_terms)
    }
    return sum(term in known for term in terms) / len(terms) if terms else 0.0


def _unknown(number: int, span: tuple[int, int]) -> Citation:
    """A citation of a sentence that was never given: there is nothing to quote."""
    return Citation(0, "", 0, "", f"[{number}]", None, 0, 0, "", *span, support="no_such_passage", verified=False)
