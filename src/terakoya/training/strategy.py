"""The contract of a training strategy: which weights of a model are trained, what the model was before, and what
is kept of it. Knows nothing of batches, steps or files of a run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from terakoya.domain.models import ModelKind
from terakoya.training.defaults import ResolvedTraining


class TrainingStrategy(ABC):
    """One per run. A new method is a subclass and a row in ``methods.py``."""

    kind: ModelKind
    """Of the model that comes out."""
    trains_whole_model: bool
    """Whether the model's own weights change: they are then kept in float32 whatever the compute type."""
    loader: str | None = None
    """The type of loader that opens the result, where its files do not tell."""
    quantizes: bool = False
    """Whether the model's frozen layers are put into 4 bits before ``prepare``."""

    def __init__(self, resolved: ResolvedTraining) -> None:
        self.resolved = resolved

    def lower(self, module: nn.Module, dtype: torch.dtype) -> None:
        """Put what is not trained into the compute type, before ``prepare``."""
        if not self.trains_whole_model:
            module.to(dtype)

    @abstractmethod
    def prepare(self, module: nn.Module, *, base_id: str) -> nn.Module:
        """Return the module to train, with exactly the trained parameters requiring a gradient, in float32.

        Raises: InvalidConfig if a setting does not fit this model.
        """

    @abstractmethod
    def save(self, module: nn.Module, directory: Path) -> None:
        """Write the trained model or adapter into an existing directory, safetensors only."""

    @abstractmethod
    @contextmanager
    def as_before(self, module: nn.Module) -> Iterator[nn.Module | None]:
        """The model as it was before training; None if it must be loaded again for that."""

    def trained_parameters(self, module: nn.Module) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}

    def describe(self, module: nn.Module) -> dict[str, Any]:
        """Facts for the effective configuration."""
        trained = sum(parameter.numel() for parameter in self.trained_parameters(module).values())
        return {"trained_parameters": trained}


def require_float32(parameters: dict[str, nn.Parameter]) -> None:
    """Make master weights of what is trained: a bfloat16 weight cannot take the small steps of late training."""
    for parameter in parameters.values():
        parameter.data = parameter.data.to(torch.float32)
