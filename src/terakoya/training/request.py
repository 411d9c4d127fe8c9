"""What a person may ask of a training run, with the bounds of every field. Knows nothing of models, data or
defaults: ``defaults.py`` fills those in.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from terakoya.config import MAX_HOURS, MAX_NO_PROGRESS_MINUTES, MAX_RESTARTS, MIN_NO_PROGRESS_MINUTES
from terakoya.data.long_rows import LongRows
from terakoya.domain.tasks import MAX_PRIORITY, MIN_PRIORITY, NORMAL_PRIORITY
from terakoya.training.adapters import ADAPTERS
from terakoya.training.methods import STRATEGIES
from terakoya.training.objectives.methods import OBJECTIVES

Reference = Annotated[str, Field(min_length=1, max_length=200)]
ModuleName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\w[\w.]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AdapterRequest(_Strict):
    kind: Annotated[str, Field(max_length=100)] = "lora"
    rank: int | None = Field(default=None, ge=1, le=1024)
    alpha: float | None = Field(default=None, gt=0, le=8192)
    """The update is scaled by alpha / rank; by default alpha is twice the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | Annotated[tuple[ModuleName, ...], Field(min_length=1, max_length=64)] = (
        "all-linear"
    )
    """Which linear layers get an adapter: all but the LM head, or these names."""
    quantization: Literal["nf4"] | None = None
    """Of the frozen base; ``nf4`` is QLoRA's 4-bit NormalFloat, by bitsandbytes. Kind ``qlora`` means it."""

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, value: str) -> str:
        if value not in ADAPTERS:
            raise ValueError(f"unknown adapter kind {value!r}; available: {', '.join(ADAPTERS)}")
        return value


class ScheduleRequest(_Strict):
    kind: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the steps over which the learning rate rises from zero."""
    checkpoint_minutes: float = Field(default=10.0, gt=0, le=1440)
    """A checkpoint is written at least so often, at every epoch's end, and when the run is cancelled."""


class EvaluationRequest(_Strict):
    heldout_fraction: float = Field(default=0.1, gt=0, le=0.5)
    """Split off when the dataset names no held-out rows itself."""
    max_examples: int = Field(default=500, ge=1, le=100_000)
    """At most so many held-out rows are scored."""
    max_new_tokens: int | None = Field(default=None, ge=1, le=4096)
    """Length of the answers shown; by default somewhat longer than the longest reference."""
    every_steps: int | None = Field(default=None, ge=1, le=10_000_000)
    """While it trains, some held-out rows are scored after so many steps; by default as often as costs little."""
    every_fraction: float | None = Field(default=None, gt=0, le=1)
    """The same as a share of the run; instead of ``every_steps``, not beside it."""
    during_examples: int | None = Field(default=None, ge=1, le=100_000)
    """At most so many held-out rows are scored each time; by default as many as cost little."""
    sample_tokens: int | None = Field(default=None, ge=1, le=1024)
    """Length of the answers written from fixed prompts while it trains."""


class EarlyStoppingRequest(_Strict):
    """Stop when the loss on held-out rows has stopped falling, and keep the weights that had the lowest."""

    patience: int = Field(default=3, ge=1, le=1000)
    """So many evaluations in a row without a better loss."""
    min_delta: float = Field(default=0.0, ge=0, le=100)
    """By how much a loss must be lower to count as better."""


TrackerName = Literal["tensorboard", "mlflow"]
Prompt = Annotated[str, Field(min_length=1, max_length=4000)]


class LimitsRequest(_Strict):
    """What is left out is the server's; a run may ask for less time than the server allows, not for more."""

    max_hours: float | None = Field(default=None, gt=0, le=MAX_HOURS)
    """The run is stopped, with a checkpoint, when it has worked for so long over all its attempts."""
    no_progress_minutes: float | None = Field(default=None, ge=MIN_NO_PROGRESS_MINUTES, le=MAX_NO_PROGRESS_MINUTES)
    """Its process is killed, and started again, after so long without a sign of life."""
    max_restarts: int | None = Field(default=None, ge=0, le=MAX_RESTARTS)
    """So often in a row it is started again when its process died; a new checkpoint in between begins a new row."""


class RegulariserRequest(_Strict):
    """Online EWC: a penalty on moving weights that earlier tasks depend on."""

    strength: float | None = Field(default=None, ge=0, le=1e12)
    """A fixed lambda, 0 for no penalty; instead of a budget, not beside it."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """How much of the earlier tasks' importance is kept with each new task."""
    sequences: int = Field(default=256, ge=1, le=4096)
    """Training rows from which importance is estimated at the end."""


