"""The sentences of the passages that were found, each with its place in its document and what it shares with the
question. Knows nothing of answers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from unicodedata import normalize

from terakoya.domain.documents import Citation, Hit, Terms
from terakoya.rag.retrieval.analysis import terms_of
from terakoya.rag.sentences import sentences

_QUESTION_END = re.compile(r"[?？][」』）)\"'”]*$|(?:ですか|ますか|でしょうか|ませんか)。?$")
_MARKER = re.compile(r"(?:[-*+•●■◆]|\d{1,3}[.)]|[(（]\d{1,2}[)）])[ \t\u3000]+(?=\S)|・[ \t\u3000]*(?=\S)")
_LABEL = re.compile(r"[^\s\-*•・●■◆|].*[^.!?。．｡！？…:：,、;)）\]」』]", re.DOTALL)
_LABEL_CHARACTERS = 40
_ORNAMENT = re.compile(r"^[\s#>*\-・●■◆\d.()（）]*|[\s#*:：]*$")


@dataclass(frozen=True, slots=True)
class EvidenceSentence:
    """``text`` is its document's stored text from ``start`` to ``end``."""

    hit: Hit
    rank: int
    """Of its passage, from 0."""
    start: int
    end: int
    text: str
    terms: Terms
    context: str
    """What it stands under: title, headings, and the label or question just before it. Helps to find it, is never
    quoted."""
    context_terms: Terms
    is_question: bool
    is_label: bool
    """A short line without a mark at its end, over others: a heading that its format does not tell apart, perhaps."""


class Rarity:
    """How much a term tells, from how few of some texts have it."""

    def __init__(self, texts: Sequence[Collection[int]]) -> None:
        self._count = len(texts)
        self._frequency = Counter(term for text in texts for term in set(text))

    def weight(self, term: int) -> float:
        """Source: Robertson and Walker 1994, with 1 added inside the logarithm so that it stays positive."""
        frequency = self._frequency[term]
        return math.log(1 + (self._count - frequency + 0.5) / (frequency + 0.5))

    def coverage(self, wanted: Collection[int], text: Collection[int], context: Collection[int] = ()) -> float:
        """Return the weighted share of the wanted terms that a text has, 0 to 1; those of its context count half."""
        total = sum(map(self.weight, wanted))
        if not total:
            return 0.0
        found = sum(
            self.weight(term) * (1.0 if term in text else 0.5) for term in wanted if term in text or term in context
        )
        return found / total


def evidence_sentences(hits: Iterable[Hit]) -> tuple[EvidenceSentence, ...]:
    """Return the sentences of the passages in the order of the hits, each place of a document once.

    Left out: lines that repeat a title or heading, and what is nothing but a number in front of one.
    """
    found: dict[tuple[str, int, int], EvidenceSentence] = {}
    for rank, hit in enumerate(hits):
        passage = hit.passage
        headings = {_bare(text) for text in (hit.title, *passage.heading)}
        above = "\n".join((hit.title, *passage.heading))
        above_terms = terms_of(above)
        over = ""  # the question or label that what follows stands under
        spans = sentences(passage.text)
        for number, (line_start, end) in enumerate(spans):
            start = line_start + _marker_length(passage.text, line_start)
            text = passage.text[start:end]
            bare = _bare(text)
            if not any(map(str.isalnum, bare)) or bare in headings:
                continue
            place = (passage.document_id, passage.start + start, passage.start + end)
            context = f"{above}\n{over}" if over else above
            context_terms = _joined(above_terms, terms_of(over)) if over else above_terms
            is_question = _is_question(text)
            is_label = number + 1 < len(spans) and _is_label(passage.text, line_start, end)
            sentence = EvidenceSentence(
                hit, rank, place[1], place[2], text, terms_of(text), context, context_terms, is_question, is_label
            )
            found.setdefault(place, sentence)
            if is_question or is_label:
                over = text
            elif _is_question(over):
                over = ""  # answered; a label goes on
    return tuple(found.values())


def cite(sentence: EvidenceSentence, *, number: int, span: tuple[int, int], support: str, verified: bool) -> Citation:
    """Return the citation of a sentence for the answer's ``span``."""
    passage = sentence.hit.passage
    return Citation(
        number=number,
        document_id=passage.document_id,
        version=passage.version,
        passage_id=passage.id,
        title=sentence.hit.title,
        page=passage.page,
        start=sentence.start,
        end=sentence.end,
        quote=sentence.text,
        answer_start=span[0],
        answer_end=span[1],
        support=support,
        verified=verified,
    )


def similarity(one: Mapping[int, int], other: Mapping[int, int]) -> float:
    """Return the share of common terms, 0 to 1 (Jaccard)."""
    union = len(one.keys() | other.keys())
    return len(one.keys() & other.keys()) / union if union else 0.0


def _is_question(text: str) -> bool:
    return _QUESTION_END.search(text) is not None


def _marker_length(text: str, start: int) -> int:
    """How many characters of a sentence are the mark of a list's item: no part of what is quoted."""
    at_line_start = start == 0 or text[start - 1] in "\n\r \t"
    match = _MARKER.match(text, start) if at_line_start else None
    return 0 if match is None else len(match.group())


def _is_label(text: str, start: int, end: int) -> bool:
    """Whether a sentence is a short line of its own that ends without a mark and does not begin like an item."""
    line = text[start:end]
    return (
        end - start <= _LABEL_CHARACTERS
        and (start == 0 or text[start - 1] in "\n\r")
        and text[end : end + 1] in ("\n", "\r")
        and _LABEL.fullmatch(line) is not None
    )


def _bare(text: str) -> str:
    return _ORNAMENT.sub("", normalize("NFKC", text)).casefold()


def _joined(one: Terms, other: Terms) -> Terms:
    return dict(Counter(one) + Counter(other))
