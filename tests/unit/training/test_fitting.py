from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from terakoya.exceptions import DoesNotFit
from terakoya.training.engine.fit import Fit
from terakoya.training.fitting import FitInForce, fit_in_force, keep_fit, next_fit

CHOSEN = Fit(budget_tokens=2048, gradient_checkpointing=False, is_tight=False)


def after(folder: Path, *, attempt: int = 2, longest: int = 300, may_recompute: bool = True) -> FitInForce:
    return next_fit(folder, CHOSEN, attempt=attempt, longest=longest, may_recompute=may_recompute)[0]


def died_low(folder: Path, fit: FitInForce) -> None:
    keep_fit(folder, replace(fit, ran_low=True))


def test_the_first_attempt_takes_what_was_chosen(tmp_path: Path) -> None:
    assert after(tmp_path, attempt=1) == FitInForce(1, 2048, False)


def test_a_later_attempt_computes_as_its_predecessor_did(tmp_path: Path) -> None:
    keep_fit(tmp_path, FitInForce(1, 700, True))
    assert after(tmp_path) == FitInForce(2, 700, True)


def test_each_death_for_want_of_memory_takes_something_away_until_nothing_is_left(tmp_path: Path) -> None:
    fit = after(tmp_path, attempt=1)
    seen = []
    for attempt in range(2, 7):
        died_low(tmp_path, fit)
        fit = after(tmp_path, attempt=attempt)
        seen.append((fit.budget_tokens, fit.gradient_checkpointing))
        keep_fit(tmp_path, fit)
        if fit.gradient_checkpointing:
            break
    assert seen == [(1024, False), (512, False), (300, False), (300, True)]
    died_low(tmp_path, fit)
    with pytest.raises(DoesNotFit, match="longest row, 300 tokens"):
        after(tmp_path, attempt=6)
    assert fit_in_force(tmp_path) is not None


def test_without_leave_to_recompute_one_row_is_the_end(tmp_path: Path) -> None:
    died_low(tmp_path, FitInForce(1, 300, False))
    with pytest.raises(DoesNotFit):
        after(tmp_path, may_recompute=False)


@pytest.mark.parametrize(
    ("available", "reason", "budget"),
    [
        (10_000_000, "the training process died (signal 9: killed)", 1024),
        (10_000_000, "the training process died (signal 11)", 2048),
        (10**13, "the training process died (signal 9: killed)", 2048),
    ],
)
def test_a_kill_while_memory_was_short_counts_as_one_for_want_of_it(
    tmp_path: Path, available: int, reason: str, budget: int
) -> None:
    keep_fit(tmp_path, FitInForce(1, 2048, False))
    events = [
        {"type": "resources", "attempt": 1, "available_bytes": available},
        {"type": "warning", "code": "restarted", "attempt": 1, "reason": reason},
    ]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"torn')
    assert after(tmp_path).budget_tokens == budget


def test_a_damaged_file_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "fit.json").write_text("{")
    assert after(tmp_path) == FitInForce(2, 2048, False)
