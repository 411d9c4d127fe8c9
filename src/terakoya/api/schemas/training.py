"""What the training form needs to know before a run is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from terakoya.api.schemas.datasets import DatasetView
from terakoya.api.schemas.models import ModelView
from terakoya.domain.datasets import DatasetInfo
from terakoya.domain.models import ModelInfo, ModelKind
from terakoya.training.defaults import default_learning_rate, resolve
from terakoya.training.methods import STRATEGIES
from terakoya.training.request import TrainingRequest


class TrainingOptions(BaseModel):
    strategies: list[str]
    models: list[ModelView]
    datasets: list[DatasetView]
    defaults: dict[str, dict[str, dict[str, float]]]
    """By model id and strategy."""
    resolved: dict[str, Any] | None
    """The whole configuration if nothing else is asked for; null while there is no model or no dataset."""


def options_for(
    models: Sequence[ModelInfo],
    datasets: Sequence[DatasetInfo],
    *,
    model: str | None,
    dataset: str | None,
    strategy: str,
) -> TrainingOptions:
    known = {info.id: info for info in models}
    models = [info for info in models if info.can_answer]
    chosen_model = next(
        (info for info in models if info.kind != ModelKind.ADAPTER and model in (None, info.id, info.name)), None
    )
    chosen_dataset = next((info for info in datasets if dataset in (None, info.id, info.name)), None)
    resolved = None
    if chosen_model is not None and chosen_dataset is not None:
        request = TrainingRequest(
            model=chosen_model.id,
            dataset=chosen_dataset.id,
            strategy=strategy,
        )
        rows = training_rows(chosen_dataset, request.evaluation.heldout_fraction)
        resolved = resolve(request, parameters=chosen_model.parameters, rows=rows).to_json()
    return TrainingOptions(
        strategies=list(STRATEGIES),
        models=[ModelView.of(info, known) for info in models],
        datasets=[DatasetView.of(info) for info in datasets],
        defaults={
            info.id: {name: {"learning_rate": default_learning_rate(name, info.parameters)} for name in STRATEGIES}
            for info in models
            if info.kind != ModelKind.ADAPTER
        },
        resolved=resolved,
    )


def training_rows(dataset: DatasetInfo, heldout_fraction: float) -> int:
    """Rows to learn from: without the held-out ones that the dataset names or the run splits off."""
    if dataset.heldout_rows:
        return dataset.rows - dataset.heldout_rows
    return round(dataset.rows * (1 - heldout_fraction))
