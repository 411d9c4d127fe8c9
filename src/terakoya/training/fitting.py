"""How a run is made to fit the machine, attempt after attempt: chosen from free memory, kept in the task's directory,
and made smaller after an attempt that ran out of memory. Knows nothing of modules or steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from terakoya.domain.events import RESTARTED, EventType
from terakoya.exceptions import DoesNotFit
from terakoya.storage.files import read_tail, write_durably
from terakoya.storage.json_text import to_json
from terakoya.training.engine.fit import Fit
from terakoya.training.engine.memory_watch import low_water_bytes

_FILE, _EVENTS = "fit.json", "events.jsonl"
_LAST_EVENTS = 400
_KILLED = "signal 9"


@dataclass(frozen=True, slots=True)
class FitInForce:
    """What an attempt runs with."""

    attempt: int
    budget_tokens: int
    gradient_checkpointing: bool
    ran_low: bool = False
    """Memory ran low in that attempt."""


def fit_in_force(task_dir: Path) -> FitInForce | None:
    """Return that of the newest attempt, None before the first."""
    try:
        return FitInForce(**json.loads((task_dir / _FILE).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def keep_fit(task_dir: Path, fit: FitInForce) -> None:
    write_durably(task_dir / _FILE, to_json(asdict(fit)))


def next_fit(
    task_dir: Path, chosen: Fit, *, attempt: int, longest: int, may_recompute: bool
) -> tuple[FitInForce, FitInForce | None]:
    """Return what this attempt is to run with, and what the one before ran out of memory with, if it did.

    The first attempt takes what was chosen; a later one keeps what its predecessor had, so that it computes the same,
    unless that ran out of memory: then half the micro-batch, at last with activations recomputed.
    Raises: DoesNotFit if nothing is left to make smaller.
    """
    before = fit_in_force(task_dir)
    if before is None or before.attempt >= attempt:
        return FitInForce(attempt, chosen.budget_tokens, chosen.gradient_checkpointing), None
    same = replace(before, attempt=attempt, ran_low=False)
    if not (before.ran_low or was_killed_short_of_memory(task_dir, before.attempt)):
        return same, None
    return _smaller(same, longest=longest, may_recompute=may_recompute), before


def can_be_smaller(fit: FitInForce, *, longest: int, may_recompute: bool) -> bool:
    return fit.budget_tokens > longest or (may_recompute and not fit.gradient_checkpointing)


def _smaller(fit: FitInForce, *, longest: int, may_recompute: bool) -> FitInForce:
    if fit.budget_tokens > longest:
        return replace(fit, budget_tokens=max(fit.budget_tokens // 2, longest))
    if may_recompute and not fit.gradient_checkpointing:
        return replace(fit, gradient_checkpointing=True)
    raise DoesNotFit(does_not_fit_text(longest))


def does_not_fit_text(longest: int) -> str:
    return (
        f"memory does not suffice for the longest row, {longest:,} tokens, even alone; a smaller max_length with "
        "long_rows 'truncate' or 'split', LoRA instead of full, a smaller model or fewer other programs would work"
    )


def was_killed_short_of_memory(task_dir: Path, attempt: int) -> bool:
    """Whether the attempt was killed, and the last that was heard of the machine is that memory was short."""
    killed, available = False, None
    for event in _last_events(task_dir):
        if event.get("attempt") != attempt:
            continue
        if event.get("type") == EventType.RESOURCES:
            available = event.get("available_bytes")
        if event.get("type") == EventType.WARNING and event.get("code") == RESTARTED:
            killed = _KILLED in str(event.get("reason"))
    return killed and isinstance(available, int) and available < 2 * low_water_bytes()


def _last_events(task_dir: Path) -> Iterable[dict[str, Any]]:
    for line in read_tail(task_dir / _EVENTS, lines=_LAST_EVENTS).splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # the first line of the tail, or a torn last one
            continue
        if isinstance(event, dict):
            yield event
