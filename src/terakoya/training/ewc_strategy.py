"""EWC: LoRA or full fine-tuning that goes on from an earlier task without losing it. The base strategy says what is
trained and kept; this adds the penalty and lets an adapter go on where it was. Knows nothing of replay or of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import nn

from terakoya.exceptions import InvalidConfig
from terakoya.training.continual.diagonal_ewc import DiagonalEwc
from terakoya.training.continual.low_rank_ewc import LowRankEwc
from terakoya.training.continual.regulariser import Regulariser
from terakoya.training.defaults import ResolvedTraining
from terakoya.training.full_strategy import FullTrainingStrategy
from terakoya.training.lora_strategy import LoRATrainingStrategy
from terakoya.training.retention import ResolvedRetention
from terakoya.training.strategy import TrainingStrategy, require_float32

_BASES: dict[str, type[TrainingStrategy]] = {"lora": LoRATrainingStrategy, "full": FullTrainingStrategy}


class EWCTrainingStrategy(TrainingStrategy):
    def __init__(self, resolved: ResolvedTraining) -> None:
        super().__init__(resolved)
        if resolved.base not in _BASES or resolved.retention is None:
            raise InvalidConfig(
                f"strategy 'ewc' needs a base of {', '.join(_BASES)}; it was resolved to {resolved.base!r}"
            )
        self.base = _BASES[resolved.base](resolved)
        self.retention: ResolvedRetention = resolved.retention
        self.kind = self.base.kind
        self.trains_whole_model = self.base.trains_whole_model
        self.loader = self.base.loader
        self._goes_on = False

    def lower(self, module: nn.Module, dtype: torch.dtype) -> None:
        """An adapter that goes on keeps its float32 weights: they are the anchor, to the last bit."""
        if self.trains_whole_model:
            return
        for parameter in _frozen_parameters(module):
            parameter.data = parameter.data.to(dtype)

    def prepare(self, module: nn.Module, *, base_id: str) -> nn.Module:
        if not isinstance(module, PeftModel):
            return self.base.prepare(module, base_id=base_id)
        if self.resolved.base != "lora":
            raise InvalidConfig("a chain of adapters goes on with base 'lora'; merge the adapter first for base 'full'")
        self._goes_on = True
        adapted: nn.Module = module
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(".lora_" in name)
        require_float32(self.trained_parameters(module))
        config = cast(Any, module).peft_config["default"]
        config.base_model_name_or_path, config.inference_mode = base_id, False
        return adapted

    def save(self, module: nn.Module, directory: Path) -> None:
        self.base.save(module, directory)

    @contextmanager
    def as_before(self, module: nn.Module) -> Iterator[nn.Module | None]:
        if self._goes_on:
            yield None  # the adapter as it was is not in memory any more
            return
        with self.base.as_before(module) as before:
            yield before

    def describe(self, module: nn.Module) -> dict[str, Any]:
        return self.base.describe(module) | {"base_strategy": self.resolved.base}

    def regulariser(self, module: nn.Module) -> Regulariser:
        """The penalty for what this strategy trains; without a lambda it only measures importance."""
        strength = self.retention.strength or 0.0
        if self.resolved.base == "lora":
            return LowRankEwc(module, strength=strength, gamma=self.retention.gamma)
        return DiagonalEwc(self.trained_parameters(module), strength=strength, gamma=self.retention.gamma)


def _frozen_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    return (parameter for name, parameter in module.named_parameters() if ".lora_" not in name)
