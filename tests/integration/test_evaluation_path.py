"""Questions put to a real index by a real supervisor; the embedder stands in."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from document_house import DocumentHouse, document_house
from rag_stand_ins import ScriptedChat, honest
from terakoya.domain.evaluation import Configuration, QuestionOrigin
from terakoya.domain.retrieval import RetrievalSettings
from terakoya.domain.tasks import TaskKind, TaskState
from terakoya.exceptions import CollectionNotFound, Conflict, InvalidConfig, NotFound
from terakoya.rag.core.prompt import REFUSAL
from terakoya.rag.evaluation.evaluator import Evaluator
from terakoya.rag.evaluation.service import EvaluationService
from terakoya.storage.evaluation_repository import SqlEvaluationRepository
from terakoya.storage.probe_repository import SqlProbeRepository

RULES = "Returns\n\nLamps may be returned within 21 days of delivery. Cushions cannot be returned once opened."
SHIPPING = "Shipping\n\nParcels leave the warehouse every weekday at noon. Express parcels cost 900 yen."
MANUAL = "Manual\n\nThe projector needs two batteries. Clean the lens with a dry cloth every month."
QUESTIONS = [
    {"question": "Within how many days may lamps be returned?", "document": "rules.txt", "answer": "21 days"},
    {"question": "What do express parcels cost?", "passage": "Express parcels cost 900 yen.", "answer": "900 yen"},
    {"question": "How many batteries does the projector need?", "answer": "two batteries"},
    {"question": "How is the lens cleaned?", "document": "manual.txt"},
    {"question": "When do parcels leave the warehouse?", "passage": "every  weekday at noon"},
    {"question": "May cushions be returned once opened?", "document": "rules.txt"},
    {"question": "Who was the first president of France?", "answerable": False},
    {"question": "What is in the cellar?", "document": "cellar.txt"},
]


class EvaluationHouse:
    def __init__(self, house: DocumentHouse) -> None:
        self.house = house
        self.rows = SqlEvaluationRepository(house.engine)
        self.service = EvaluationService(
            documents=house.rows, evaluations=self.rows, models=house.models, queue=house.queue
        )
        self.evaluator = Evaluator(
            documents=house.rows,
            evaluations=self.rows,
            retriever=house.retriever,
            embedder=house.embedder,
            models=house.models,
            chat=ScriptedChat(honest),
            probes=SqlProbeRepository(house.engine),
            register=self.register,
        )
        self.registered: dict[str, list[dict[str, Any]]] = {}

    def register(self, name: str, rows: Sequence[dict[str, Any]]) -> str:
        self.registered[name] = list(rows)
        return "data_1"

    def add_questions(self, rows: list[dict[str, Any]], name: str = "shop") -> Any:
        path = self.house.data_dir.uploads / "questions"
        path.write_text("\n".join(json.dumps(row) for row in rows))
        return self.service.import_questions(path, collection="default", filename="q.jsonl", name=name)

    async def report_of(self, *configurations: Configuration) -> dict[str, Any]:
        task = self.service.evaluate("shop", list(configurations) or [None])
        async for _ in self.house.event_log.follow(task.id):
            pass
        ended = self.house.tasks.find(task.id)
        assert ended.state is TaskState.SUCCEEDED, ended.error
        evaluation = self.service.get_evaluation(task.id)
        assert ended.result["evaluation_id"] == evaluation.id
        return evaluation.report


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[EvaluationHouse]:
    house = document_house(tmp_path)
    evaluation = EvaluationHouse(house)
    async with house.working({TaskKind.EVALUATION: evaluation.evaluator.evaluate}):
        for name, text in (("rules.txt", RULES), ("shipping.txt", SHIPPING), ("manual.txt", MANUAL)):
            await house.added(text, name)
        yield evaluation


async def test_figures_come_with_intervals_and_what_cannot_be_judged_is_told(shop: EvaluationHouse) -> None:
    added = shop.add_questions(QUESTIONS)
    assert (added.questions.questions, added.questions.answerable) == (8, 7)
    assert (added.problem_count, "cellar.txt" in added.problems[0]) == (1, True)
    report = await shop.report_of()
    assert (report["questions"], report["left_out"]) == (7, 1)
    assert report["left_out_first"][0]["place"] == 7
    (one,) = report["configurations"]
    figures = one["figures"]
    assert figures["recall_at_10"]["value"] == 1.0  # three passages in all
    assert figures["ndcg_at_10"]["low"] is not None
    assert figures["citation_precision"]["value"] > 0.5
    assert figures["abstention"]["answer_taken_out"] == 6
    assert figures["abstention"]["without_answer"] == 1
    assert 0 <= figures["abstention"]["auc"]["value"] <= 1
    assert figures["latency_ms"]["search"]["p50"]["value"] > 0
    assert report["comparison"] is None
    rows = shop.service.evaluated_questions(shop.service.list_evaluations()[0].id)
    assert rows[0]["question"] == QUESTIONS[0]["question"]
    assert rows[6]["measured"][0]["ranked"] is None


async def test_the_same_twice_is_no_significant_difference_in_words(shop: EvaluationHouse) -> None:
    shop.add_questions(QUESTIONS)
    report = await shop.report_of(Configuration("one"), Configuration("other"))
    compared = report["comparison"]["ndcg_at_10"]
    assert compared["verdict"] == "no_significant_difference"
    assert compared["words"].startswith("no significant difference between 'one' and 'other' (nDCG@10 +0.000")
    assert compared["examples"] == 6


async def test_the_search_alone_is_measured_without_answers(shop: EvaluationHouse) -> None:
    shop.add_questions(QUESTIONS)
    words_only = RetrievalSettings("weighted", dense_weight=0.0)
    report = await shop.report_of(Configuration("words", words_only, "none"))
    figures = report["configurations"][0]["figures"]
    assert figures["answered"] is None
    assert figures["latency_ms"]["answer"] is None
    assert report["configurations"][0]["retrieval"]["dense_weight"] == 0.0


async def test_made_questions_say_so_find_their_passage_and_go_with_their_document(shop: EvaluationHouse) -> None:
    made = shop.service.generate("default", name="shop", count=9)
    assert made.origin is QuestionOrigin.GENERATED
    assert made.questions >= 3
    report = await shop.report_of(Configuration("found", answers="none"))
    assert report["left_out"] == 0
    assert report["configurations"][0]["figures"]["recall_at_10"]["value"] == 1.0
    rules = next(one for one in shop.house.rows.list_documents() if one.filename == "rules.txt")
    await shop.house.service.delete(rules.id)
    left = shop.service.questions("shop")
    assert all(one.expected[0].document != rules.id for one in left)
    assert 0 < len(left) < made.questions
    assert shop.service.list_evaluations() == []


async def test_a_deleted_collection_leaves_no_question(shop: EvaluationHouse) -> None:
    shop.add_questions(QUESTIONS)
    await shop.house.service.delete_collection("default")
    assert shop.service.list_question_sets() == []
    with pytest.raises(CollectionNotFound):
        shop.service.list_question_sets("default")


async def test_what_cannot_be_evaluated_is_refused_before_anything_starts(shop: EvaluationHouse) -> None:
    shop.add_questions(QUESTIONS)
    with pytest.raises(NotFound, match="did you mean 'shop'"):
        shop.service.evaluate("shopp", [None])
    with pytest.raises(InvalidConfig, match="names of their own"):
        shop.service.evaluate("shop", [Configuration("a"), Configuration("a")])
    with pytest.raises(InvalidConfig, match="a model is named for 'generative'"):
        shop.service.evaluate("shop", [Configuration("a", answers="generative")])
    with pytest.raises(Conflict, match="already"):
        shop.add_questions(QUESTIONS)
    shop.house.service.add_collection("empty")
    assert shop.house.tasks.list_tasks(kind=TaskKind.EVALUATION) == []


async def test_a_collection_is_searched_as_it_was_set(shop: EvaluationHouse) -> None:
    changed = shop.house.service.set_retrieval("default", RetrievalSettings("rrf", 0.3, 20, 30))
    assert changed.retrieval == RetrievalSettings("rrf", 0.3, 20, 30)
    assert shop.house.rows.find_collection("default").retrieval.fusion == "rrf"


async def test_tuning_tells_the_gain_of_questions_it_did_not_choose_by_and_changes_nothing_unasked(
    shop: EvaluationHouse,
) -> None:
    shop.add_questions(
        [row | {"question": f"{row['question']} {number}"} for number in range(4) for row in QUESTIONS[:6]]
    )
    shop.house.rows.set_retrieval("default", RetrievalSettings("weighted"))
    task = shop.service.tune("shop", apply=False)
    async for _ in shop.house.event_log.follow(task.id):
        pass
    report = shop.service.get_evaluation(task.id).report
    assert (report["questions"], report["applied"]) == (24, False)
    assert report["tried"] > 50
    assert report["comparison"]["ndcg_at_10"]["examples"] == 24
    assert RetrievalSettings.of(report["suggested"])
    chosen_by = report["ndcg_at_10"]["suggested_on_the_questions_it_was_chosen_by"]["value"]
    assert chosen_by >= report["ndcg_at_10"]["present"]["value"]
    assert shop.house.rows.find_collection("default").retrieval.fusion == "weighted"


async def test_too_few_questions_are_not_tuned_on(shop: EvaluationHouse) -> None:
    shop.add_questions(QUESTIONS)
    task = shop.service.tune("shop", apply=True)
    async for _ in shop.house.event_log.follow(task.id):
        pass
    ended = shop.house.tasks.find(task.id)
    assert ended.error == "tuning needs 20 questions that can be judged and have an answer; there are 6"
    assert shop.service.list_evaluations() == []


async def test_abstention_is_calibrated_on_request_and_forgotten_again(shop: EvaluationHouse) -> None:
    for number in range(20):
        await shop.house.added(
            f"Article {number}\n\nThe {number}th lamp stands in hall {number * 7}.", f"a{number}.txt"
        )
    asked = [{"question": f"In which hall is the {n}th lamp?", "document": f"a{n}.txt"} for n in range(20)]
    absent = [{"question": f"Who painted the {n}th picture of the attic?", "answerable": False} for n in range(15)]
    shop.add_questions(asked + absent)
    for apply in (False, True):
        task = shop.service.calibrate("shop", apply=apply)
        async for _ in shop.house.event_log.follow(task.id):
            pass
        ended = shop.house.tasks.find(task.id)
        assert ended.state is TaskState.SUCCEEDED, ended.error
        applied = shop.service.get_evaluation(task.id).report["applied"]
        assert (shop.house.rows.find_collection("default").abstention is not None) is applied
        assert apply or not applied
    report = shop.service.get_evaluation(task.id).report
    assert report["samples"] == 55
    assert report["fitted_on_the_other_half"]["auc"]["value"] > 0.5
    assert (await shop.report_of(Configuration("calibrated")))["questions"] == 35
    assert shop.house.service.forget_calibration("default").abstention is None


async def test_verified_answers_become_rows_that_cite_their_prompt_and_others_teach_to_refuse(
    shop: EvaluationHouse,
) -> None:
    shop.add_questions(QUESTIONS)
    task = shop.service.export("shop", name="citing")
    async for _ in shop.house.event_log.follow(task.id):
        pass
    ended = shop.house.tasks.find(task.id)
    assert ended.state is TaskState.SUCCEEDED, ended.error
    rows = shop.registered["citing"]
    assert ended.result == {"dataset_id": "data_1", "rows": len(rows), "questions": 7}
    assert rows[-1]["messages"][-1] == {"role": "assistant", "content": REFUSAL}
    answered = rows[:-1]
    assert len(answered) >= 3
    for row in answered:
        system, user, assistant = row["messages"]
        assert system["role"] == "system"
        for quote, number in re.findall(r"(.+?) \[(\d+)\]", assistant["content"]):
            assert f"[{number}] {quote.strip()}" in user["content"]
