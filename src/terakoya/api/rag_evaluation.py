"""Questions whose answers are known, and evaluations: import, generate, start, list, look, delete."""

from __future__ import annotations

from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request

from terakoya.api.dependencies import ContainerDep, Documents, Evaluations, Limit
from terakoya.api.rag_documents import MAX_COLLECTION_CHARACTERS, Collection
from terakoya.api.schemas.evaluation import (
    EvaluationList,
    EvaluationRequest,
    EvaluationView,
    QuestionList,
    QuestionSetList,
    QuestionSetView,
    QuestionsToGenerate,
    TrainingSetRequest,
    TuningRequest,
)
from terakoya.api.schemas.tasks import TaskAccepted
from terakoya.api.uploads import received_form
from terakoya.domain.documents import DEFAULT_COLLECTION
from terakoya.domain.evaluation import Configuration
from terakoya.exceptions import InvalidConfig
from terakoya.rag.evaluation.question_file import MAX_FILE_BYTES

router = APIRouter(tags=["evaluation"])

_FIELDS = frozenset({"collection", "name"})
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "collection": {"type": "string", "default": DEFAULT_COLLECTION},
                        "name": {"type": "string"},
                    },
                }
            }
        },
    }
}
Offset = Annotated[int, Query(ge=0, le=2**53)]


@router.post("/rag/question-sets", status_code=201, openapi_extra=_FORM)
async def import_questions(
    request: Request, container: ContainerDep, documents: Documents, evaluations: Evaluations
) -> QuestionSetView:
    """Add a file of questions: JSONL, JSON, CSV or TSV with question and document, passage, answer or answerable."""
    async with received_form(request, container.data_dir.uploads, MAX_FILE_BYTES) as upload:
        if unknown := sorted(set(upload.fields) - _FIELDS):
            raise InvalidConfig(
                f"the form has a field {unknown[0][:40]!r}; known are file, {', '.join(sorted(_FIELDS))}"
            )
        collection = upload.fields.get("collection", "").strip()[: MAX_COLLECTION_CHARACTERS + 1] or DEFAULT_COLLECTION
        name = upload.fields.get("name", "").strip() or (upload.filename or "questions").rsplit(".", 1)[0]
        added = await run_sync(
            lambda: evaluations.import_questions(
                upload.path, collection=collection, filename=upload.filename, name=name
            )
        )
    return QuestionSetView.of_added(added, documents.get_collection(added.questions.collection_id).name)


@router.post("/rag/question-sets/generate", status_code=201)
def generate_questions(body: QuestionsToGenerate, documents: Documents, evaluations: Evaluations) -> QuestionSetView:
    """Make questions from the documents' own words: telling words of one sentence, which should be found again."""
    made = evaluations.generate(body.collection, name=body.name, count=body.count, seed=body.seed)
    return QuestionSetView.of(made, documents.get_collection(made.collection_id).name)


@router.get("/rag/question-sets")
def list_question_sets(
    documents: Documents, evaluations: Evaluations, collection: Collection = None
) -> QuestionSetList:
    """Newest first; of every collection unless one is named."""
    names = _names(documents)
    found = evaluations.list_question_sets(collection)
    return QuestionSetList(
        question_sets=[QuestionSetView.of(info, names.get(info.collection_id, "")) for info in found]
    )


@router.get("/rag/question-sets/{question_set}")
def get_question_set(question_set: str, documents: Documents, evaluations: Evaluations) -> QuestionSetView:
    info = evaluations.get_question_set(question_set)
    return QuestionSetView.of(info, documents.get_collection(info.collection_id).name)


@router.get("/rag/question-sets/{question_set}/questions")
def get_questions(question_set: str, evaluations: Evaluations, offset: Offset = 0, limit: Limit = 100) -> QuestionList:
    """The questions with what answers them, in order."""
    return QuestionList.of(list(evaluations.questions(question_set))[offset : offset + limit])


@router.delete("/rag/question-sets/{question_set}", status_code=204)
def delete_question_set(question_set: str, evaluations: Evaluations) -> None:
    """Delete it with every evaluation of it."""
    evaluations.delete_question_set(question_set)


@router.post("/rag/evaluate", status_code=202)
def evaluate(body: EvaluationRequest, evaluations: Evaluations) -> TaskAccepted:
    """Put every question of a set under one configuration or two. The task's result names the evaluation."""
    configurations: list[Configuration | None] = [one.configuration() for one in body.configurations]
    return TaskAccepted(task_id=evaluations.evaluate(body.questions, configurations or [None]).id)


@router.post("/rag/tune", status_code=202)
def tune(body: TuningRequest, evaluations: Evaluations) -> TaskAccepted:
    """Try the settings of the search on the questions of a set; the gain told is of questions not chosen by."""
    return TaskAccepted(task_id=evaluations.tune(body.questions, apply=body.apply).id)


@router.post("/rag/calibrate", status_code=202)
def calibrate(body: TuningRequest, evaluations: Evaluations) -> TaskAccepted:
    """Fit abstention to the questions of a set; what is told of it is of questions not fitted on."""
    return TaskAccepted(task_id=evaluations.calibrate(body.questions, apply=body.apply).id)


@router.post("/rag/training-set", status_code=202)
def export_training_set(body: TrainingSetRequest, evaluations: Evaluations) -> TaskAccepted:
    """Make a data set of the questions whose quoted answers were verified. The task's result names it."""
    return TaskAccepted(task_id=evaluations.export(body.questions, name=body.name).id)


@router.delete("/rag/collections/{collection}/calibration", status_code=204)
def forget_calibration(collection: str, documents: Documents) -> None:
    """Decide by the coefficients that come with Terakoya again."""
    documents.forget_calibration(collection)


@router.get("/rag/evaluations")
def list_evaluations(
    documents: Documents, evaluations: Evaluations, collection: Collection = None, limit: Limit = 100
) -> EvaluationList:
    """Newest first."""
    collections = _names(documents)
    sets = {info.id: info.name for info in evaluations.list_question_sets()}
    found = evaluations.list_evaluations(collection, limit=limit)
    return EvaluationList(
        evaluations=[
            EvaluationView.of(
                info,
                collection=collections.get(info.collection_id, ""),
                question_set=sets.get(info.question_set_id, ""),
            )
            for info in found
        ]
    )


@router.get("/rag/evaluations/{evaluation_id}")
def get_evaluation(evaluation_id: str, documents: Documents, evaluations: Evaluations) -> EvaluationView:
    """By its id or its task's."""
    info = evaluations.get_evaluation(evaluation_id)
    return EvaluationView.of(
        info,
        collection=documents.get_collection(info.collection_id).name,
        question_set=evaluations.get_question_set(info.question_set_id).name,
    )


@router.get("/rag/evaluations/{evaluation_id}/questions")
def get_evaluated_questions(
    evaluation_id: str, evaluations: Evaluations, offset: Offset = 0, limit: Limit = 100
) -> dict[str, Any]:
    """What each question gave under each configuration."""
    return {"questions": evaluations.evaluated_questions(evaluation_id)[offset : offset + limit]}


@router.delete("/rag/evaluations/{evaluation_id}", status_code=204)
def delete_evaluation(evaluation_id: str, evaluations: Evaluations) -> None:
    evaluations.delete_evaluation(evaluation_id)


def _names(documents: Documents) -> dict[str, str]:
    return {info.id: info.name for info in documents.list_collections()}
