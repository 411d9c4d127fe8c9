from __future__ import annotations

import pytest
from tests.unit.training.conftest import Recorder

from terakoya.domain.events import EventType
from terakoya.training.engine import pace as pace_module
from terakoya.training.engine.batching import StepPlan
from terakoya.training.engine.checkpoint import Position
from terakoya.training.engine.pace import Pace

PLAN = StepPlan.of(rows=40, batch_size=4, seed=0, epochs=2, max_steps=None)


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
    take_steps(Pace(recorder, PLAN, Position()), clock, 1, seconds=2.0)
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
    pace = Pace(recorder, PLAN, Position())
    take_steps(pace, clock, 20, seconds=0.01)
    pace.flush()
    pace.flush()
    assert [event["step"] for event in recorder.of(EventType.STEP)] == [1, 20]


def test_a_resumed_run_counts_only_its_own_tokens(recorder: Recorder, clock: Clock) -> None:
    pace = Pace(recorder, PLAN, Position(step=10, trained_tokens=1000))
    clock.now = 2.0
    pace.step(Position(step=11, trained_tokens=1100), 2.0, loss=1.0, grad_norm=1.0, learning_rate=0.1)
    assert recorder.of(EventType.STEP)[0]["tokens_per_second"] == 50.0
