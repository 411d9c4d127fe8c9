"""Search, questions with their answers whole or as a stream, and the traces they leave."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from terakoya.api import server_sent
from terakoya.api.dependencies import RAG
from terakoya.api.schemas.errors import encodable
from terakoya.api.schemas.rag_answers import (
    AddressedQuery,
    AnswerView,
    CitationView,
    HitView,
    QueryRequest,
    SearchRequest,
    SearchResult,
    WhyRequest,
)
from terakoya.exceptions import AppException
from terakoya.rag.core.events import AnswerEvent, CitationChecked, Done, HitFound, TokenWritten, VerdictReached
from terakoya.rag.core.session import RAGSession

router = APIRouter(tags=["answers"])


@router.post("/rag/search")
async def search(body: SearchRequest, rag: RAG) -> SearchResult:
    """The best passages, most relevant first."""
    hits, trace_id = await rag.search(body.query, collection=body.collection, top_k=body.top_k, filters=body.chosen())
    return SearchResult(hits=[HitView.of(hit) for hit in hits], trace_id=trace_id)


@router.post("/rag/query")
async def query(body: QueryRequest, rag: RAG) -> AnswerView:
    """The answer with its citations, or that the documents do not hold it, with the nearest passages."""
    async with _session(body, rag) as session:
        return AnswerView.of(await session.query(body.query, top_k=body.top_k, earlier=body.earlier))


@router.get("/rag/query")
async def query_by_address(asked: Annotated[AddressedQuery, Query()], rag: RAG) -> AnswerView:
    """The same, asked in the address, of the whole collection."""
    return await query(QueryRequest(**asked.model_dump()), rag)


@router.post("/rag/query/stream", response_class=StreamingResponse)
async def stream_query(body: QueryRequest, rag: RAG) -> StreamingResponse:
    """The answer as server-sent events: hit, token, citation, verdict, done; or error.

    What fails before the first event is an error with a status. When the reader goes away, the writing stops.
    """
    async with AsyncExitStack() as opened:
        session = await opened.enter_async_context(_session(body, rag))
        events = await opened.enter_async_context(
            aclosing(session.stream(body.query, top_k=body.top_k, earlier=body.earlier))
        )
        first = await anext(events)
        return StreamingResponse(_server_sent(first, events, opened.pop_all()), media_type=server_sent.MEDIA_TYPE)


@router.post("/rag/why")
async def why(body: WhyRequest, rag: RAG) -> dict[str, Any]:
    """At which stage a passage was lost for a question, with its ranks and scores."""
    found = await rag.why(
        body.query,
        document_id=body.document_id,
        quote=body.quote,
        collection=body.collection,
        top_k=body.top_k,
        filters=body.chosen(),
    )
    return found.to_json()


@router.get("/rag/traces/{trace_id}")
def get_trace(trace_id: str, rag: RAG) -> dict[str, Any]:
    """What a question did: stages with seconds, passages with ranks and scores, and why it was answered or not."""
    return rag.trace(trace_id)


def _session(body: QueryRequest, rag: RAG) -> AbstractAsyncContextManager[RAGSession]:
    return rag.get_session(collection=body.collection, model=body.model, mode=body.mode, filters=body.chosen())


async def _server_sent(
    first: AnswerEvent, rest: AsyncGenerator[AnswerEvent, None], opened: AsyncExitStack
) -> AsyncIterator[str]:
    async with opened:
        try:
            yield server_sent.event(_event(first))
            async for event in rest:
                yield server_sent.event(_event(event))
        except AppException as error:
            yield server_sent.event({"type": "error", "error": encodable(str(error)), "code": error.code})
        yield server_sent.DONE


def _event(event: AnswerEvent) -> dict[str, Any]:
    match event:
        case HitFound():
            fields = HitView.of(event.hit).model_dump()
        case TokenWritten():
            fields = {"text": event.text}
        case CitationChecked():
            fields = CitationView.of(event.citation).model_dump()
        case VerdictReached():
            fields = {"verdict": event.verdict}
        case Done():
            fields = {"answer": AnswerView.of(event.answer).model_dump()}
    return {"type": event.type} | fields
