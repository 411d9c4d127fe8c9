"""A run on paper: micro-batches, steps, memory, time and disk, and what stands in its way. Pure arithmetic over the
facts of the data, the model's shape and the measured costs; starts nothing and reads nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from terakoya.data.lengths import Lengths
from terakoya.data.long_rows import LongRowReport, Span, label_tokens, pieces, report
from terakoya.training.defaults import ResolvedTraining
from terakoya.training.engine.batching import StepPlan, lane_count, lanes_of, micro_batches
from terakoya.training.engine.checkpoint_size import DiskNeed
from terakoya.training.engine.fit import (
    BatchShape,
    Costs,
    Fit,
    MemoryNeed,
    ModelShape,
    Trained,
    batch_shape,
    choose_fit,
    memory_costs,
    memory_need,
)
from terakoya.training.measurements import EarlierRun, Measured
from terakoya.training.objectives.methods import OBJECTIVES

_SIMULATED_STEPS = 400
"""Steps that are cut into micro-batches to see what an average one costs."""
_RECOMPUTED = {True: 4 / 3, False: 3 / 2}
"""What gradient checkpointing multiplies the time of a layer by: full training, an adapter."""
_JUDGED_SHARE = 0.4
"""A scored token costs about so much of a trained one."""
Row = tuple[int, int, tuple[Span, ...]]
"""Line number, tokens, label spans."""


@dataclass(frozen=True, slots=True)
class Machine:
    device: str
    available_bytes: int
    total_bytes: int
    free_disk_bytes: int


@dataclass(frozen=True, slots=True)
class Basis:
    """What estimates rest on."""

    shape: ModelShape
    trained: Trained
    measured: Measured | None
    earlier: EarlierRun | None

    @property
    def name(self) -> str:
        if self.earlier is not None:
            return "earlier_run"
        return "shape" if self.measured is None else "measured"

    def lanes(self, tokens_per_step: float) -> int:
        threads = 1 if self.measured is None else self.measured.lane_threads
        return lane_count(threads=threads, tokens_per_step=tokens_per_step)

    @property
    def bytes(self) -> Costs:
        return memory_costs(self.shape, self.trained) if self.measured is None else self.measured.bytes


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the steps are cut."""

    fit: Fit
    total_steps: int
    steps_per_epoch: int
    micro_batches_per_step: float
    batches: tuple[BatchShape, ...]
    """Of the simulated steps."""
    slowest: tuple[BatchShape, ...]
    """Of each of them the part that its last lane to finish computes."""
    lanes: int
    simulated_steps: int


