"""What every model loader does and gives: files that have been checked become a torch module and its tokenizer.
Knows nothing of where the files came from, nor of caching; names torch only for its types.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from terakoya.domain.models import ModelArtifact

if TYPE_CHECKING:
    from torch import nn

DTYPES = ("float32", "bfloat16", "float16")
_SHARE_OF_MEMORY = 0.8
"""Of what is free that weights may take: something is needed beside them."""


def widest_dtype(parameters: int, free_bytes: int) -> str | None:
    """Return the widest type in which so many weights fit into the free memory; None if none does."""
    sizes = (("float32", 4), ("bfloat16", 2))
    return next((name for name, item in sizes if parameters * item <= _SHARE_OF_MEMORY * free_bytes), None)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    module: nn.Module
    """In evaluation mode. A causal language model, which called with ``input_ids`` returns ``.logits``; or an
    embedder's encoder."""
    tokenizer: Any
    """A Transformers tokenizer whose padding token, if it has one, is not an end of text that is learnt."""
    artifact: ModelArtifact


class BaseModelLoader(ABC):
    """Opens one type of model. Stateless: an instance serves any number of artifacts."""

    @abstractmethod
    def load(self, artifact: ModelArtifact, *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
        """Open the artifact's files, offline and without running code of theirs.

        Raises: UnsafeArtifact, ModelLoadError; never returns a module with a weight that was not in the files.
        """


class AdapterLoader(BaseModelLoader):
    """A loader of what sits on a base: several adapters can share one base module in memory, one at work at a time."""

    @abstractmethod
    def attach(self, base: LoadedModel, artifact: ModelArtifact, *, name: str) -> LoadedModel:
        """Add the adapter to the base under ``name``; the base's weights are shared, not copied.

        ``base`` may be what an earlier ``attach`` to the same base returned. Raises as ``load`` does; the base
        is then not to be used again.
        """

    @abstractmethod
    def detach(self, loaded: LoadedModel, *, name: str) -> LoadedModel:
        """Drop the adapter of that name; return the base with the adapters left, which may be a plain one again."""

    @abstractmethod
    def activate(self, loaded: LoadedModel, *, name: str | None) -> None:
        """Let the adapter of that name work, or with None the base alone."""
