"""Makes questions from documents for whoever has none yet: a few telling words of one sentence, as people type them
into a search box. They share the document's wording, so they are easier than what people ask, and are marked as made.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

from terakoya.domain.document_ports import DocumentRepository
from terakoya.domain.documents import DocumentInfo, DocumentStatus, Passage
from terakoya.domain.evaluation import Expected, SetQuestion
from terakoya.exceptions import InvalidQuestions
from terakoya.rag.indexing.indexer import passage_id
from terakoya.rag.retrieval.analysis import key_words
from terakoya.rag.sentences import sentences

_ALL = 10**9
_WORDS = 4
_FEWEST_WORDS = 2
_SENTENCE_CHARACTERS = (12, 400)


def generate_questions(
    documents: DocumentRepository, collection_id: str, *, count: int, seed: int = 0
) -> list[SetQuestion]:
    """Return up to ``count`` questions, from all documents evenly; the same seed chooses the same passages.

    Blocks for some milliseconds a question. Raises: InvalidQuestions if no passage has a sentence to ask about.
    """
    chance = random.Random(seed)  # noqa: S311  no secret
    listed = documents.list_documents(collection_id, limit=_ALL)
    ready = [document for document in listed if document.status is DocumentStatus.READY and document.passages]
    chosen = list(_chosen(sorted(ready, key=lambda document: document.id), count, chance))
    passages = documents.passages(chosen)
    told = [(passage, _telling(passage, chance)) for key in chosen if (passage := passages.get(key)) is not None]
    frequency = Counter(word.casefold() for _, found in told if found is not None for word in set(found[1]))
    made: dict[str, SetQuestion] = {}
    for passage, found in told:
        if found is not None:
            sentence, words = found
            text = " ".join(_rarest(words, frequency))
            made.setdefault(text, SetQuestion(text, (Expected(passage.document_id, sentence),)))
    if not made:
        raise InvalidQuestions("no ready document of the collection has a sentence that a question can be made from")
    return list(made.values())


def _chosen(documents: Sequence[DocumentInfo], count: int, chance: random.Random) -> Iterator[str]:
    """Yield ids of passages, one of each document after the other, no passage twice."""
    waiting = [
        (document, chance.sample(range(document.passages), min(document.passages, count))) for document in documents
    ]
    chance.shuffle(waiting)
    for turn in range(count):
        for document, ordinals in waiting:
            if turn < len(ordinals) and count > 0:
                count -= 1
                yield passage_id(document.id, document.version, ordinals[turn])


def _telling(passage: Passage, chance: random.Random) -> tuple[str, tuple[str, ...]] | None:
    """Return a sentence that says something, and its words."""
    fewest, most = _SENTENCE_CHARACTERS
    found = []
    for start, end in sentences(passage.text):
        sentence = passage.text[start:end]
        if fewest <= len(sentence) <= most and len(words := key_words(sentence)) >= _FEWEST_WORDS:
            found.append((sentence, words))
    return chance.choice(found) if found else None


def _rarest(words: Sequence[str], frequency: Counter[str]) -> list[str]:
    """The words that the fewest of the chosen sentences share, in the order they are written."""
    kept = sorted(range(len(words)), key=lambda place: (frequency[words[place].casefold()], place))[:_WORDS]
    return [words[place] for place in sorted(kept)]
