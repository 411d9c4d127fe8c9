"""LoRA and its kin: low-rank updates beside frozen linear layers, kept as a PEFT adapter. The kinds are in
``adapters.py``, with their papers; implementation and format are PEFT's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from peft import LoraConfig, get_peft_model
from torch import nn

from terakoya.domain.models import ModelKind
from terakoya.exceptions import InvalidConfig
from terakoya.training.adapters import ADAPTERS
from terakoya.training.defaults import ResolvedAdapter, ResolvedTraining
from terakoya.training.strategy import TrainingStrategy, require_float32


class LoRATrainingStrategy(TrainingStrategy):
    kind: ModelKind = ModelKind.ADAPTER
    trains_whole_model: bool = False

    def __init__(self, resolved: ResolvedTraining) -> None:
        super().__init__(resolved)
        if resolved.adapter is None:
            raise InvalidConfig("strategy 'lora' needs its adapter settings; they were resolved to none")
        self.adapter: ResolvedAdapter = resolved.adapter
        self.quantizes = self.adapter.quantization is not None
        self.loader = "qlora" if self.quantizes else None

    def prepare(self, module: nn.Module, *, base_id: str) -> nn.Module:
        targets = self._targets(module)
        config = LoraConfig(
            **ADAPTERS.load(self.adapter.kind).options,
            r=self.adapter.rank,
            lora_alpha=self.adapter.alpha,
            lora_dropout=self.adapter.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM",
        )
        adapted: nn.Module = get_peft_model(cast(Any, module), config)
        require_float32(self.trained_parameters(adapted))
        # PEFT put the folder the base was loaded from; the adapter is to name the model, wherever it lies.
        cast(Any, adapted).peft_config["default"].base_model_name_or_path = base_id
        return adapted

    def save(self, module: nn.Module, directory: Path) -> None:
        # The embeddings are never trained here; PEFT would otherwise look for the base's configuration to find out.
        cast(Any, module).save_pretrained(directory, save_embedding_layers=False)

    @contextmanager
    def as_before(self, module: nn.Module) -> Iterator[nn.Module | None]:
        with cast(Any, module).disable_adapter():
            yield module

    def describe(self, module: nn.Module) -> dict[str, Any]:
        targets = sorted(cast(Any, module).peft_config["default"].target_modules)
        return super().describe(module) | {
            "adapter_kind": self.adapter.kind,
            "adapter_targets": targets,
            "quantization": self.adapter.quantization,
        }

    def _targets(self, module: nn.Module) -> list[str]:
        """The last part of the names of the layers to adapt. Raises: InvalidConfig if one is not there, or narrower."""
        head = cast(Any, module).get_output_embeddings()
        linears = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
        names = {name.rpartition(".")[2] for name, layer in linears.items() if layer is not head}
        targets = names if self.adapter.targets == "all-linear" else set(self.adapter.targets)
        if unknown := sorted(targets - names):
            raise InvalidConfig(
                f"this model has no linear layer named {unknown[0]!r}; it has {', '.join(sorted(names))}"
            )
        for name, layer in linears.items():
            width = min(layer.in_features, layer.out_features)
            if name.rpartition(".")[2] in targets and layer is not head and self.adapter.rank > width:
                raise InvalidConfig(f"LoRA rank must be 1-{width} for {name!r}; got {self.adapter.rank}")
        return sorted(targets)
