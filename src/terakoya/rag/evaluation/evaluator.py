"""The work of an evaluation: every question put under every configuration, one after the other in turns, judged, and
the report stored. Knows nothing of tasks but the row it is given.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from terakoya.domain.document_ports import DocumentRepository, Embedder, ProbeRepository
from terakoya.domain.documents import CollectionInfo
from terakoya.domain.evaluation import Configuration, SetQuestion
from terakoya.domain.evaluation_ports import EvaluationRepository
from terakoya.domain.events import EventType, Observer, Phase
from terakoya.domain.models import ModelArtifact
from terakoya.domain.ports import ModelRepository
from terakoya.domain.tasks import Task
from terakoya.exceptions import InvalidQuestions
from terakoya.models.service import ChatClient
from terakoya.rag.core.probe import CitationProbe
from terakoya.rag.core.speaking import Speaker
from terakoya.rag.evaluation.asking import Asker, Measured
from terakoya.rag.evaluation.figures import comparison_of, figures_of
from terakoya.rag.evaluation.locating import Locator, NotLocated, Target
from terakoya.rag.retrieval.retriever import Retriever

KIND = "evaluation"
_SHOWN_LEFT_OUT = 50
_PROGRESS_SECONDS = 0.5


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


class Evaluator:
    """``evaluate`` is an InlineWork; its request names ``collection_id``, ``question_set_id``, ``configurations``."""

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
    ) -> None:
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
        configurations = [Configuration.of(stored) for stored in task.request["configurations"]]
        prepared = await asyncio.to_thread(self.prepare, collection, set_id)
        askers = [await self._asker(collection, configuration) for configuration in configurations]
        measured = await _in_turns(askers, prepared.judgeable, observer)
        report = await asyncio.to_thread(_report, configurations, prepared, measured)
        rows = [
            {"place": one.place, "measured": [results[number].to_json() for results in measured]}
            for number, one in enumerate(prepared.judgeable)
        ]
        saved = await asyncio.to_thread(
            lambda: self._evaluations.save_evaluation(
                task_id=task.id,
                collection_id=collection.id,
                question_set_id=set_id,
                kind=KIND,
                report=report,
                questions=rows,
            )
        )
        return {"evaluation_id": saved.id, "questions": len(prepared.judgeable)}

    def prepare(self, collection: CollectionInfo, question_set_id: str) -> Prepared:
        """Find what should be found for each question. Blocks. Raises: InvalidQuestions if none can be judged."""
        locator = Locator(self._documents, collection.id)
        judgeable: list[Judgeable] = []
        left_out: list[dict[str, Any]] = []
        for place, question in enumerate(self._evaluations.questions_of(question_set_id)):
            try:
                judgeable.append(Judgeable(place, question, locator.targets(question)))
            except NotLocated as error:
                left_out.append({"place": place, "reason": str(error)})
        if not judgeable:
            first = f"; the first: {left_out[0]['reason']}" if left_out else ""
            raise InvalidQuestions(f"none of the questions can be judged on the collection {collection.name!r}{first}")
        return Prepared(judgeable, left_out)

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
    told = 0.0
    for number, one in enumerate(judgeable):
        if time.monotonic() - told >= _PROGRESS_SECONDS:
            observer.notify(EventType.PHASE, phase=Phase.EVALUATING, done=number, total=len(judgeable))
            told = time.monotonic()
        order = range(len(askers)) if number % 2 == 0 else reversed(range(len(askers)))
        for which in order:
            found[which][number] = await askers[which].ask(one.question, one.targets)
    observer.notify(EventType.PHASE, phase=Phase.EVALUATING, done=len(judgeable), total=len(judgeable))
    return [[results[number] for number in range(len(judgeable))] for results in found]


def _report(
    configurations: Sequence[Configuration], prepared: Prepared, measured: Sequence[Sequence[Measured]]
) -> dict[str, Any]:
    """Blocks for a second or so: intervals by resampling."""
    report: dict[str, Any] = {
        "questions": len(prepared.judgeable),
        "left_out": len(prepared.left_out),
        "left_out_first": prepared.left_out[:_SHOWN_LEFT_OUT],
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
