"""The answer of ``POST /api/train/plan``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class Named(BaseModel):
    id: str
    name: str


class PlanFinding(BaseModel):
    code: str
    message: str


class LengthBin(BaseModel):
    start: int
    end: int
    """Past the last length in it."""
    rows: int


class PlanTokens(BaseModel):
    exact: bool
    """False: of a random sample."""
    rows: int
    heldout_rows: int
    total: int
    trained: int
    p50: int
    p95: int
    p99: int
    max: int
    histogram: list[LengthBin]


class PlanLongRows(BaseModel):
    limit: int
    policy: str
    rows: int
    dropped: int
    pieces: int
    lost_tokens: int
    """Of the answers; under "refuse", what cutting would lose."""
    lost_share: float
    numbers: list[int]
    """Line numbers of the first ones."""
    lengthen_to: int
    """A max_length that takes all of them, up to what the model reads."""


class PlanSteps(BaseModel):
    total: int
    per_epoch: int
    micro_batch_tokens: int
    micro_batches: float
    """For each step, on average: gradients are accumulated over so many."""
    gradient_checkpointing: bool
    trained_parameters: int
    replayed_rows: int
    """Rows of earlier tasks of the chain among those of an epoch."""


class PlanMemory(BaseModel):
    """Bytes."""

    libraries: int
    weights: int
    optimizer: int
    activations: int
    peak: int
    available: int
    total: int


class PlanTime(BaseModel):
    seconds: float
    start_seconds: float
    training_seconds: float
    evaluation_seconds: float
    tokens_per_second: float


class PlanDisk(BaseModel):
    checkpoints_bytes: int
    result_bytes: int
    link_bytes: int
    """What the run leaves in its chain; 0 if it is part of none."""
    needed_bytes: int
    free_bytes: int


class TokenText(BaseModel):
    text: str
    trained: bool


class RenderedSample(BaseModel):
    row: int
    tokens: int
    trained_tokens: int
    beginning: list[TokenText]
    omitted_tokens: int
    end: list[TokenText]


class TrainingPlan(BaseModel):
    ready: bool
    problems: list[PlanFinding]
    warnings: list[PlanFinding]
    model: Named
    dataset: Named
    resolved: dict[str, Any]
    basis: Literal["shape", "measured", "earlier_run"]
    """What memory and time rest on: the model's shape alone, costs measured here, or an earlier run as well."""
    device: str
    compute_type: str | None
    tokens: PlanTokens
    long_rows: PlanLongRows
    steps: PlanSteps | None
    memory: PlanMemory | None
    time: PlanTime | None
    disk: PlanDisk
    samples: list[RenderedSample]
