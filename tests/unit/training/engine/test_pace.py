from __future__ import annotations

import pytest
from tests.unit.training.conftest import Recorder

from terakoya.domain.events import EventType
from terakoya.training.engine import pace as pace_module
from terakoya.training.engine.batching import StepPlan
from terakoya.training.engine.checkpoint import Position
from terakoya.training.engine.pace import Pace

PLAN = StepPlan.of(rows=40, batch_size=4, seed=0, epochs=2, max_steps=None)
LENGTHS = [25] * 40


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace_module, "time", clock)
    return clock


def take_steps(pace: Pace, clock: Clock, count: int, *, seconds: float) -> None:
    for step in range(1, count + 1):
        clock.now += seconds
        position = Position(step=step, trained_tokens=100 * step)
        pace.step(position, seconds, loss=1.0 / step, grad_norm=2.0, learning_rate=0.1)


def test_a_step_event_has_every_field_of_the_vocabulary(recorder: Recorder, clock: Clock) -> None:
    take_steps(Pace(recorder, PLAN, Position(), LENGTHS), clock, 1, seconds=2.0)
    assert recorder.of(EventType.STEP) == [
        {
            "step": 1,
            "total_steps": 20,
            "epoch": 0.1,
            "loss": 1.0,
            "learning_rate": 0.1,
            "grad_norm": 2.0,
            "tokens_per_second": 50.0,
            "eta_seconds": 38.0,
        }
    ]


def test_fast_steps_are_told_five_times_a_second_and_the_last_always(recorder: Recorder, clock: Clock) -> None:
    pace = Pace(recorder, PLAN, Position(), LENGTHS)
    take_steps(pace, clock, 20, seconds=0.01)
    pace.flush()
    pace.flush()
    assert [event["step"] for event in recorder.of(EventType.STEP)] == [1, 20]


def test_a_resumed_run_counts_only_its_own_tokens(recorder: Recorder, clock: Clock) -> None:
    pace = Pace(recorder, PLAN, Position(step=10, trained_tokens=1000), LENGTHS)
    clock.now = 2.0
    pace.step(Position(step=11, trained_tokens=1100), 2.0, loss=1.0, grad_norm=1.0, learning_rate=0.1)
    assert recorder.of(EventType.STEP)[0]["tokens_per_second"] == 50.0


@pytest.mark.parametrize("total", [20, 13, 4])
def test_the_time_left_is_that_of_the_tokens_left(recorder: Recorder, clock: Clock, total: int) -> None:
    lengths = [10 + 7 * (row % 5) ** 2 for row in range(40)]
    plan = StepPlan.of(rows=40, batch_size=4, seed=3, epochs=None, max_steps=total)
    pace = Pace(recorder, plan, Position(), lengths)
    done = 0
    for step in range(1, total + 1):
        tokens = sum(lengths[row] for row in plan.rows_of(step))
        done += tokens
        clock.now += 1.0
        position = Position(step=step, trained_tokens=done)
        pace.step(position, tokens / 100, loss=1.0, grad_norm=1.0, learning_rate=0.1)
    left = [event["eta_seconds"] for event in recorder.of(EventType.STEP)]
    steps = [sum(lengths[row] for row in plan.rows_of(step)) for step in range(1, total + 1)]
    assert left == pytest.approx([sum(steps[step:]) / 100 for step in range(1, total + 1)], abs=0.06)
