"""Answers in the documents' own words: the sentences that fit the question best, verbatim. Its citations are true by
construction. Asks the embedder for a few sentences; knows no language model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from terakoya.domain.document_ports import Embedder
from terakoya.domain.documents import Citation, Terms, Vector
from terakoya.rag.core.asked import asked_units, asks_quantity, names_another
from terakoya.rag.core.evidence import EvidenceSentence, Rarity, cite, similarity
from terakoya.rag.core.quantities import quantities_in

MAX_SENTENCES = 3
MAX_CHARACTERS = 700
_COMPARED = 12
"""Sentences that are embedded: a few milliseconds each."""
_COMPARED_CHARACTERS = 600
_SIMILARITY_WEIGHT = 0.5
_RANK_DISCOUNT = 0.05
_AGAIN_RATIO = 0.8
"""A further sentence must reach this share of the best one's score."""
_SAME = 0.8
"""From this similarity on two sentences say the same."""
_QUESTION_DISCOUNT = 0.3
"""A question in a document is seldom the answer to another."""
_FRAGMENT_DISCOUNT = 0.85
"""A line that ends without a mark may be an item of a list, or half a sentence."""
_LABEL_DISCOUNT = 0.5
"""What stands under a label is the answer, not the label."""
_SIBLING_DISCOUNT = 0.3
"""A sentence about the MC-310 does not answer a question about the MC-240."""
_QUANTITY_BONUS = 0.08
_ASKED_UNIT_BONUS = 0.3
"""A quantity of the very kind that was asked for."""
_ENDS_WITH_MARK = re.compile(r"[.!?。．｡！？…][)）」』\]\"'”’]*$")


@dataclass(frozen=True, slots=True)
class ScoredSentence:
    sentence: EvidenceSentence
    score: float
    coverage: float
    similarity: float | None
    """Cosine with the question; None where it was not compared."""


@dataclass(frozen=True, slots=True)
class Extract:
    text: str
    """The sentences in reading order, each followed by its marker."""
    citations: tuple[Citation, ...]
    sentences: tuple[ScoredSentence, ...]


async def score_sentences(
    question: str,
    terms: Terms,
    vector: Vector,
    sentences: Sequence[EvidenceSentence],
    *,
    embedder: Embedder,
    embedder_id: str,
) -> list[ScoredSentence]:
    """Return the sentences that may answer, best first.

    Terms of the question that few sentences have count more; to them comes how near the embedder sees sentence and
    question, which alone works across languages.
    """
    if not sentences:
        return []
    rarity = Rarity([sentence.terms for sentence in sentences])
    coverage = [rarity.coverage(terms, sentence.terms, sentence.context_terms) for sentence in sentences]
    kind = _Kind(question)
    first = [
        c - _RANK_DISCOUNT * sentence.rank + kind.bonus(sentence)
        for c, sentence in zip(coverage, sentences, strict=True)
    ]
    compared = sorted(range(len(sentences)), key=lambda place: -first[place])[:_COMPARED]
    texts = [_with_heading(sentences[place])[:_COMPARED_CHARACTERS] for place in compared]
    cosines = await embedder.embed_passages(embedder_id, texts) @ vector  # [compared]
    scored = []
    for place, cosine, near in zip(compared, cosines, _spread(cosines), strict=True):
        sentence = sentences[place]
        score = (first[place] + _SIMILARITY_WEIGHT * float(near)) * kind.discount(sentence)
        scored.append(ScoredSentence(sentence, score, coverage[place], float(cosine)))
    return sorted(scored, key=lambda one: -one.score)


class _Kind:
    """What kind of answer a question wants, and how well a sentence is of that kind."""

    def __init__(self, question: str) -> None:
        self._question = question
        self._units = asked_units(question)
        self._wants_quantity = bool(self._units) or asks_quantity(question)

    def bonus(self, sentence: EvidenceSentence) -> float:
        quantities = quantities_in(sentence.text) if self._wants_quantity else ()
        if any(quantity.unit in self._units for quantity in quantities):
            return _ASKED_UNIT_BONUS
        return _QUANTITY_BONUS if quantities else 0.0

    def discount(self, sentence: EvidenceSentence) -> float:
        sibling = _SIBLING_DISCOUNT if names_another(self._question, sentence.text) else 1.0
        if sentence.is_question:
            return sibling * _QUESTION_DISCOUNT
        if sentence.is_label:
            return sibling * _LABEL_DISCOUNT
        return sibling if _ENDS_WITH_MARK.search(sentence.text) else sibling * _FRAGMENT_DISCOUNT


def choose(scored: Sequence[ScoredSentence]) -> list[ScoredSentence]:
    """Return, in reading order, the best sentence and up to two nearly as good that say something else."""
    chosen: list[ScoredSentence] = []
    characters = 0
    for candidate in scored:
        if chosen and (
            len(chosen) == MAX_SENTENCES
            or candidate.score < _AGAIN_RATIO * chosen[0].score
            or characters + len(candidate.sentence.text) > MAX_CHARACTERS
        ):
            break
        if any(_repeats(candidate.sentence, earlier.sentence) for earlier in chosen):
            continue
        chosen.append(candidate)
        characters += len(candidate.sentence.text)
    order: dict[str, int] = {}
    for one in chosen:  # documents by their best sentence
        order.setdefault(one.sentence.hit.passage.document_id, len(order))
    return sorted(chosen, key=lambda one: (order[one.sentence.hit.passage.document_id], one.sentence.start))


def compose(chosen: Sequence[ScoredSentence]) -> Extract:
    """Put the sentences one after the other with their markers."""
    text = ""
    citations = []
    for number, one in enumerate(chosen, start=1):
        sentence = one.sentence
        text += " " if text else ""
        span = (len(text), len(text) + len(sentence.text))
        text += f"{sentence.text} [{number}]"
        citations.append(cite(sentence, number=number, span=span, support="verbatim", verified=True))
    return Extract(text, tuple(citations), tuple(chosen))


def _with_heading(sentence: EvidenceSentence) -> str:
    context = sentence.context.splitlines()
    return f"{context[-1]}\n{sentence.text}" if context else sentence.text


def _spread(cosines: Vector) -> Vector:
    """Stretch to 0..1: an embedder's cosines lie close together, and only their order and distances tell."""
    low, high = float(cosines.min()), float(cosines.max())
    width = max(high - low, 0.02)  # where all are alike, none is far ahead
    return np.asarray((cosines - low) / width, dtype=np.float32)


def _repeats(one: EvidenceSentence, other: EvidenceSentence) -> bool:
    is_overlapping = one.hit.passage.document_id == other.hit.passage.document_id and (
        one.start < other.end and other.start < one.end
    )
    return is_overlapping or similarity(one.terms, other.terms) >= _SAME
