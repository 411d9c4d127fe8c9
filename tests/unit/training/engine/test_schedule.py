from __future__ import annotations

import math

import pytest

from terakoya.training.engine.schedule import Schedule


def test_warm_up_rises_linearly_to_the_peak() -> None:
    schedule = Schedule(peak=1e-3, total_steps=100, warmup=0.05)
    assert [schedule.rate(step) for step in range(1, 6)] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3])


def test_cosine_is_half_the_peak_in_the_middle_and_near_zero_at_the_end() -> None:
    schedule = Schedule(peak=2.0, total_steps=100, warmup=0.0)
    assert schedule.rate(1) == 2.0
    assert schedule.rate(51) == pytest.approx(1.0)
    assert schedule.rate(100) == pytest.approx(1 + math.cos(math.pi * 0.99))
    assert 0 < schedule.rate(100) < 0.001


def test_linear_falls_evenly_and_constant_stays() -> None:
    linear = Schedule(peak=1.0, total_steps=4, warmup=0.0, kind="linear")
    assert [linear.rate(step) for step in range(1, 5)] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    constant = Schedule(peak=1.0, total_steps=4, warmup=0.25, kind="constant")
    assert [constant.rate(step) for step in range(1, 5)] == [1.0] * 4


def test_a_single_step_is_taken_at_the_peak() -> None:
    assert Schedule(peak=0.5, total_steps=1, warmup=0.05).rate(1) == 0.5
