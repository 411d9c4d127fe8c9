"""Question sets and evaluations in the database. Knows nothing of how questions are judged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, delete, or_, select
from sqlalchemy.orm import Session

from terakoya.domain.evaluation import Evaluation, QuestionOrigin, QuestionSet, SetQuestion
from terakoya.domain.names import check_name, did_you_mean, name_key
from terakoya.exceptions import Conflict, NotFound
from terakoya.storage.database import reading, writing
from terakoya.storage.files import new_id
from terakoya.storage.tables import EvaluationRow, QuestionSetRow


class SqlEvaluationRepository:
    """The EvaluationRepository."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- questions --

    def add_questions(
        self, collection_id: str, name: str, origin: QuestionOrigin, questions: Sequence[SetQuestion]
    ) -> QuestionSet:
        stored = check_name(name)
        row = QuestionSetRow(
            id=new_id("qset"),
            collection_id=collection_id,
            name=stored,
            name_key=name_key(stored),
            origin=origin,
            created_at=datetime.now(UTC),
            questions=[question.to_json() for question in questions],
        )
        with writing(self._engine) as session:
            taken = select(QuestionSetRow.name).where(QuestionSetRow.name_key == row.name_key)
            if (found := session.scalars(taken).first()) is not None:
                raise Conflict(f"there are questions of the name {found!r} already; choose another name")
            session.add(row)
        return _set(row)

    def list_question_sets(self, collection_id: str | None = None) -> Sequence[QuestionSet]:
        query = select(QuestionSetRow).order_by(QuestionSetRow.id.desc())
        if collection_id is not None:
            query = query.where(QuestionSetRow.collection_id == collection_id)
        with reading(self._engine) as session:
            return [_set(row) for row in session.scalars(query)]

    def find_question_set(self, id_or_name: str) -> QuestionSet:
        with reading(self._engine) as session:
            return _set(_find_set(session, id_or_name))

    def questions_of(self, question_set_id: str) -> Sequence[SetQuestion]:
        with reading(self._engine) as session:
            return [SetQuestion.of(stored) for stored in _find_set(session, question_set_id).questions]

    def delete_question_set(self, question_set_id: str) -> None:
        with writing(self._engine) as session:
            row = _find_set(session, question_set_id)
            session.execute(delete(EvaluationRow).where(EvaluationRow.question_set_id == row.id))
            session.delete(row)

    # -- evaluations --

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
        row = EvaluationRow(
            id=new_id("eval"),
            task_id=task_id,
            collection_id=collection_id,
            question_set_id=question_set_id,
            kind=kind,
            created_at=datetime.now(UTC),
            report=report,
            questions=list(questions),
        )
        with writing(self._engine) as session:
            _find_set(session, question_set_id)
            session.execute(delete(EvaluationRow).where(EvaluationRow.task_id == task_id))
            session.add(row)
        return _evaluation(row)

    def list_evaluations(self, collection_id: str | None = None, *, limit: int = 100) -> Sequence[Evaluation]:
        query = select(EvaluationRow).order_by(EvaluationRow.id.desc()).limit(limit)
        if collection_id is not None:
            query = query.where(EvaluationRow.collection_id == collection_id)
        with reading(self._engine) as session:
            return [_evaluation(row) for row in session.scalars(query)]

    def find_evaluation(self, evaluation_id: str) -> Evaluation:
        with reading(self._engine) as session:
            return _evaluation(_find_evaluation(session, evaluation_id))

    def evaluated_questions(self, evaluation_id: str) -> Sequence[dict[str, Any]]:
        with reading(self._engine) as session:
            return _find_evaluation(session, evaluation_id).questions

    def delete_evaluation(self, evaluation_id: str) -> None:
        with writing(self._engine) as session:
            session.delete(_find_evaluation(session, evaluation_id))


def forget_collection(session: Session, collection_id: str) -> None:
    """What was asked of a collection goes with it: questions quote its documents."""
    session.execute(delete(QuestionSetRow).where(QuestionSetRow.collection_id == collection_id))
    session.execute(delete(EvaluationRow).where(EvaluationRow.collection_id == collection_id))


def forget_document(session: Session, collection_id: str, document_id: str) -> None:
    """Questions that were made from a document's words go with it; those that people wrote stay."""
    generated = select(QuestionSetRow).where(
        QuestionSetRow.collection_id == collection_id, QuestionSetRow.origin == QuestionOrigin.GENERATED
    )
    for row in session.scalars(generated):
        kept = [
            question
            for question in row.questions
            if all(one["document"] != document_id for one in question["expected"])
        ]
        if len(kept) < len(row.questions):
            # Their figures are told apart by place.
            session.execute(delete(EvaluationRow).where(EvaluationRow.question_set_id == row.id))
            row.questions = kept
        if not kept:
            session.delete(row)


def _find_set(session: Session, id_or_name: str) -> QuestionSetRow:
    called = or_(QuestionSetRow.id == id_or_name, QuestionSetRow.name_key == name_key(id_or_name))
    row = session.scalars(select(QuestionSetRow).where(called)).one_or_none()
    if row is None:
        names = session.scalars(select(QuestionSetRow.name)).all()
        raise NotFound(f"no questions {id_or_name!r}{did_you_mean(id_or_name, names)}")
    return row


def _find_evaluation(session: Session, evaluation_id: str) -> EvaluationRow:
    called = or_(EvaluationRow.id == evaluation_id, EvaluationRow.task_id == evaluation_id)
    row = session.scalars(select(EvaluationRow).where(called)).one_or_none()
    if row is None:
        raise NotFound(f"no evaluation {evaluation_id!r}; `terakoya evaluate list` shows those there are")
    return row


def _set(row: QuestionSetRow) -> QuestionSet:
    return QuestionSet(
        id=row.id,
        name=row.name,
        collection_id=row.collection_id,
        origin=QuestionOrigin(row.origin),
        created_at=row.created_at,
        questions=len(row.questions),
        answerable=sum(question["answerable"] for question in row.questions),
    )


def _evaluation(row: EvaluationRow) -> Evaluation:
    return Evaluation(
        id=row.id,
        task_id=row.task_id,
        collection_id=row.collection_id,
        question_set_id=row.question_set_id,
        kind=row.kind,
        created_at=row.created_at,
        report=row.report,
    )
