"""An engine that is made when it is first needed: for what takes seconds to import and is not always asked for. Knows
nothing of what it makes.
"""

from __future__ import annotations

from collections.abc import Callable

from terakoya.domain.models import ModelArtifact
from terakoya.models.engines.base import Engine, OpenModel, Say
from terakoya.models.wire import ChatRequest


class LateEngine:
    def __init__(self, name: str, engine: Callable[[], Engine], *, is_made: Callable[[], bool]) -> None:
        """``engine``: returns the same one each time; ``is_made``: whether it has been asked to."""
        self.name = name
        self._engine = engine
        self._is_made = is_made

    def answer(self, request: ChatRequest, is_cancelled: Callable[[], bool], say: Say) -> None:
        self._engine().answer(request, is_cancelled, say)

    def load(self, artifact: ModelArtifact) -> None:
        self._engine().load(artifact)

    def unload(self, artifact: ModelArtifact) -> bool:
        return not self._is_made() or self._engine().unload(artifact)

    @property
    def is_opening(self) -> bool:
        return self._is_made() and self._engine().is_opening

    def open_models(self) -> list[OpenModel]:
        return self._engine().open_models() if self._is_made() else []
