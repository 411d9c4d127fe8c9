"""The engine over passages that are given; retrieval itself is tested where it lives."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from tests.unit.rag.core.conftest import HANDBOOK

from rag_stand_ins import DIMENSION, Script, ScriptedChat, WordEmbedder, honest
from terakoya.domain.datasets import Message
from terakoya.domain.documents import Answer, CollectionInfo, Hit, Language
from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import CitationProbeFailed, InvalidQuery
from terakoya.rag.core.engine import AnswerEngine
from terakoya.rag.core.events import AnswerEvent, Done
from terakoya.rag.core.probe import CitationProbe, ProbeResult
from terakoya.rag.core.prompt import REFUSAL
from terakoya.rag.core.speaking import AskedMode, Question
from terakoya.rag.retrieval.analysis import language_of, terms_of
from terakoya.rag.retrieval.retriever import Retrieved, Retriever

COLLECTION = CollectionInfo("collection_1", "default", "e5", "a" * 64, DIMENSION, 10.0, datetime.now(UTC), 1, 40)
PASSED, FAILED = ProbeResult(8, 8, 8, 7), ProbeResult(1, 3, 8, 7)


class GivenPassages:
    def __init__(self, hits: Sequence[Hit]) -> None:
        self.hits = tuple(hits)

    async def search(self, collection: CollectionInfo, query: str, **options: Any) -> Retrieved:
        if not any(map(str.isalnum, query)):
            raise InvalidQuery("nothing to look for")
        vector = (await WordEmbedder().embed_queries("e5", [query]))[0]
        return Retrieved(query, language_of(query), terms_of(query), vector, self.hits, {"dense": 0.001})


class Traces:
    def __init__(self) -> None:
        self.saved: dict[str, dict[str, Any]] = {}

    def save(self, trace_id: str, collection_id: str, trace: dict[str, Any]) -> None:
        self.saved[trace_id] = trace

    def find(self, trace_id: str) -> dict[str, Any]:
        return self.saved[trace_id]


class GivenProbe:
    def __init__(self, result: ProbeResult) -> None:
        self.given = result
        self.asked: list[Language] = []

    async def result(self, artifact: ModelArtifact, language: Language) -> ProbeResult:
        self.asked.append(language)
        return self.given


class House:
    def __init__(self, hits: Sequence[Hit], *, script: Script = honest, probe: ProbeResult = PASSED) -> None:
        self.traces = Traces()
        self.chat = ScriptedChat(script)
        self.probe = GivenProbe(probe)
        self.engine = AnswerEngine(
            retriever=cast(Retriever, GivenPassages(hits)),
            embedder=WordEmbedder(),
            chat=self.chat,
            probe=cast(CitationProbe, self.probe),
            traces=self.traces,
            new_id=lambda prefix: f"{prefix}_{len(self.traces.saved)}",
        )

    async def events(
        self, text: str, *, mode: AskedMode = "auto", model: ModelArtifact | None = None, top_k: int = 10
    ) -> list[AnswerEvent]:
        return [event async for event in self.engine.answer(Question(COLLECTION, text, mode, model, top_k))]

    async def ask(self, text: str, *, mode: AskedMode = "auto", model: ModelArtifact | None = None) -> Answer:
        done = (await self.events(text, mode=mode, model=model))[-1]
        assert isinstance(done, Done)
        return done.answer


QUESTION = "Within how many days of delivery may lamps be returned?"


@pytest.fixture
def handbook(hit_of: Callable[..., Hit]) -> list[Hit]:
    other = "The pool opens at seven. It is closed in February."
    return [
        hit_of(HANDBOOK, dense=(0.92, 1), sparse=(20.0, 1)),
        hit_of(other, document_id="document_2", title="Pool", dense=(0.78, 2), sparse=(1.0, 2)),
    ]


async def test_without_a_model_sentences_are_quoted(handbook: list[Hit]) -> None:
    answer = await House(handbook).ask(QUESTION)
    assert (answer.mode, answer.verdict, answer.model) == ("extractive", "answered", None)
    assert answer.citations[0].quote == "Lamps may be returned within 21 days of delivery."
    assert list(answer.evidence) == handbook


async def test_the_stream_adds_up_to_the_answer(handbook: list[Hit]) -> None:
    events = await House(handbook).events(QUESTION, top_k=1)
    kinds = [event.type for event in events]
    assert kinds[0] == "hit"
    assert kinds.count("hit") == 1
    assert kinds[-2:] == ["verdict", "done"]
    done = events[-1]
    assert isinstance(done, Done)
    assert "".join(event.text for event in events if event.type == "token") == done.answer.answer
    assert [event.citation for event in events if event.type == "citation"] == list(done.answer.citations)


async def test_a_model_that_passed_the_probe_writes(handbook: list[Hit], artifact: ModelArtifact) -> None:
    house = House(handbook)
    answer = await house.ask(QUESTION, model=artifact)
    assert (answer.mode, answer.model, answer.verdict) == ("generative", "writer", "answered")
    assert answer.answer == "Lamps may be returned within 21 days of delivery. [1]"
    assert answer.citations[0].support == "numbers_and_words"
    assert house.probe.asked == [Language.ENGLISH]


async def test_in_auto_a_model_that_failed_is_replaced_and_named(handbook: list[Hit], artifact: ModelArtifact) -> None:
    house = House(handbook, probe=FAILED)
    answer = await house.ask(QUESTION, model=artifact)
    assert (answer.mode, answer.model) == ("extractive", None)
    assert "model 'writer' did not pass the citation probe in en (1 of 3" in answer.details["reason"]
    assert house.chat.asked == []


async def test_asked_to_write_a_model_that_failed_is_refused_before_anything_is_shown(
    handbook: list[Hit], artifact: ModelArtifact
) -> None:
    with pytest.raises(CitationProbeFailed, match="may not write answers"):
        await House(handbook, probe=FAILED).events(QUESTION, mode="generative", model=artifact)


def changing_numbers(messages: Sequence[Message]) -> str:
    return re.sub(r"\d+ days", "90 days", honest(messages))


def inventing_citations(messages: Sequence[Message]) -> str:
    return re.sub(r"\[\d+\]", "[55]", honest(messages))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (changing_numbers, "numbers_differ"),
        (inventing_citations, "no_such_passage"),
        (lambda _: "Lamps may be returned.", "no_citation"),
    ],
)
async def test_what_cannot_be_verified_is_replaced_openly(
    script: Script, reason: str, handbook: list[Hit], artifact: ModelArtifact
) -> None:
    answer = await House(handbook, script=script).ask(QUESTION, model=artifact)
    assert answer.mode == "extractive"
    assert reason in answer.details["reason"]
    assert answer.details["unverified_model"] == "writer"
    assert "90 days" not in answer.answer


async def test_a_model_may_say_that_the_documents_do_not_hold_it(handbook: list[Hit], artifact: ModelArtifact) -> None:
    answer = await House(handbook, script=lambda _: REFUSAL).ask(QUESTION, model=artifact)
    assert (answer.verdict, answer.answer, answer.mode) == ("not_in_documents", "", "generative")


@pytest.mark.parametrize("question", ["Who won the chess tournament in Reykjavik in 1972?", "日本の首都はどこですか"])
async def test_what_the_documents_do_not_hold_is_not_answered(question: str, hit_of: Callable[..., Hit]) -> None:
    hits = [
        hit_of(HANDBOOK, dense=(0.74, 1), sparse=None),
        hit_of("The pool opens at seven.", document_id="document_2", dense=(0.735, 2), sparse=None),
    ]
    answer = await House(hits).ask(question)
    assert (answer.verdict, answer.answer, answer.citations) == ("not_in_documents", "", ())
    assert list(answer.evidence) == hits


async def test_an_empty_collection_holds_nothing() -> None:
    answer = await House([]).ask("Anything?")
    assert (answer.verdict, answer.evidence) == ("not_in_documents", ())


async def test_the_trace_has_the_figures_and_no_text_of_documents(handbook: list[Hit], artifact: ModelArtifact) -> None:
    house = House(handbook)
    answer = await house.ask(QUESTION, model=artifact)
    trace = house.traces.find(answer.trace_id)
    assert trace["query"] == QUESTION
    assert [hit["dense_rank"] for hit in trace["hits"]] == [1, 2]
    assert trace["decision"]["answerable"]
    assert trace["decision"]["features"].keys() >= {"dense_top", "sparse_top", "coverage"}
    assert trace["seconds"].keys() >= {"retrieve", "dense", "decide", "probe", "generate", "total"}
    assert (trace["mode"], trace["verdict"], trace["citations"][0]["start"]) == ("generative", "answered", 9)
    assert "Cushions" not in str(trace)
    assert "21 days" not in str(trace)


async def test_search_leaves_a_trace_too(handbook: list[Hit]) -> None:
    house = House(handbook)
    hits, trace_id = await house.engine.search(Question(COLLECTION, "lamps", top_k=1))
    assert hits == tuple(handbook[:1])
    assert len(house.traces.find(trace_id)["hits"]) == 2


async def test_a_question_without_words_is_refused() -> None:
    with pytest.raises(InvalidQuery):
        await House([]).events("!?")
