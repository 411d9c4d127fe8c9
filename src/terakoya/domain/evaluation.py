"""Questions whose answers are known, and what came of putting them to a collection. Knows no store and no model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from terakoya.domain.retrieval import RetrievalSettings

MAX_QUESTIONS = 5_000
"""A set."""
MAX_CONFIGURATIONS = 2
"""Compared at once: question by question, so that the comparison is paired."""


class QuestionOrigin(StrEnum):
    IMPORTED = "imported"
    GENERATED = "generated"
    """From the documents' own words: easier to find than what people ask."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Where the answer stands. One of the two is given at least."""

    document: str | None = None
    """Id, title or filename."""
    passage: str | None = None
    """The words that answer it; white space and width do not count."""


@dataclass(frozen=True, slots=True)
class SetQuestion:
    question: str
    expected: tuple[Expected, ...] = ()
    """All of them should be found."""
    answers: tuple[str, ...] = ()
    """Any of these is right."""
    answerable: bool = True

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, stored: dict[str, Any]) -> SetQuestion:
        return cls(
            stored["question"],
            tuple(Expected(**one) for one in stored["expected"]),
            tuple(stored["answers"]),
            stored["answerable"],
        )


@dataclass(frozen=True, slots=True)
class QuestionSet:
    id: str
    name: str
    collection_id: str
    origin: QuestionOrigin
    created_at: datetime
    questions: int
    answerable: int


AnswerWay = Literal["none", "extractive", "generative"]


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to answer a collection's questions."""

    name: str
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
    answers: AnswerWay = "extractive"
    """"none" measures what is found and how sure abstention is, without answers."""
    model: str | None = None
    """Id of the model that writes; of "generative" only."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Configuration:
        return cls(**stored | {"retrieval": RetrievalSettings.of(stored["retrieval"])})


@dataclass(frozen=True, slots=True)
class Evaluation:
    id: str
    task_id: str
    collection_id: str
    question_set_id: str
    kind: str
    created_at: datetime
    report: dict[str, Any]
    """Figures with intervals; JSON."""
