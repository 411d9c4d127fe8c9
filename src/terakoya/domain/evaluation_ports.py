"""The port behind which question sets and evaluations are kept; its implementation lives in ``storage/``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from terakoya.domain.evaluation import Evaluation, QuestionOrigin, QuestionSet, SetQuestion


class EvaluationRepository(Protocol):
    """Synchronous and thread-safe."""

    def add_questions(
        self, collection_id: str, name: str, origin: QuestionOrigin, questions: Sequence[SetQuestion]
    ) -> QuestionSet:
        """Raises: Conflict if the name is taken; InvalidConfig for a name that none can have."""
        ...

    def list_question_sets(self, collection_id: str | None = None) -> Sequence[QuestionSet]:
        """Newest first."""
        ...

    def find_question_set(self, id_or_name: str) -> QuestionSet:
        """Raises: NotFound, with close names."""
        ...

    def questions_of(self, question_set_id: str) -> Sequence[SetQuestion]:
        """In the order they came in. Raises: NotFound."""
        ...

    def delete_question_set(self, question_set_id: str) -> None:
        """Its evaluations go with it. Raises: NotFound."""
        ...

    def save_evaluation(
        self,
        *,
        task_id: str,
        collection_id: str,
        question_set_id: str,
        kind: str,
        report: dict[str, Any],
        questions: Sequence[dict[str, Any]],
    ) -> Evaluation:
        """Once per task: a repetition replaces what the first left. Raises: NotFound if the questions are gone."""
        ...

    def list_evaluations(self, collection_id: str | None = None, *, limit: int = 100) -> Sequence[Evaluation]:
        """Newest first."""
        ...

    def find_evaluation(self, evaluation_id: str) -> Evaluation:
        """By its id or its task's. Raises: NotFound."""
        ...

    def evaluated_questions(self, evaluation_id: str) -> Sequence[dict[str, Any]]:
        """Figures of each question, in the order of its set. Raises: NotFound."""
        ...

    def delete_evaluation(self, evaluation_id: str) -> None:
        """Raises: NotFound."""
        ...
