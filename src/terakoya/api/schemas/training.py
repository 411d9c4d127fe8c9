"""What the training form needs to know before a run is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from terakoya.api.schemas.datasets import DatasetView
from terakoya.api.schemas.models import ModelView
from terakoya.domain.datasets import DatasetInfo, DatasetKind
from terakoya.domain.models import ModelInfo
from terakoya.training.adapters import ADAPTERS, QUANTIZATIONS
from terakoya.training.defaults import default_learning_rate, resolve
from terakoya.training.methods import STRATEGIES
from terakoya.training.objectives.methods import OBJECTIVES
from terakoya.training.presets import PRESETS, Preset, with_preset
from terakoya.training.request import TrainingRequest


class PresetView(BaseModel):
    name: str
    strategy: str
    reason: str
    examples: str
    fields: dict[str, Any]
    """Of a request."""
    above: float
    up_to: float | None
    """The sizes of models it is for, in parameters; null without a limit."""
    fits: bool | None
    """The chosen model; null if there is none."""

    @classmethod
    def of(cls, preset: Preset, chosen: ModelInfo | None) -> PresetView:
        return cls(
            name=preset.name,
            strategy=preset.fields["strategy"],
            reason=preset.reason,
            examples=preset.examples,
            fields=dict(preset.fields),
            above=preset.above,
            up_to=None if math.isinf(preset.up_to) else preset.up_to,
            fits=None if chosen is None else preset.fits(chosen.parameters),
        )


class SettingView(BaseModel):
    """A number that only this objective has; goes into ``objective_settings``."""

    name: str
    default: float
    least: float
    most: float


class ObjectiveView(BaseModel):
    name: str
    learns_from: list[DatasetKind]
    settings: list[SettingView]
    fits: bool | None
    """The chosen dataset; null if there is none."""

    @classmethod
    def of(cls, name: str, chosen: DatasetInfo | None) -> ObjectiveView:
        method = OBJECTIVES.load(name)
        return cls(
            name=name,
            learns_from=list(method.learns_from),
            settings=[SettingView(**asdict(setting)) for setting in method.settings],
            fits=None if chosen is None else chosen.kind in method.learns_from,
        )


class AdapterKindView(BaseModel):
    name: str
    quantization: str | None
    """Of the base, where the kind means one."""


class TrainingOptions(BaseModel):
    strategies: list[str]
    objectives: list[ObjectiveView]
    adapter_kinds: list[AdapterKindView]
    quantizations: list[str]
    models: list[ModelView]
    datasets: list[DatasetView]
    defaults: dict[str, dict[str, dict[str, float]]]
    """By model id and strategy."""
    presets: list[PresetView]
    resolved: dict[str, Any] | None
    """The whole configuration if nothing else is asked for; null while there is no model or no dataset."""


def options_for(
    models: Sequence[ModelInfo],
    datasets: Sequence[DatasetInfo],
    *,
    model: str | None,
    dataset: str | None,
    strategy: str,
    preset: str | None = None,
    objective: str | None = None,
    adapter_kind: str | None = None,
) -> TrainingOptions:
    """Raises: InvalidConfig for a preset that is unknown or does not fit the chosen model."""
    known = {info.id: info for info in models}
    models = [info for info in models if info.can_answer]
    chosen_model = next((info for info in models if info.can_be_tuned and model in (None, info.id, info.name)), None)
    chosen_dataset = next((info for info in datasets if dataset in (None, info.id, info.name)), None)
    resolved = None
    if chosen_model is not None and chosen_dataset is not None:
        chosen: dict[str, Any] = (
            {"strategy": strategy} if preset is None else {"preset": preset}  # a preset has its strategy
        )
        if objective is not None:
            chosen["objective"] = objective
        if adapter_kind is not None and strategy != "full":
            chosen["adapter"] = {"kind": adapter_kind}
        request = TrainingRequest.model_validate({"model": chosen_model.id, "dataset": chosen_dataset.id, **chosen})
        request = with_preset(request, parameters=chosen_model.parameters)
        rows = training_rows(chosen_dataset, request.evaluation.heldout_fraction)
        resolved = resolve(request, parameters=chosen_model.parameters, rows=rows, kind=chosen_dataset.kind).to_json()
    return TrainingOptions(
        strategies=list(STRATEGIES),
        objectives=[ObjectiveView.of(name, chosen_dataset) for name in OBJECTIVES],
        adapter_kinds=[AdapterKindView(name=name, quantization=ADAPTERS.load(name).quantization) for name in ADAPTERS],
        quantizations=list(QUANTIZATIONS),
        models=[ModelView.of(info, known) for info in models],
        datasets=[DatasetView.of(info) for info in datasets],
        defaults={
            info.id: {name: {"learning_rate": default_learning_rate(name, info.parameters)} for name in STRATEGIES}
            for info in models
            if info.can_be_tuned
        },
        presets=[PresetView.of(each, chosen_model) for each in PRESETS.values()],
        resolved=resolved,
    )


def training_rows(dataset: DatasetInfo, heldout_fraction: float) -> int:
    """Rows to learn from: without the held-out ones that the dataset names or the run splits off."""
    if dataset.heldout_rows:
        return dataset.rows - dataset.heldout_rows
    return round(dataset.rows * (1 - heldout_fraction))
