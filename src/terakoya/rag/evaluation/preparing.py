"""Which questions of a set can be judged on a collection as it is now, and what should be found for each. Blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from terakoya.domain.document_ports import DocumentRepository
from terakoya.domain.documents import CollectionInfo
from terakoya.domain.evaluation import SetQuestion
from terakoya.domain.evaluation_ports import EvaluationRepository
from terakoya.exceptions import InvalidQuestions
from terakoya.rag.evaluation.locating import Locator, NotLocated, Target

_SHOWN_LEFT_OUT = 50


@dataclass(frozen=True, slots=True)
class Judgeable:
    place: int
    """In the set, from 0."""
    question: SetQuestion
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    judgeable: list[Judgeable]
    left_out: list[dict[str, Any]]
    """Questions that cannot be judged, by place, with the reason."""

    def to_json(self) -> dict[str, Any]:
        return {
            "questions": len(self.judgeable),
            "left_out": len(self.left_out),
            "left_out_first": self.left_out[:_SHOWN_LEFT_OUT],
        }


def prepare(
    documents: DocumentRepository, evaluations: EvaluationRepository, collection: CollectionInfo, question_set_id: str
) -> Prepared:
    """Raises: NotFound; InvalidQuestions if none can be judged."""
    locator = Locator(documents, collection.id)
    judgeable: list[Judgeable] = []
    left_out: list[dict[str, Any]] = []
    for place, question in enumerate(evaluations.questions_of(question_set_id)):
        try:
            judgeable.append(Judgeable(place, question, locator.targets(question)))
        except NotLocated as error:
            left_out.append({"place": place, "reason": str(error)})
    if not judgeable:
        first = f"; the first: {left_out[0]['reason']}" if left_out else ""
        raise InvalidQuestions(f"none of the questions can be judged on the collection {collection.name!r}{first}")
    return Prepared(judgeable, left_out)
