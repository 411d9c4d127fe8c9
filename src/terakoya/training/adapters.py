"""The table of adapter kinds: how each differs from plain LoRA. Read by request, form and command line, so it loads
neither PEFT nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from terakoya.registry import Registry

QUANTIZATIONS = ("nf4",)


@dataclass(frozen=True, slots=True)
class AdapterKind:
    name: str
    options: Mapping[str, bool] = field(default_factory=dict)
    """Of PEFT's LoraConfig."""
    alpha: float = 2.0
    alpha_grows: bool = True
    """Whether the default alpha is that much for each rank; the update is scaled by alpha / rank, or by
    alpha / sqrt(rank) in rsLoRA, where one alpha is meant to serve every rank."""
    quantization: str | None = None
    """Of the frozen base, where the kind means one."""

    def default_alpha(self, rank: int) -> float:
        return self.alpha * rank if self.alpha_grows else self.alpha


LORA = AdapterKind("lora")
"""Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"."""
RSLORA = AdapterKind("rslora", {"use_rslora": True}, alpha=8.0, alpha_grows=False)
"""Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA". At rank 16 this alpha scales
as plain LoRA's default does."""
DORA = AdapterKind("dora", {"use_dora": True})
"""Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation"."""
QLORA = AdapterKind("qlora", quantization="nf4")
"""Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs": plain LoRA on a base in 4-bit NormalFloat,
its scales quantised too."""

ADAPTERS: Registry[AdapterKind] = Registry(
    "adapter kind",
    {
        "lora": "terakoya.training.adapters:LORA",
        "rslora": "terakoya.training.adapters:RSLORA",
        "dora": "terakoya.training.adapters:DORA",
        "qlora": "terakoya.training.adapters:QLORA",
    },
    group="terakoya.adapter_kinds",
)
