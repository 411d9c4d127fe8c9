"""Question sets, evaluations and their configurations as clients see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from terakoya.api.schemas.datasets import ResourceName
from terakoya.api.schemas.rag_answers import CollectionName
from terakoya.api.schemas.rag_documents import RetrievalView
from terakoya.domain.documents import DEFAULT_COLLECTION
from terakoya.domain.evaluation import (
    MAX_CONFIGURATIONS,
    AnswerWay,
    Configuration,
    Evaluation,
    QuestionOrigin,
    QuestionSet,
    SetQuestion,
)
from terakoya.rag.evaluation.service import MAX_GENERATED, AddedQuestions


class QuestionsToGenerate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: ResourceName
    collection: CollectionName = DEFAULT_COLLECTION
    count: Annotated[int, Field(ge=1, le=MAX_GENERATED)] = 100
    seed: Annotated[int, Field(ge=0, le=2**53)] = 0


class QuestionSetView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    collection_id: str
    collection: str
    origin: QuestionOrigin
    """"generated": made from the documents' own words, so easier to find than what people ask."""
    questions: int
    answerable: int
    created_at: datetime
    problems: list[str] = []
    """Of those just imported: the first that cannot be judged as the collection is now."""
    problem_count: int = 0

    @classmethod
    def of(cls, info: QuestionSet, collection: str) -> QuestionSetView:
        facts = {name: getattr(info, name) for name in QuestionSet.__dataclass_fields__}
        return cls(**facts, collection=collection)

    @classmethod
    def of_added(cls, added: AddedQuestions, collection: str) -> QuestionSetView:
        view = cls.of(added.questions, collection)
        return view.model_copy(update={"problems": list(added.problems), "problem_count": added.problem_count})


class QuestionSetList(BaseModel):
    question_sets: list[QuestionSetView]


class QuestionList(BaseModel):
    questions: list[dict[str, Any]]

    @classmethod
    def of(cls, questions: list[SetQuestion]) -> QuestionList:
        return cls(questions=[question.to_json() for question in questions])


class ConfigurationRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: Annotated[str, Field(min_length=1, max_length=100)]
    retrieval: RetrievalView = RetrievalView()
    answers: AnswerWay = "extractive"
    """"none" measures what is found and how sure abstention is, without answers, in a fifth of the time."""
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Of "generative" answers: the model that writes."""

    def configuration(self) -> Configuration:
        return Configuration(self.name, self.retrieval.settings(), self.answers, self.model)


class EvaluationRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    questions: Annotated[str, Field(min_length=1, max_length=200, description="name or id of a set")]
    configurations: Annotated[list[ConfigurationRequest], Field(max_length=MAX_CONFIGURATIONS)] = []
    """None: the collection as it is set. Two: compared question by question."""


class TuningRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    questions: Annotated[str, Field(min_length=1, max_length=200, description="name or id of a set")]
    apply: bool = False
    """Set the collection so if it is better on questions that had no part in the choice."""


class TrainingSetRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    questions: Annotated[str, Field(min_length=1, max_length=200, description="name or id of a set")]
    name: ResourceName
    """Of the data set that is made."""


class EvaluationView(BaseModel):
    id: str
    task_id: str
    kind: str
    collection_id: str
    collection: str
    question_set_id: str
    question_set: str
    created_at: datetime
    report: dict[str, Any]

    @classmethod
    def of(cls, info: Evaluation, *, collection: str, question_set: str) -> EvaluationView:
        facts = {name: getattr(info, name) for name in Evaluation.__dataclass_fields__}
        return cls(**facts, collection=collection, question_set=question_set)


class EvaluationList(BaseModel):
    evaluations: list[EvaluationView]