@dataclass(frozen=True, slots=True)
class TimeNeed:
    seconds: float
    start_seconds: float
    training_seconds: float
    evaluation_seconds: float
    tokens_per_second: float

    def to_json(self) -> dict[str, float]:
        return {name: round(getattr(self, name), 1) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Finding:
    code: str
    message: str

    def to_json(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True, slots=True)
class Estimate:
    """Everything that is known of a run before it starts, but for the samples."""

    lengths: Lengths
    row_tokens: int
    longest: int
    trained_tokens: int
    heldout_rows: int
    long_rows: LongRowReport
    schedule: Schedule | None
    """None if nothing is left to train on."""
    replayed_rows: int
    """Of earlier tasks, among those of an epoch."""
    memory: MemoryNeed | None
    time: TimeNeed | None
    disk: DiskNeed


def rows_of(facts: Sequence[Sequence[Any]]) -> list[Row]:
    return [(number, length, tuple((low, high) for low, high in spans)) for number, length, spans in facts]


def estimate(
    resolved: ResolvedTraining,
    basis: Basis,
    machine: Machine,
    *,
    train: Sequence[Row],
    heldout: Sequence[Row],
    shared: int,
    train_rows: int,
    disk: DiskNeed,
    replayed: Sequence[Row] = (),
) -> Estimate:
    """``train_rows``: how many there are, of which ``train`` may be a sample; ``replayed``: rows of earlier tasks
    beside them, in the proportion they are to have.
    """
    encoding = OBJECTIVES.load(resolved.objective).encoding
    resolved = replace(resolved, batch_size=resolved.batch_size * encoding.rows_per_example)  # counted in rows here
    limit = encoding.limit(resolved.max_length, basis.shape.context)
    told = report(train, limit, resolved.long_rows)
    kept = train if resolved.long_rows == "refuse" else _kept(train, limit, resolved)
    if resolved.long_rows == "split" and told.rows:
        shared = 0  # a later piece of a row that was split does not begin as whole rows do
    scale = train_rows / max(len(train), 1)
    shown = [*kept, *replayed] if kept else []
    shared = 0 if replayed else shared  # rows of another task need not begin alike
    schedule = _schedule(resolved, basis, machine, shown, heldout, shared, round(len(shown) * scale)) if shown else None
    memory = None
    if schedule is not None:
        memory = memory_need(
            basis.shape,
            basis.trained,
            schedule.batches,
            gradient_checkpointing=schedule.fit.gradient_checkpointing,
            costs=basis.bytes,
            lanes=schedule.lanes,
            **({} if basis.measured is None else {"libraries_bytes": basis.measured.libraries_bytes}),
        )
    return Estimate(
        lengths=Lengths(length for _, length, _ in train),
        row_tokens=sum(length for _, length, _ in train),
        longest=max((length for _, length, _ in train), default=0),
        trained_tokens=sum(label_tokens(spans) for _, _, spans in kept),
        heldout_rows=len(heldout),
        long_rows=told,
        schedule=schedule,
        replayed_rows=round(len(replayed) * scale),
        memory=memory,
        time=None if schedule is None else _time(basis, schedule, _row_tokens(schedule, shown, scale), heldout),
        disk=disk,
    )


def _kept(rows: Sequence[Row], limit: int, resolved: ResolvedTraining) -> list[Row]:
    return [
        (number, part.end - part.start, part.label_spans)
        for number, length, spans in rows
        for part in pieces(length, spans, limit, resolved.long_rows)
    ]


def _schedule(
    resolved: ResolvedTraining,
    basis: Basis,
    machine: Machine,
    rows: Sequence[Row],
    heldout: Sequence[Row],
    shared: int,
    total_rows: int,
) -> Schedule:
    lengths = [length for _, length, _ in rows]
    labels = [label_tokens(spans) for _, _, spans in rows]
    longest = max(lengths + [length for _, length, _ in heldout])
    real = _plan(resolved, total_rows)
    sampled = _plan(resolved, len(rows))
    lanes = basis.lanes(sum(lengths) / max(sampled.steps_per_epoch, 1))
    fit = choose_fit(
        basis.shape,
        basis.trained,
        machine.available_bytes - _held_before(basis, lanes),
        longest=longest,
        gradient_checkpointing=resolved.gradient_checkpointing,
        device_type=machine.device,
        costs=basis.bytes,
    )
    shapes, slowest = [], []
    steps = min(_SIMULATED_STEPS, sampled.total_steps, sampled.steps_per_epoch)
    for step in range(1, steps + 1):
        for batch in micro_batches(sampled.rows_of(step), lengths, shared=shared, budget_tokens=fit.budget_tokens):
            parts = [
                batch_shape([lengths[row] for row in part], [labels[row] for row in part], shared=shared)
                for part in (batch, *lanes_of(batch, lengths, count=lanes))
            ]
            shapes.append(parts[0])
            slowest.append(max(parts[1:], key=lambda part: part.tokens))
    micro_batches_per_step = len(shapes) / steps
    return Schedule(
        fit,
        real.total_steps,
        real.steps_per_epoch,
        micro_batches_per_step,
        tuple(shapes),
        tuple(slowest),
        lanes,
        steps,
    )


def _plan(resolved: ResolvedTraining, rows: int) -> StepPlan:
    return StepPlan.of(
        rows=max(rows, 1),
        batch_size=resolved.batch_size,
        seed=resolved.seed,
        epochs=resolved.epochs,
        max_steps=resolved.max_steps,
    )


def _row_tokens(schedule: Schedule, rows: Sequence[Row], scale: float) -> float:
    epoch = sum(length for _, length, _ in rows) * scale
    return epoch * schedule.total_steps / max(schedule.steps_per_epoch, 1)


def _held_before(basis: Basis, lanes: int) -> int:
    """What is taken before the first micro-batch: libraries, weights, and optimizer and gradients still to come."""
    libraries = {} if basis.measured is None else {"libraries_bytes": basis.measured.libraries_bytes}
    need = memory_need(
        basis.shape, basis.trained, (), gradient_checkpointing=False, costs=basis.bytes, lanes=lanes, **libraries
    )
    return need.libraries + need.weights + need.optimizer


def _time(basis: Basis, schedule: Schedule, row_tokens: float, heldout: Sequence[Row]) -> TimeNeed | None:
    """``row_tokens``: of all rows of all steps, as if nothing were shared."""
    measured, earlier = basis.measured, basis.earlier
    again = earlier is not None and earlier.gradient_checkpointing == schedule.fit.gradient_checkpointing
    if earlier is not None and again:
        training = row_tokens * earlier.training_seconds / max(earlier.trained_tokens, 1)
    elif measured is not None:
        training = _training_seconds(measured, basis, schedule)
    else:
        return None
    start = earlier.start_seconds if earlier is not None else _start_seconds(measured, basis)
    evaluation = _evaluation_seconds(measured, earlier, heldout)
    return TimeNeed(start + training + evaluation, start, training, evaluation, row_tokens / max(training, 1e-9))


def _training_seconds(measured: Measured, basis: Basis, schedule: Schedule) -> float:
    """Return what the steps take by the measured costs alone."""
    work = sum(measured.seconds.of(batch) for batch in schedule.slowest) / schedule.simulated_steps
    if schedule.fit.gradient_checkpointing:
        work *= _RECOMPUTED[not basis.trained.is_adapter]
    return schedule.total_steps * (work + measured.update_seconds * basis.trained.parameters)


def _start_seconds(measured: Measured | None, basis: Basis) -> float:
    """Libraries, then weights at about a gigabyte a second, then the probes."""
    return (measured.start_seconds if measured is not None else 0.0) + basis.shape.parameters * 4 / 1e9 + 2.0


def _evaluation_seconds(measured: Measured | None, earlier: EarlierRun | None, heldout: Sequence[Row]) -> float:
    if earlier is not None and earlier.evaluated_rows:
        return earlier.evaluation_seconds / earlier.evaluated_rows * len(heldout)
    if measured is None:
        return 0.0
    batches = [batch_shape([length], [label_tokens(spans)], shared=0) for _, length, spans in heldout]
    return 2 * _JUDGED_SHARE * math.fsum(measured.seconds.of(batch) for batch in batches)
