"""Reranking beside OpenAI's API, in the form that Jina, Cohere and vLLM share, by the registered rerankers."""

from __future__ import annotations

from fastapi import APIRouter

from terakoya.api.dependencies import Models
from terakoya.api.openai_errors import OpenAIRoute
from terakoya.api.schemas.openai import EmbeddingUsage, RerankDocument, RerankRequest, RerankResponse, RerankResult

router = APIRouter(tags=["openai"], route_class=OpenAIRoute)


@router.post("/v1/rerank")
async def rerank_documents(body: RerankRequest, models: Models) -> RerankResponse:
    """Order documents by how well they answer the query, the best first."""
    info, reranked = await models.rerank(body.model, body.query, body.texts)
    cut = set(reranked.truncated)
    order = sorted(range(len(body.texts)), key=lambda index: -reranked.scores[index])
    return RerankResponse(
        model=info.name,
        results=[
            RerankResult(
                index=index,
                relevance_score=reranked.scores[index],
                truncated=index in cut,
                document=RerankDocument(text=body.texts[index]) if body.return_documents else None,
            )
            for index in order[: body.top_n]
        ],
        usage=EmbeddingUsage(prompt_tokens=reranked.tokens, total_tokens=reranked.tokens),
    )
