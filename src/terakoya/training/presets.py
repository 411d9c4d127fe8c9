"""Named sets of settings with the reason for each: by the model's size, and for what one is after. What a preset
leaves open, and a request does not say, is chosen as ever. Knows no model; ``defaults.py`` has the plain defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terakoya.domain.merging import merged
from terakoya.exceptions import InvalidConfig
from terakoya.training.request import TrainingRequest

SMALL, MEDIUM, LARGE = 250e6, 700e6, 4e9


@dataclass(frozen=True, slots=True)
class Preset:
    name: str
    reason: str
    """Why these values, and what is known of them."""
    fields: Mapping[str, Any]
    """Of a TrainingRequest."""
    above: float = 0
    up_to: float = math.inf
    """The sizes of models it is for, in parameters."""
    examples: str = ""
    """Models of that size."""

    def fits(self, parameters: int) -> bool:
        return self.above < parameters <= self.up_to


def _lora(rate: float, **more: Any) -> dict[str, Any]:
    adapter = {"rank": 16, "alpha": 32.0}
    return {"strategy": "lora", "objective": "supervised", "learning_rate": rate, "adapter": adapter, **more}


def _full(rate: float) -> dict[str, Any]:
    return {"strategy": "full", "objective": "supervised", "learning_rate": rate}


_TABLE = (
    Preset(
        "lora-small",
        "Measured here with SmolLM2 135M on 1,000 rows of 25 labels: 95 to 98% right at 1e-3 after two passes, by "
        "which labels; at the 2e-4 usual for 7B a task of 75 labels stood at 63%.",
        _lora(1e-3),
        up_to=SMALL,
        examples="SmolLM2 135M",
    ),
    Preset(
        "lora-medium",
        "Between what is measured at 135M and what is usual at 1B; not measured.",
        _lora(5e-4),
        above=SMALL,
        up_to=MEDIUM,
        examples="Gemma 3 270M, SmolLM2 360M, Qwen 0.5B and 0.6B",
    ),
    Preset(
        "lora-large",
        "What most trainers take from 1B on: 2e-4 at rank 16 in Axolotl, Unsloth Studio and TRL's guide.",
        _lora(2e-4),
        above=MEDIUM,
        up_to=LARGE,
        examples="Llama 3.2 1B and 3B, Gemma 3 1B, SmolLM2 1.7B",
    ),
    Preset(
        "lora-largest",
        "1e-4, as LLaMA-Factory and H2O take: a large model needs less, and forgets less for it.",
        _lora(1e-4),
        above=LARGE,
        examples="models of 7B and more",
    ),
    Preset(
        "full-small",
        "A tenth to a twentieth of LoRA's rate: every weight moves.",
        _full(1e-4),
        up_to=SMALL,
        examples="SmolLM2 135M",
    ),
    Preset("full-medium", "As full-small, halved; not measured.", _full(5e-5), above=SMALL, up_to=MEDIUM),
    Preset(
        "full-large",
        "2e-5 is TRL's default for training all weights.",
        _full(2e-5),
        above=MEDIUM,
        up_to=LARGE,
    ),
    Preset(
        "quick-look",
        "One pass with a small adapter and few rows scored: tells within minutes whether the data teaches anything.",
        {"strategy": "lora", "epochs": 1, "adapter": {"rank": 8}, "evaluation": {"max_examples": 100}},
    ),
    Preset(
        "little-data",
        "Up to a few hundred rows are soon learned by heart: a smaller adapter with some dropout, and a stop when the "
        "held-out loss rises three times in a row.",
        {
            "strategy": "lora",
            "epochs": 10,
            "adapter": {"rank": 8, "dropout": 0.05},
            "evaluation": {"every_fraction": 0.05},
            "early_stopping": {"patience": 3},
        },
    ),
    Preset(
        "long-answers",
        "Where answers are texts: a larger step, since neighbouring tokens of one text teach alike, and samples long "
        "enough to judge by.",
        {
            "strategy": "lora",
            "batch_size": 16,
            "adapter": {"rank": 32},
            "evaluation": {"max_new_tokens": 256, "sample_tokens": 128},
        },
    ),
)
PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _TABLE}


def with_preset(request: TrainingRequest, *, parameters: int) -> TrainingRequest:
    """Return the request with its preset's settings wherever it says nothing itself.

    Raises: InvalidConfig for an unknown preset, one for models of another size, or one of another strategy.
    """
    if request.preset is None:
        return request
    preset = PRESETS.get(request.preset)
    if preset is None:
        raise InvalidConfig(f"unknown preset {request.preset!r}; available: {', '.join(PRESETS)}")
    if not preset.fits(parameters):
        fitting = ", ".join(each.name for each in PRESETS.values() if each.fits(parameters))
        raise InvalidConfig(
            f"preset {preset.name!r} is for models {_range(preset)}, this one has {parameters:,}; fitting: {fitting}"
        )
    asked = request.model_dump(exclude_unset=True)
    for field in ("strategy", "objective"):  # a rate that suits one of them ruins another
        said, meant = asked.get(field), preset.fields.get(field)
        if None not in (said, meant) and said != meant:
            raise InvalidConfig(
                f"preset {preset.name!r} is for {field} {meant!r}, the request says {said!r}; leave one of them out"
            )
    fields = dict(preset.fields)
    if "max_steps" in asked:
        fields.pop("epochs", None)  # the one says what the other does
    if {"every_steps", "every_fraction"} & set(asked.get("evaluation", {})):
        fields["evaluation"] = {
            key: value for key, value in fields.get("evaluation", {}).items() if not key.startswith("every_")
        }
    return TrainingRequest.model_validate(merged(fields, asked))


def _range(preset: Preset) -> str:
    above = f"above {preset.above / 1e6:,.0f}M" if preset.above else ""
    up_to = f"up to {preset.up_to / 1e6:,.0f}M" if preset.up_to < math.inf else ""
    return f"{' and '.join(filter(None, (above, up_to)))} parameters"