class ReplayRequest(_Strict):
    """Rows of each task that are kept and shown again."""

    share: float = Field(default=0.05, ge=0, le=1)
    """Of the training rows, every answer before any twice; 0 keeps no data of this task."""
    mix: float = Field(default=0.25, ge=0, le=0.9)
    """Share of earlier tasks' rows among the rows of an epoch; 0 shows none."""
    soft_targets: bool | None = None
    """Keep what the model says of each label, and learn from that; by default where rows are kept."""
    top_k: int = Field(default=64, ge=1, le=1024)
    """Likeliest tokens kept of each label; all others are kept as one probability."""
    max_megabytes: int = Field(default=64, ge=1, le=4096)
    generate: int = Field(default=0, ge=0, le=4096)
    """Rows that the model writes itself before it learns, if the tasks before have none left; 0 writes none."""


class RetentionRequest(_Strict):
    regulariser: RegulariserRequest = RegulariserRequest()
    replay: ReplayRequest = ReplayRequest()
    heldout_rows: int | None = Field(default=None, ge=0, le=10_000)
    """Held-out rows kept with the task so that later tasks can be scored on them; by default 200, and none where
    ``replay.share`` is 0, which says that no data of it may be kept."""
    budget: float | None = Field(default=None, gt=0, le=100)
    """How much worse, in nats a label, earlier tasks' rows may become; lambda is calibrated and steered by it."""
    general_budget: float | None = Field(default=None, gt=0, le=100)
    """How much worse, in nats a token, general text may become before lambda rises; left out, it is only shown."""


class TrainingRequest(_Strict):
    """Every field but the first two has a default that follows the model's size. Unknown fields are an error."""

    model: Reference
    dataset: Reference
    preset: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """A named set of settings (``presets.py``); what the request says itself goes before it."""
    strategy: Annotated[str, Field(max_length=100)] = "lora"
    adapter: AdapterRequest | None = None
    objective: Annotated[str, Field(max_length=100)] | None = None
    """By default what the data set is for: conversations are learned supervised, text as text, preferences by DPO."""
    objective_settings: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=40)], float], Field(max_length=16)
    ] = {}
    """Numbers that only some objectives have, such as ``beta``; ``GET /api/train/options`` lists them."""
    epochs: int | None = Field(default=None, ge=1, le=1000)
    max_steps: int | None = Field(default=None, ge=1, le=10_000_000)
    """Optimizer steps; instead of ``epochs``, not beside it."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    batch_size: int | None = Field(default=None, ge=1, le=65_536)
    """Examples per optimizer step, whatever fits into memory at once."""
    max_length: int | None = Field(default=None, ge=8, le=1_048_576)
    """Tokens of a row. By default the longest row fits, up to the model's context."""
    long_rows: LongRows = "refuse"
    """What becomes of longer rows: the run is refused, they are left out, cut at the end, or split into pieces."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute activations to save memory; by default where the run would not fit otherwise."""
    schedule: ScheduleRequest = ScheduleRequest()
    evaluation: EvaluationRequest = EvaluationRequest()
    early_stopping: EarlyStoppingRequest | None = None
    sample_prompts: Annotated[tuple[Prompt, ...], Field(min_length=1, max_length=5)] | None = None
    """Answered at each evaluation while it trains; by default two held-out rows are."""
    trackers: Annotated[tuple[TrackerName, ...], Field(max_length=2)] = ()
    """Programs besides our own page that get the run's curves."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    name: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """Of the model that comes out; by default made from dataset and strategy."""
    priority: int = Field(default=NORMAL_PRIORITY, ge=MIN_PRIORITY, le=MAX_PRIORITY)
    """In the queue: the higher starts first."""
    limits: LimitsRequest = LimitsRequest()
    base: Literal["lora", "full"] | None = None
    """What strategy ``ewc`` trains: an adapter (default) or every weight."""
    retention: RetentionRequest | None = None
    """How strategy ``ewc`` keeps what earlier tasks taught."""
    after: Reference | None = None
    """A model that strategy ``ewc`` made: the run goes on from it, as the next task of its chain."""

    @field_validator("trackers")
    @classmethod
    def _named_once(cls, value: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each tracker can be named once")
        return value

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, value: str | None) -> str | None:
        if value is not None and value not in OBJECTIVES:
            raise ValueError(f"unknown objective {value!r}; available: {', '.join(OBJECTIVES)}")
        return value

    @field_validator("strategy")
    @classmethod
    def _registered(cls, value: str) -> str:
        if value not in STRATEGIES:
            raise ValueError(f"unknown strategy {value!r}; available: {', '.join(STRATEGIES)}")
        return value

    @model_validator(mode="after")
    def _continual_learning_is_ewc(self) -> Self:
        given = [name for name in ("base", "retention", "after") if getattr(self, name) is not None]
        if given and self.strategy != "ewc":
            raise ValueError(f"{given[0]!r} belongs to strategy 'ewc'; this run has strategy {self.strategy!r}")
        return self
