"""OpenAI's API of embeddings, by the registered embedders."""

from __future__ import annotations

import base64

import numpy as np
from anyio.to_thread import run_sync
from fastapi import APIRouter

from terakoya.api.dependencies import ContainerDep
from terakoya.api.openai_errors import OpenAIRoute
from terakoya.api.schemas.openai import Embedding, EmbeddingList, EmbeddingsRequest, EmbeddingUsage
from terakoya.domain.documents import Vector
from terakoya.domain.models import ModelInfo, ModelKind
from terakoya.exceptions import InvalidConfig
from terakoya.models.context import token_counter

router = APIRouter(tags=["openai"], route_class=OpenAIRoute)


@router.post("/v1/embeddings")
async def embed_texts(body: EmbeddingsRequest, container: ContainerDep) -> EmbeddingList:
    """Turn texts into vectors of length 1, in their order.

    ``input_type`` is our own addition: the embedders here were trained with a prefix that tells a question from a
    passage. Without it texts are read as questions, which is the form for comparing texts with each other.
    """
    info = await run_sync(container.models.get, body.model)
    if info.kind is ModelKind.EXTERNAL:
        if "input_type" in body.model_fields_set:
            raise InvalidConfig(f"{info.name!r} reads all texts alike: leave out 'input_type'")
        vectors, tokens = await container.external.embed(info.name, body.texts)
        return _answer(info, body, vectors, tokens)
    if info.can_answer:
        raise InvalidConfig(f"{info.name!r} writes answers and has no vectors for texts; name an embedder")
    embed = container.embedder.embed_passages if body.input_type == "passage" else container.embedder.embed_queries
    vectors = await embed(info.id, body.texts)
    tokens = await run_sync(_tokens, container, info.id, body.texts)
    return _answer(info, body, vectors, tokens)


def _answer(info: ModelInfo, body: EmbeddingsRequest, vectors: Vector, tokens: int) -> EmbeddingList:
    if body.dimensions is not None and body.dimensions != vectors.shape[1]:
        raise InvalidConfig(f"the vectors of {info.name!r} have {vectors.shape[1]} dimensions, not {body.dimensions}")
    return EmbeddingList(
        data=[Embedding(index=index, embedding=_written(row, body)) for index, row in enumerate(vectors)],
        model=info.name,
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


def _tokens(container: ContainerDep, model_id: str, texts: list[str]) -> int:
    count = token_counter(container.models.artifact(model_id))
    return sum(count(text) for text in texts)


def _written(row: Vector, body: EmbeddingsRequest) -> list[float] | str:
    if body.encoding_format == "base64":
        return base64.b64encode(np.ascontiguousarray(row, dtype="<f4").tobytes()).decode("ascii")
    numbers: list[float] = row.tolist()
    return numbers
