"""Full fine-tuning: every weight is trained and the whole model is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from torch import nn

from terakoya.domain.models import ModelKind
from terakoya.training.strategy import TrainingStrategy, require_float32


class FullTrainingStrategy(TrainingStrategy):
    kind: ModelKind = ModelKind.FULL
    trains_whole_model: bool = True

    def prepare(self, module: nn.Module, *, base_id: str) -> nn.Module:
        module.requires_grad_(True)
        require_float32(self.trained_parameters(module))
        return module

    def save(self, module: nn.Module, directory: Path) -> None:
        cast(Any, module).save_pretrained(directory)

    @contextmanager
    def as_before(self, module: nn.Module) -> Iterator[nn.Module | None]:
        yield None
