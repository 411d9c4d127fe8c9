"""Fills in what a request leaves open, from the model's size and the dataset's. Pure arithmetic: no torch,
no files. Where each number comes from is in ``docs/lab-notebook.md``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from terakoya.data.long_rows import LongRows
from terakoya.domain.datasets import DatasetKind
from terakoya.domain.tasks import TaskLimits
from terakoya.exceptions import InvalidConfig
from terakoya.training.adapters import ADAPTERS
from terakoya.training.objectives.methods import OBJECTIVES, ObjectiveMethod, natural_objective
from terakoya.training.request import AdapterRequest, LimitsRequest, RetentionRequest, TrainingRequest
from terakoya.training.retention import ResolvedRetention, resolve_retention

# Largest parameter count -> peak learning rate. A 135M model at the 7B habit of 2e-4 hardly learns.
_LORA_RATES = ((250e6, 1e-3), (700e6, 5e-4), (4e9, 2e-4), (math.inf, 1e-4))
_FULL_RATES = ((250e6, 1e-4), (700e6, 5e-5), (4e9, 2e-5), (math.inf, 1e-5))
_CHAIN_ADAPTERS = ("lora", "rslora")
"""Those whose update of a weight is s * B A and nothing else."""
_BATCH_SIZE = 8
_STEPS_WORTH_TAKING = 250
"""A small dataset is repeated until about so many optimizer steps are taken, ten times at most."""


@dataclass(frozen=True, slots=True)
class ResolvedAdapter:
    kind: str
    rank: int
    alpha: float
    dropout: float
    targets: str | tuple[str, ...]
    quantization: str | None = None


@dataclass(frozen=True, slots=True)
class ResolvedTraining:
    """A request with every default filled in; what only the tokenised data can tell stays None."""

    strategy: str
    adapter: ResolvedAdapter | None
    objective: str
    epochs: int | None
    max_steps: int | None
    learning_rate: float
    batch_size: int
    max_length: int | None
    schedule: str
    warmup: float
    checkpoint_minutes: float
    weight_decay: float
    max_grad_norm: float
    heldout_fraction: float
    max_evaluation_examples: int
    max_new_tokens: int | None
    seed: int
    # -- while it trains; None is decided from the length of the run --
    evaluate_every_steps: int | None = None
    evaluate_every_fraction: float | None = None
    during_examples: int | None = None
    sample_tokens: int | None = None
    sample_prompts: tuple[str, ...] | None = None
    early_stopping_patience: int | None = None
    early_stopping_min_delta: float = 0.0
    trackers: tuple[str, ...] = ()
    # -- fitting the machine --
    long_rows: LongRows = "refuse"
    gradient_checkpointing: str = "auto"
    # -- of the objective --
    objective_settings: dict[str, float] = field(default_factory=dict)
    # -- of a chain of tasks --
    base: str | None = None
    retention: ResolvedRetention | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ResolvedTraining:
        """Read back; what was stored beside (the ids of model and dataset) is ignored, and what a run stored by an
        earlier version lacks has its default.
        """
        fields = {name: _frozen(fields[name]) for name in cls.__slots__ if name in fields}
        adapter = fields["adapter"]
        if adapter is not None:
            targets = adapter["targets"]
            adapter = ResolvedAdapter(**{**adapter, "targets": targets if isinstance(targets, str) else tuple(targets)})
        retention = fields.get("retention")
        if retention is not None:
            retention = ResolvedRetention.from_json(retention)
        return cls(**{**fields, "adapter": adapter, "retention": retention})


def default_learning_rate(strategy: str, parameters: int, objective: str = "supervised") -> float:
    rates = _FULL_RATES if strategy == "full" else _LORA_RATES
    rate = next(rate for most, rate in rates if parameters <= most)
    return float(f"{rate * OBJECTIVES.load(objective).rate_factor:.3g}")


def default_epochs(rows: int, batch_size: int) -> int:
    steps_per_epoch = math.ceil(max(rows, 1) / batch_size)
    return min(max(math.ceil(_STEPS_WORTH_TAKING / steps_per_epoch), 1), 10)


def resolve(
    request: TrainingRequest, *, parameters: int, rows: int, kind: DatasetKind = DatasetKind.CONVERSATION
) -> ResolvedTraining:
    """Return the full configuration for a model of so many parameters and a dataset of so many training rows.

    ``kind``: of the rows. Raises: InvalidConfig when two settings contradict each other.
    """
    if request.epochs is not None and request.max_steps is not None:
        raise InvalidConfig(
            f"epochs={request.epochs} and max_steps={request.max_steps} contradict each other; give one of them"
        )
    evaluation = request.evaluation
    if evaluation.every_steps is not None and evaluation.every_fraction is not None:
        raise InvalidConfig(
            f"evaluation.every_steps={evaluation.every_steps} and evaluation.every_fraction="
            f"{evaluation.every_fraction:g} contradict each other; give one of them"
        )
    base = (request.base or "lora") if request.strategy == "ewc" else None
    space = base or request.strategy
    if request.adapter is not None and space == "full":
        raise InvalidConfig(
            f"{'base' if base else 'strategy'} 'full' trains every weight and takes no 'adapter'; "
            "leave it out or use 'lora'"
        )
    objective = _objective(request.objective, kind)
    if base is not None:
        _check_chain(request, objective)
    if objective.encoding.rows_per_example > 1 and request.long_rows in ("truncate", "split"):
        raise InvalidConfig(
            f"objective {objective.name!r} compares whole answers, which long_rows={request.long_rows!r} would cut; "
            "'refuse' or 'drop' would work"
        )
    batch_size = request.batch_size or _BATCH_SIZE
    epochs = request.epochs
    if epochs is None and request.max_steps is None:
        epochs = default_epochs(rows, batch_size)
    return ResolvedTraining(
        strategy=request.strategy,
        adapter=None if space == "full" else _resolve_adapter(request),
        objective=objective.name,
        epochs=epochs,
        max_steps=request.max_steps,
        learning_rate=request.learning_rate or default_learning_rate(space, parameters, objective.name),
        batch_size=batch_size,
        max_length=request.max_length,
        schedule=request.schedule.kind,
        warmup=request.schedule.warmup,
        checkpoint_minutes=request.schedule.checkpoint_minutes,
        weight_decay=0.0,
        max_grad_norm=1.0,
        heldout_fraction=request.evaluation.heldout_fraction,
        max_evaluation_examples=request.evaluation.max_examples,
        max_new_tokens=request.evaluation.max_new_tokens,
        seed=request.seed,
        evaluate_every_steps=evaluation.every_steps,
        evaluate_every_fraction=evaluation.every_fraction,
        during_examples=evaluation.during_examples,
        sample_tokens=evaluation.sample_tokens,
        sample_prompts=request.sample_prompts,
        early_stopping_patience=request.early_stopping.patience if request.early_stopping else None,
        early_stopping_min_delta=request.early_stopping.min_delta if request.early_stopping else 0.0,
        trackers=request.trackers,
        long_rows=request.long_rows,
        gradient_checkpointing=request.gradient_checkpointing,
        objective_settings=objective.resolve_settings(request.objective_settings),
        base=base,
        retention=resolve_retention(request.retention or RetentionRequest()) if base else None,
    )


def _check_chain(request: TrainingRequest, objective: ObjectiveMethod) -> None:
    """Raises: InvalidConfig for what strategy ``ewc`` cannot yet protect."""
    if objective.encoding.rows_per_example > 1:
        raise InvalidConfig(
            f"strategy 'ewc' learns one row an example, and objective {objective.name!r} compares "
            f"{objective.encoding.rows_per_example}; 'supervised' or 'text' would work"
        )
    adapter = request.adapter or AdapterRequest()
    if adapter.kind not in _CHAIN_ADAPTERS or adapter.quantization is not None:
        raise InvalidConfig(
            f"strategy 'ewc' takes adapters of kind {' or '.join(_CHAIN_ADAPTERS)} on a base in full precision; "
            f"got kind {adapter.kind!r} and quantization {adapter.quantization!r}"
        )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def resolve_limits(asked: LimitsRequest, server: TaskLimits) -> TaskLimits:
    """Return a run's limits: what is asked for, else the server's. Raises: InvalidConfig for more hours than those."""
    if server.max_hours is not None and (asked.max_hours or 0) > server.max_hours:
        raise InvalidConfig(
            f"limits.max_hours is {asked.max_hours:g}; this server lets a run work for at most {server.max_hours:g} "
            "hours (TERAKOYA_TRAINING_MAX_HOURS)"
        )
    given = asked.model_dump(exclude_none=True)
    return replace(server, **given)


def _objective(asked: str | None, kind: DatasetKind) -> ObjectiveMethod:
    objective = OBJECTIVES.load(asked or natural_objective(kind))
    if kind not in objective.learns_from:
        fitting = ", ".join(repr(name) for name in OBJECTIVES if kind in OBJECTIVES.load(name).learns_from)
        raise InvalidConfig(
            f"objective {objective.name!r} learns from {' or '.join(objective.learns_from)} rows, and the dataset's "
            f"are {kind} rows; for those there is {fitting}"
        )
    return objective


def _resolve_adapter(request: TrainingRequest) -> ResolvedAdapter:
    asked = request.adapter or AdapterRequest()
    kind = ADAPTERS.load(asked.kind)
    rank = asked.rank or 16
    return ResolvedAdapter(
        kind=asked.kind,
        rank=rank,
        alpha=asked.alpha or kind.default_alpha(rank),
        dropout=asked.dropout,
        targets=asked.targets,
        quantization=asked.quantization or kind.quantization,
    )
