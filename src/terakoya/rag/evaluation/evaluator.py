"""The work of an evaluation: every question put under every configuration, one after the other in turns, judged, and
the report stored. Knows nothing of tasks but the row it is given.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from terakoya.domain.document_ports import DocumentRepository, Embedder, ProbeRepository
from terakoya.domain.documents import CollectionInfo
from terakoya.domain.evaluation import Configuration
from terakoya.domain.evaluation_ports import EvaluationRepository
from terakoya.domain.events import EventType, Observer, Phase
from terakoya.domain.models import ModelArtifact
from terakoya.domain.ports import ModelRepository
from terakoya.domain.retrieval import RetrievalSettings
from terakoya.domain.tasks import Task
from terakoya.models.service import ChatClient
from terakoya.rag.core.probe import CitationProbe
from terakoya.rag.core.speaking import Speaker
from terakoya.rag.evaluation.asking import Asker, Measured
from terakoya.rag.evaluation.calibrating import calibrate, collect_samples
from terakoya.rag.evaluation.figures import comparison_of, figures_of
from terakoya.rag.evaluation.preparing import Judgeable, Prepared, prepare
from terakoya.rag.evaluation.training_set import Register, training_rows
from terakoya.rag.evaluation.tuning import rank_all, tune
from terakoya.rag.retrieval.retriever import Retriever

EVALUATION, TUNING, CALIBRATION, TRAINING_SET = "evaluation", "tuning", "calibration", "training_set"
_PROGRESS_SECONDS = 0.5


class Evaluator:
    """``evaluate`` is an InlineWork; its request names ``kind``, ``collection_id``, ``question_set_id`` and, by kind,
    the ``configurations``, or whether to ``apply`` what tuning finds.
    """

    def __init__(
        self,
        *,
        documents: DocumentRepository,
        evaluations: EvaluationRepository,
        retriever: Retriever,
        embedder: Embedder,
        models: ModelRepository,
        chat: ChatClient,
        probes: ProbeRepository,
        register: Register,
    ) -> None:
        """``register``: makes a data set of rows."""
        self._register = register
        self._documents = documents
        self._evaluations = evaluations
        self._retriever = retriever
        self._models = models
        self._speaker = Speaker(embedder=embedder, chat=chat, probe=CitationProbe(chat, probes))

    async def evaluate(self, task: Task, observer: Observer) -> dict[str, Any]:
        """Raises: CollectionNotFound, NotFound, ModelNotFound for what was deleted meanwhile; CitationProbeFailed;
        InvalidQuestions if no question can be judged; Unavailable.
        """
        collection = await asyncio.to_thread(self._documents.find_collection, str(task.request["collection_id"]))
        set_id = str(task.request["question_set_id"])
        prepared = await asyncio.to_thread(prepare, self._documents, self._evaluations, collection, set_id)
        if task.request["kind"] == TUNING:
            return await self._tune(task, collection, prepared, observer)
        if task.request["kind"] == TRAINING_SET:
            return await self._training_set(task, collection, prepared, observer)
        if task.request["kind"] == CALIBRATION:
            return await self._calibrate(task, collection, prepared, observer)
        configurations = [Configuration.of(stored) for stored in task.request["configurations"]]
        askers = [await self._asker(collection, configuration) for configuration in configurations]
        measured = await _in_turns(askers, prepared.judgeable, observer)
        report = await asyncio.to_thread(_report, configurations, prepared, measured)
        rows = [
            {"place": one.place, "measured": [results[number].to_json() for results in measured]}
            for number, one in enumerate(prepared.judgeable)
        ]
        return await self._saved(task, EVALUATION, report, rows)

    async def _tune(
        self, task: Task, collection: CollectionInfo, prepared: Prepared, observer: Observer
    ) -> dict[str, Any]:
        """Search once a question, try the grid, and set the collection so if that was asked for and is better."""
        tell = _progress(observer)
        rankings = await rank_all(self._retriever, self._documents, collection, prepared.judgeable, tell)
        report = prepared.to_json() | await asyncio.to_thread(tune, rankings, collection.retrieval)
        is_better = report["comparison"]["ndcg_at_10"]["verdict"] == "better"
        report["applied"] = bool(task.request["apply"]) and is_better
        saved = await self._saved(task, TUNING, report, [])
        if report["applied"]:
            suggested = RetrievalSettings.of(report["suggested"])
            await asyncio.to_thread(self._documents.set_retrieval, collection.id, suggested)
        return saved

    async def _training_set(
        self, task: Task, collection: CollectionInfo, prepared: Prepared, observer: Observer
    ) -> dict[str, Any]:
        """Answer each question in the documents' words and register what could be verified as a data set."""
        rows = await training_rows(self._retriever, self._speaker, collection, prepared.judgeable, _progress(observer))
        dataset_id = await asyncio.to_thread(self._register, str(task.request["name"]), rows)
        return {"dataset_id": dataset_id, "rows": len(rows), "questions": len(prepared.judgeable)}

    async def _calibrate(
        self, task: Task, collection: CollectionInfo, prepared: Prepared, observer: Observer
    ) -> dict[str, Any]:
        """Search once a question, fit, and let the collection decide so if that was asked for and is no worse on
        questions that had no part in the fit.
        """
        samples = await collect_samples(self._retriever, collection, prepared.judgeable, _progress(observer))
        report = prepared.to_json() | await asyncio.to_thread(calibrate, samples, collection)
        before, after = (report[side]["auc"]["value"] for side in ("before", "fitted_on_the_other_half"))
        report["applied"] = bool(task.request["apply"]) and after >= before
        saved = await self._saved(task, CALIBRATION, report, [])
        if report["applied"]:
            await asyncio.to_thread(self._documents.set_abstention, collection.id, report["coefficients"])
        return saved

    async def _saved(
        self, task: Task, kind: str, report: dict[str, Any], rows: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        saved = await asyncio.to_thread(
            lambda: self._evaluations.save_evaluation(
                task_id=task.id,
                collection_id=str(task.request["collection_id"]),
                question_set_id=str(task.request["question_set_id"]),
                kind=kind,
                report=report,
                questions=rows,
            )
        )
        return {"evaluation_id": saved.id, "questions": report["questions"]}

    async def _asker(self, collection: CollectionInfo, configuration: Configuration) -> Asker:
        artifact: ModelArtifact | None = None
        if configuration.model is not None:
            artifact = await asyncio.to_thread(self._models.load_model, configuration.model)
        return Asker(self._retriever, self._speaker, collection, configuration, artifact)


async def _in_turns(
    askers: Sequence[Asker], judgeable: Sequence[Judgeable], observer: Observer
) -> list[list[Measured]]:
    """Return what each asker measured, question by question. Who is first changes with every question, so that what
    one leaves warm for the other favours neither.
    """
    for asker in askers:  # models load, dictionaries open: no question's time
        await asker.ask(judgeable[0].question, judgeable[0].targets)
    found: list[dict[int, Measured]] = [{} for _ in askers]
    tell = _progress(observer)
    for number, one in enumerate(judgeable):
        tell(number, len(judgeable))
        order = range(len(askers)) if number % 2 == 0 else reversed(range(len(askers)))
        for which in order:
            found[which][number] = await askers[which].ask(one.question, one.targets)
    tell(len(judgeable), len(judgeable))
    return [[results[number] for number in range(len(judgeable))] for results in found]


def _progress(observer: Observer) -> Callable[[int, int], None]:
    """Return who tells of it now and then, and at the end."""
    told = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if done == total or time.monotonic() - told >= _PROGRESS_SECONDS:
            observer.notify(EventType.PHASE, phase=Phase.EVALUATING, done=done, total=total)
            told = time.monotonic()

    return tell


def _report(
    configurations: Sequence[Configuration], prepared: Prepared, measured: Sequence[Sequence[Measured]]
) -> dict[str, Any]:
    """Blocks for a second or so: intervals by resampling."""
    report: dict[str, Any] = {
        **prepared.to_json(),
        "configurations": [
            configuration.to_json() | {"figures": figures_of(results)}
            for configuration, results in zip(configurations, measured, strict=True)
        ],
        "comparison": None,
    }
    if len(configurations) == 2:
        names = (configurations[0].name, configurations[1].name)
        report["comparison"] = comparison_of(names, measured[0], measured[1])
    return report
