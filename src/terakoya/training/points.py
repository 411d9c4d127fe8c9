"""Points between the weights before and after a run, as modules that can be scored and kept. Knows weights and files;
not what the scores mean or who asked.

An adapter's points are exact: both updates stand side by side in one adapter of their summed rank, each with its share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn

from terakoya.domain.models import ModelArtifact, ModelKind
from terakoya.exceptions import InvalidConfig
from terakoya.models.artifacts import check_folder, read_json
from terakoya.models.factory import create_model_loader, loader_type
from terakoya.training.continual.errors import ChainMismatch
from terakoya.training.continual.interpolation import between, between_factors
from terakoya.training.continual.low_rank import Factors

_WEIGHTS = "adapter_model.safetensors"


class Line(ABC):
    """Every point between before (0) and after (1), in one module."""

    kind: ModelKind
    module: nn.Module
    tokenizer: Any

    @abstractmethod
    def move_to(self, share: float) -> None:
        """Put the point's weights into the module."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the point the module is at, as a model that can be opened."""


def open_line(before: ModelArtifact | None, after: ModelArtifact) -> Line:
    """Raises: InvalidConfig, ChainMismatch, ModelLoadError if the two are not of one shape."""
    return AdapterLine(before, after) if after.base is not None else FullLine(before, after)


class AdapterLine(Line):
    kind = ModelKind.ADAPTER

    def __init__(self, before: ModelArtifact | None, after: ModelArtifact) -> None:
        """``before``: an adapter of the same base, or None for the base alone."""
        base = after.root
        if before is not None and before.root.info.id != base.info.id:
            raise InvalidConfig(f"{before.info.name!r} and {after.info.name!r} are adapters of different models")
        self._after = factors_of(after)
        self._before = None if before is None else factors_of(before)
        if self._before is not None and self._before.keys() != self._after.keys():
            layer = sorted(self._before.keys() ^ self._after.keys())[0]
            raise ChainMismatch(f"only one of {before and before.info.name!r} and {after.info.name!r} adapts {layer!r}")
        loaded = create_model_loader(loader_type(base)).load(base)
        self.tokenizer = loaded.tokenizer
        ranks = {len(self._point(name, 1.0).a) for name in self._after}
        if len(ranks) > 1:
            raise InvalidConfig(f"{after.info.name!r} has layers of different ranks {sorted(ranks)}")
        rank = ranks.pop()
        config = LoraConfig(
            r=rank,
            lora_alpha=rank,  # the factors carry their scale
            target_modules=read_json(after.path / "adapter_config.json")["target_modules"],
            task_type="CAUSAL_LM",
        )
        self.module = cast(nn.Module, get_peft_model(cast(Any, loaded.module), config)).eval()
        cast(Any, self.module).peft_config["default"].base_model_name_or_path = base.info.id

    @torch.no_grad()
    def move_to(self, share: float) -> None:
        parameters = dict(self.module.named_parameters())
        for name in self._after:
            point = self._point(name, share)
            parameters[f"{name}.lora_A.default.weight"].copy_(point.a)
            parameters[f"{name}.lora_B.default.weight"].copy_(point.scale * point.b)

    def save(self, directory: Path) -> None:
        cast(Any, self.module).save_pretrained(directory, save_embedding_layers=False)
        self.tokenizer.save_pretrained(directory)

    def _point(self, name: str, share: float) -> Factors:
        return between_factors(None if self._before is None else self._before[name], self._after[name], share)


class FullLine(Line):
    kind = ModelKind.FULL

    def __init__(self, before: ModelArtifact | None, after: ModelArtifact) -> None:
        if before is None:
            raise InvalidConfig(f"nothing is known of the weights that {after.info.name!r} began with")
        earlier, later = (create_model_loader(loader_type(each)).load(each) for each in (before, after))
        self.module, self.tokenizer = later.module.eval(), later.tokenizer
        self._before = {name: each.detach() for name, each in earlier.module.named_parameters()}
        self._after = {name: each.detach().clone() for name, each in self.module.named_parameters()}

    @torch.no_grad()
    def move_to(self, share: float) -> None:
        point = between(self._before, self._after, share)
        for name, parameter in self.module.named_parameters():
            parameter.copy_(point[name])

    def save(self, directory: Path) -> None:
        cast(Any, self.module).save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)


def factors_of(artifact: ModelArtifact) -> dict[str, Factors]:
    """Read an adapter's factors by the names its layers have in a PEFT model."""
    check_folder(artifact.path)
    config = read_json(artifact.path / "adapter_config.json")
    rank = int(config["r"])
    scale = float(config["lora_alpha"]) / (rank**0.5 if config.get("use_rslora") else rank)
    tensors: dict[str, Tensor] = load_file(artifact.path / _WEIGHTS)
    factors = {}
    for key, tensor in tensors.items():
        layer, found, part = key.partition(".lora_A.weight")
        if found and not part:
            factors[layer] = Factors(tensor.float(), tensors[f"{layer}.lora_B.weight"].float(), scale)
    if 2 * len(factors) != len(tensors):
        raise InvalidConfig(f"{artifact.info.name!r} holds weights beside its low-rank factors")
    return factors
