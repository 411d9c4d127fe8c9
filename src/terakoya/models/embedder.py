"""The Embedder: registered embedders, worked by the model server. Adds the prefixes that a model was trained with.
Knows nothing of documents; never imports torch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import numpy as np

from terakoya.domain.documents import Vector
from terakoya.domain.models import ModelArtifact, ModelKind
from terakoya.domain.ports import ModelRepository
from terakoya.exceptions import AppException, InvalidConfig, Unavailable
from terakoya.models.client import MAX_EMBED_TEXTS, ModelServerClient
from terakoya.models.embedder_config import EmbedderConfig, read_embedder_config

logger = logging.getLogger(__name__)


class RegisteredEmbedder:
    """Verifies a model's files once and remembers them. All methods are to be called on one event loop.

    A text longer than the model reads (512 tokens for E5, prefix included) is embedded by its beginning; the log then
    has ``texts_truncated`` with their number. Whoever must know which asks ``ModelServerClient.embed``.
    """

    def __init__(self, repository: ModelRepository, client: ModelServerClient) -> None:
        self._repository = repository
        self._client = client
        self._opened: dict[str, tuple[ModelArtifact, EmbedderConfig]] = {}
        self._opening = asyncio.Lock()

    async def embed_passages(self, model_id: str, texts: Sequence[str]) -> Vector:
        return await self._embed(model_id, texts, is_query=False)

    async def embed_queries(self, model_id: str, texts: Sequence[str]) -> Vector:
        return await self._embed(model_id, texts, is_query=True)

    async def _embed(self, model_id: str, texts: Sequence[str], *, is_query: bool) -> Vector:
        artifact, config = await self._find(model_id)
        prefix = config.query_prefix if is_query else config.passage_prefix
        parts = [np.zeros((0, config.dimension), dtype=np.float32)]
        truncated = 0
        for start in range(0, len(texts), MAX_EMBED_TEXTS):
            prefixed = [prefix + text for text in texts[start : start + MAX_EMBED_TEXTS]]
            try:
                embedded = await self._client.embed(artifact, prefixed, is_query=is_query)
            except Unavailable:
                raise
            except AppException:
                self._opened.pop(model_id, None)  # its files may be gone: look again next time
                raise
            parts.append(embedded.vectors)
            truncated += len(embedded.truncated)
        if truncated:
            logger.warning("texts_truncated", extra={"model_id": model_id, "texts": truncated, "of": len(texts)})
        return np.concatenate(parts)

    async def _find(self, model_id: str) -> tuple[ModelArtifact, EmbedderConfig]:
        if model_id not in self._opened:
            async with self._opening:
                if model_id not in self._opened:
                    self._opened[model_id] = await asyncio.to_thread(self._verified, model_id)
        return self._opened[model_id]

    def _verified(self, model_id: str) -> tuple[ModelArtifact, EmbedderConfig]:
        info = self._repository.find(model_id)
        if info.kind is not ModelKind.EMBEDDER:
            raise InvalidConfig(f"{info.name!r} is no embedder (it is of kind {info.kind.value!r})")
        artifact = self._repository.load_model(model_id)
        return artifact, read_embedder_config(artifact.path)
