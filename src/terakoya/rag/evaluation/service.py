"""What can be done with questions and evaluations: import, generate, list, start, look, delete. Knows storage and
background work as ports, nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from terakoya.domain.document_ports import DocumentRepository
from terakoya.domain.documents import CollectionInfo
from terakoya.domain.evaluation import (
    MAX_CONFIGURATIONS,
    Configuration,
    Evaluation,
    QuestionOrigin,
    QuestionSet,
    SetQuestion,
)
from terakoya.domain.evaluation_ports import EvaluationRepository
from terakoya.domain.names import check_name
from terakoya.domain.ports import ModelRepository, TaskQueue
from terakoya.domain.tasks import Task, TaskKind
from terakoya.exceptions import Conflict, InvalidConfig
from terakoya.rag.evaluation.evaluator import CALIBRATION, EVALUATION, TRAINING_SET, TUNING
from terakoya.rag.evaluation.generating import generate_questions
from terakoya.rag.evaluation.locating import Locator, NotLocated
from terakoya.rag.evaluation.question_file import read_questions

MAX_GENERATED = 1_000
MAX_LISTED = 1_000
_SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class AddedQuestions:
    questions: QuestionSet
    problems: tuple[str, ...]
    """Questions that cannot be judged as the collection is now; the first of them."""
    problem_count: int


class EvaluationService:
    def __init__(
        self,
        *,
        documents: DocumentRepository,
        evaluations: EvaluationRepository,
        models: ModelRepository,
        queue: TaskQueue,
    ) -> None:
        self._documents = documents
        self._evaluations = evaluations
        self._models = models
        self._queue = queue

    # -- questions --

    def import_questions(self, path: Path, *, collection: str, filename: str | None, name: str) -> AddedQuestions:
        """Take over a file of questions. What its rows name need not be there yet: what is missing is told.

        Blocks. Raises: CollectionNotFound; InvalidQuestions; Conflict if the name is taken; InvalidConfig.
        """
        found = self._documents.find_collection(collection)
        questions = read_questions(path, filename)
        added = self._evaluations.add_questions(found.id, name, QuestionOrigin.IMPORTED, questions)
        problems = list(self._problems(found, questions))
        return AddedQuestions(added, tuple(problems[:_SHOWN_PROBLEMS]), len(problems))

    def generate(self, collection: str, *, name: str, count: int, seed: int = 0) -> QuestionSet:
        """Make questions from the documents' own words. Blocks.

        Raises: CollectionNotFound; InvalidConfig; InvalidQuestions if there is nothing to ask about; Conflict.
        """
        if not 1 <= count <= MAX_GENERATED:
            raise InvalidConfig(f"1 to {MAX_GENERATED:,} questions can be made at once; got {count!r}")
        found = self._documents.find_collection(collection)
        questions = generate_questions(self._documents, found.id, count=count, seed=seed)
        return self._evaluations.add_questions(found.id, name, QuestionOrigin.GENERATED, questions)

    def list_question_sets(self, collection: str | None = None) -> Sequence[QuestionSet]:
        """Newest first. Raises: CollectionNotFound."""
        return self._evaluations.list_question_sets(self._id_of(collection))

    def get_question_set(self, id_or_name: str) -> QuestionSet:
        """Raises: NotFound."""
        return self._evaluations.find_question_set(id_or_name)

    def questions(self, id_or_name: str) -> Sequence[SetQuestion]:
        """Raises: NotFound."""
        return self._evaluations.questions_of(id_or_name)

    def delete_question_set(self, id_or_name: str) -> None:
        """With the evaluations of it. Raises: NotFound."""
        self._evaluations.delete_question_set(self._evaluations.find_question_set(id_or_name).id)

    # -- evaluations --

    def evaluate(self, questions: str, configurations: Sequence[Configuration | None]) -> Task:
        """Queue the questions under one configuration or two; None is the collection as it is set.

        Raises: NotFound; ModelNotFound; InvalidConfig for configurations that cannot be; Conflict for an empty
        collection.
        """
        if not 1 <= len(configurations) <= MAX_CONFIGURATIONS:
            raise InvalidConfig(
                f"an evaluation has 1 to {MAX_CONFIGURATIONS} configurations; got {len(configurations)}"
            )
        chosen, collection = self._chosen(questions)
        resolved = [self._resolved(one or Configuration("as it is", collection.retrieval)) for one in configurations]
        if len({one.name for one in resolved}) < len(resolved):
            raise InvalidConfig(f"configurations need names of their own; got {resolved[0].name!r} twice")
        request: dict[str, Any] = {
            "kind": EVALUATION,
            "collection_id": collection.id,
            "question_set_id": chosen.id,
            "configurations": [one.to_json() for one in resolved],
        }
        return self._queue.submit(TaskKind.EVALUATION, name=chosen.name, request=request, resolved={})

    def tune(self, questions: str, *, apply: bool) -> Task:
        """Queue the search for the settings that suit the questions best. ``apply``: set the collection so if they are
        better on questions that had no part in choosing them.

        Raises: NotFound; Conflict for an empty collection.
        """
        return self._queued(TUNING, questions, apply=apply)

    def calibrate(self, questions: str, *, apply: bool) -> Task:
        """Queue the fit of abstention to the questions. ``apply``: let the collection decide so from then on.

        Raises: NotFound; Conflict for an empty collection.
        """
        return self._queued(CALIBRATION, questions, apply=apply)

    def export(self, questions: str, *, name: str) -> Task:
        """Queue making a training set of the questions whose answers can be verified. Its task's result names the data
        set.

        Raises: NotFound; Conflict for an empty collection; InvalidConfig for a name that none can have.
        """
        return self._queued(TRAINING_SET, questions, name=check_name(name))

    def list_evaluations(self, collection: str | None = None, *, limit: int = 100) -> Sequence[Evaluation]:
        """Newest first. Raises: CollectionNotFound."""
        return self._evaluations.list_evaluations(self._id_of(collection), limit=limit)

    def get_evaluation(self, evaluation_id: str) -> Evaluation:
        """Raises: NotFound."""
        return self._evaluations.find_evaluation(evaluation_id)

    def evaluated_questions(self, evaluation_id: str) -> list[dict[str, Any]]:
        """Figures of each question with its text. Raises: NotFound."""
        evaluation = self._evaluations.find_evaluation(evaluation_id)
        questions = self._evaluations.questions_of(evaluation.question_set_id)
        return [
            row | {"question": questions[row["place"]].question}
            for row in self._evaluations.evaluated_questions(evaluation.id)
        ]

    def delete_evaluation(self, evaluation_id: str) -> None:
        """Raises: NotFound."""
        self._evaluations.delete_evaluation(evaluation_id)

    # -- parts --

    def _queued(self, kind: str, questions: str, **options: Any) -> Task:
        chosen, collection = self._chosen(questions)
        request = {"kind": kind, "collection_id": collection.id, "question_set_id": chosen.id, **options}
        return self._queue.submit(TaskKind.EVALUATION, name=chosen.name, request=request, resolved={})

    def _chosen(self, questions: str) -> tuple[QuestionSet, CollectionInfo]:
        """Raises: NotFound, Conflict."""
        chosen = self._evaluations.find_question_set(questions)
        collection = self._documents.find_collection(chosen.collection_id)
        if not collection.passages:
            raise Conflict(f"the collection {collection.name!r} holds no document that can be asked; add some first")
        return chosen, collection

    def _id_of(self, collection: str | None) -> str | None:
        return None if collection is None else self._documents.find_collection(collection).id

    def _resolved(self, configuration: Configuration) -> Configuration:
        """Raises: ModelNotFound; InvalidConfig for a model where none writes, or none where one should."""
        if (configuration.answers == "generative") != (configuration.model is not None):
            raise InvalidConfig(
                f"the configuration {configuration.name!r} has the answers {configuration.answers!r} and the model "
                f"{configuration.model!r}; a model is named for 'generative' answers, and only for them"
            )
        if configuration.model is None:
            return configuration
        model = self._models.find(configuration.model)
        if not model.can_answer:
            raise InvalidConfig(f"{model.name!r} is an embedder and writes no text; name a chat model")
        if not model.has_files:
            raise InvalidConfig(f"{model.name!r} answers elsewhere; what writes answers from documents has to be here")
        return replace(configuration, model=model.id)

    def _problems(self, collection: CollectionInfo, questions: Sequence[SetQuestion]) -> list[str]:
        locator = Locator(self._documents, collection.id)
        problems = []
        for question in questions:
            try:
                locator.targets(question)
            except NotLocated as error:
                problems.append(f"{question.question[:60]!r}: {error}")
        return problems
