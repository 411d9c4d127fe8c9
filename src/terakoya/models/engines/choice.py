"""Which engine answers for a model: llama.cpp wherever it can open it on a CPU, since it is three times as fast
there; PyTorch for everything else, and on a GPU. A model's own setting goes before. Knows nothing of how they work.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import AppException, InvalidConfig
from terakoya.models.engines.base import Engine
from terakoya.models.engines.gguf_files import refuse_unopenable
from terakoya.models.factory import loader_type

AUTO, LLAMA_CPP, PYTORCH = "auto", "llama.cpp", "pytorch"


@functools.cache
def has_llama_cpp() -> bool:
    return importlib.util.find_spec("xllamacpp") is not None


class EngineChoice:
    def __init__(self, engines: Mapping[str, Engine], *, device: str = "cpu") -> None:
        """``engines``: by name, of which PyTorch's is always one, on that device."""
        self._engines = engines
        self._device = device
        self._reasons: dict[tuple[str, str], str | None] = {}

    @property
    def engines(self) -> list[Engine]:
        return list(self._engines.values())

    def engine_for(self, artifact: ModelArtifact) -> Engine:
        """Raises: InvalidConfig if the model's own setting names an engine that is not here or cannot open it."""
        wanted = artifact.info.engine
        if wanted == AUTO:
            reason = None if self._device == "cpu" else f"it is for CPUs here, and this device is {self._device!r}"
            reason = reason or self._reason_against_llama(artifact)
            return self._engines[PYTORCH if reason else LLAMA_CPP]
        if wanted == LLAMA_CPP and (reason := self._reason_against_llama(artifact)):
            raise InvalidConfig(f"the engine 'llama.cpp' cannot answer for {artifact.info.name!r}: {reason}")
        if wanted == PYTORCH and loader_type(artifact.root) == "gguf":
            raise InvalidConfig(f"the engine 'pytorch' does not answer from GGUF files such as {artifact.info.name!r}")
        if wanted not in self._engines:
            raise InvalidConfig(f"unknown engine {wanted!r}; there are {', '.join([AUTO, *self._engines])}")
        return self._engines[wanted]

    def _reason_against_llama(self, artifact: ModelArtifact) -> str | None:
        """Asked once for each content."""
        key = (artifact.root.info.content_sha256, artifact.info.content_sha256)
        if key not in self._reasons:
            self._reasons[key] = self._look(artifact)
        return self._reasons[key]

    def _look(self, artifact: ModelArtifact) -> str | None:
        if LLAMA_CPP not in self._engines:
            return "xllamacpp is not installed"
        if loader_type(artifact) == "qlora":
            return "it was trained on its base in 4 bits, and answers from there"
        if artifact.base is not None and (kind := loader_type(artifact)) != "lora":
            return f"it adds no adapters of the type {kind!r}"
        try:
            refuse_unopenable(artifact)
        except (AppException, OSError, KeyError, ValueError, TypeError) as error:
            return str(error)
        return None
