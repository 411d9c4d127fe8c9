from __future__ import annotations

import pytest

from terakoya.exceptions import InvalidConfig
from terakoya.training.defaults import default_learning_rate, resolve
from terakoya.training.presets import PRESETS, with_preset
from terakoya.training.request import TrainingRequest

SIZES = (135e6, 360e6, 1.2e9, 8e9)


def request(**fields: object) -> TrainingRequest:
    return TrainingRequest.model_validate({"model": "m", "dataset": "d", **fields})


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_valid_request_with_a_reason(name: str) -> None:
    preset = PRESETS[name]
    size = next(int(size) for size in SIZES if preset.fits(size))
    resolved = resolve(with_preset(request(preset=name), parameters=size), parameters=size, rows=500)
    assert resolved.strategy == preset.fields["strategy"]
    assert len(preset.reason) > 20


@pytest.mark.parametrize("size", SIZES)
def test_the_presets_by_size_are_the_defaults_made_visible(size: float) -> None:
    fitting = [preset for preset in PRESETS.values() if preset.fits(size) and "learning_rate" in preset.fields]
    assert {preset.fields["strategy"] for preset in fitting} >= {"lora"}
    for preset in fitting:
        assert preset.fields["learning_rate"] == default_learning_rate(preset.fields["strategy"], int(size))


def test_what_the_request_says_goes_before_the_preset() -> None:
    filled = with_preset(request(preset="little-data", adapter={"rank": 4}, max_steps=9), parameters=1000)
    assert filled.adapter is not None
    assert (filled.adapter.rank, filled.adapter.dropout) == (4, 0.05)
    assert (filled.max_steps, filled.epochs) == (9, None)
    assert filled.early_stopping is not None
    every = with_preset(request(preset="little-data", evaluation={"every_steps": 2}), parameters=1000)
    assert every.evaluation.every_fraction is None


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"preset": "magic"}, "unknown preset 'magic'; available: lora-small"),
        ({"preset": "lora-largest"}, "is for models above 4,000M parameters, this one has 1,000; fitting: lora-small"),
        ({"preset": "lora-small", "objective": "dpo"}, "is for objective 'supervised', the request says 'dpo'"),
        ({"preset": "full-small", "strategy": "lora"}, "is for strategy 'full', the request says 'lora'"),
    ],
)
def test_a_preset_that_does_not_fit_is_refused(fields: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidConfig, match=told):
        with_preset(request(**fields), parameters=1000)
