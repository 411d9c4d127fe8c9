"""Sends each question to whoever answers for the model: the model server here, or an endpoint elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from terakoya.domain.datasets import Message
from terakoya.domain.models import ModelArtifact, ModelKind
from terakoya.models.client import AnswerPart, ModelServerClient
from terakoya.models.external import ExternalClient
from terakoya.models.wire import AS_USUAL, Reranked, Sampling


class RoutedClient:
    """The ChatClient of the model service."""

    def __init__(self, server: ModelServerClient, external: ExternalClient) -> None:
        self._server, self._external = server, external

    def stream(
        self,
        artifact: ModelArtifact,
        messages: Sequence[Message],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        sampling: Sampling = AS_USUAL,
        text: str | None = None,
    ) -> AsyncGenerator[AnswerPart, None]:
        return self._who(artifact).stream(
            artifact,
            messages,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            sampling=sampling,
            text=text,
        )

    async def load(self, artifact: ModelArtifact) -> dict[str, Any]:
        return await self._who(artifact).load(artifact)

    async def unload(self, artifact: ModelArtifact) -> None:
        await self._who(artifact).unload(artifact)

    async def rerank(self, artifact: ModelArtifact, query: str, passages: Sequence[str]) -> Reranked:
        return await self._server.rerank(artifact, query, passages)

    def _who(self, artifact: ModelArtifact) -> ModelServerClient | ExternalClient:
        return self._external if artifact.info.kind is ModelKind.EXTERNAL else self._server
