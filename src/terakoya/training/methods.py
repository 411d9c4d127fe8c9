"""The table of training strategies by name. Knows where they are, not what they do; loads none before use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terakoya.registry import Registry

if TYPE_CHECKING:
    from terakoya.training.strategy import TrainingStrategy

STRATEGIES: Registry[type[TrainingStrategy]] = Registry(
    "training strategy",
    {
        "ewc": "terakoya.training.ewc_strategy:EWCTrainingStrategy",
        "full": "terakoya.training.full_strategy:FullTrainingStrategy",
        "lora": "terakoya.training.lora_strategy:LoRATrainingStrategy",
    },
    group="terakoya.training_strategies",
)
