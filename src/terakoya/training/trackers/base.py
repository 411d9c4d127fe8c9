"""The contract of a tracker. Knows no program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from terakoya.domain.events import EventType


class Ending(StrEnum):
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"
    """Cancelled or paused; it may go on."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    task_id: str
    name: str
    task_dir: Path
    attempt: int
    mlflow_uri: str | None
    settings: Mapping[str, Any]
    """The resolved configuration, with the names of model and dataset."""


class Tracker(ABC):
    """Gets the events of one attempt of a run, in a thread of its own."""

    @abstractmethod
    def __init__(self, run: TrackedRun) -> None:
        """Open what is written to; a later attempt goes on where the last one stopped."""

    @abstractmethod
    def take(self, type: EventType, fields: Mapping[str, Any]) -> None:
        """Write what an event holds; anything may be raised, and then no more events come."""

    @abstractmethod
    def close(self, ending: Ending) -> None: ...


def metrics_of(type: EventType, fields: Mapping[str, Any]) -> tuple[int | None, dict[str, float]]:
    """Return an event's step and its figures by name; figures without a step are of the run as a whole."""
    if type is EventType.STEP:
        names = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "epoch")
        return fields["step"], {f"train/{name}": float(fields[name]) for name in names if fields.get(name) is not None}
    if type is EventType.EVAL and fields.get("loss") is not None:
        if fields["when"] == "during":
            return fields["step"], {"heldout/loss": float(fields["loss"])}
        whole = {name: fields.get(name) for name in ("loss", "exact_match")}
        return None, {
            f"heldout/{name}_{fields['when']}": float(value) for name, value in whole.items() if value is not None
        }
    if type is EventType.CANARY and fields["when"] == "during":
        return fields["step"], {f"earlier_tasks/{name}": float(fields[name]) for name in ("kl", "strength")}
    if type is EventType.CANARY:
        name = f"general_text/{fields['language']}_bits_per_byte_{fields['when']}"
        return None, {name: float(fields["bits_per_byte"])}
    return None, {}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as ``group.name``."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        result |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return result
