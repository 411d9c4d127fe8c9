"""Answers with a torch module, token by token: any architecture that Transformers has, on any device. Answers on one
base are written side by side, for the base and for adapters on it. Knows nothing of HTTP, queues or processes.
"""

from __future__ import annotations

from collections.abc import Callable

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import InvalidConfig
from terakoya.models.cache import ModelCache
from terakoya.models.engines.base import OpenModel, Say, prepare
from terakoya.models.engines.torch_batch import TorchBatches
from terakoya.models.engines.torch_row import NAME, Opening, TorchRow
from terakoya.models.prompt_writer import PromptWriter
from terakoya.models.wire import ChatRequest

_LIFE_SIGN_SECONDS = 5.0


class PyTorchEngine:
    name = NAME

    def __init__(self, cache: ModelCache, prompts: PromptWriter) -> None:
        self._cache = cache
        self._prompts = prompts
        self._batches = TorchBatches()

    def answer(self, request: ChatRequest, is_cancelled: Callable[[], bool], say: Say) -> None:
        if request.sampling.json_schema is not None:
            raise InvalidConfig(
                f"the engine {NAME!r}, which answers for {request.artifact.info.name!r}, cannot hold an answer to a "
                "JSON schema; the engine 'llama.cpp' can, for models it can open"
            )
        is_asked_again = True
        while is_asked_again:
            with self._cache.share(request.artifact) as shared:
                row = TorchRow(request, prepare(request, self._prompts), is_cancelled, say)
                self._batches.put(shared, row)
                while not row.wait(_LIFE_SIGN_SECONDS):
                    if not row.has_joined:
                        say({"waiting": True})
            is_asked_again = row.is_to_be_asked_again

    def load(self, artifact: ModelArtifact) -> None:
        is_asked_again = True
        while is_asked_again:
            with self._cache.share(artifact) as shared:
                opening = Opening(artifact)
                self._batches.put(shared, opening)
                opening.wait()
            is_asked_again = opening.is_to_be_asked_again

    def unload(self, artifact: ModelArtifact) -> bool:
        return self._cache.drop(artifact.root.info.content_sha256)

    @property
    def is_opening(self) -> bool:
        return self._cache.is_opening

    def open_models(self) -> list[OpenModel]:
        return [
            OpenModel(artifact, self.name, size, len(adapters)) for artifact, size, adapters in self._cache.open_models
        ]
