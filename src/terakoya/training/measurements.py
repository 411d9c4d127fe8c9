"""What has been measured of training on this machine: costs of a micro-batch, and how earlier runs really went. Kept
as small files in the data folder, by what they depend on; knows neither torch nor the database.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from terakoya.storage.files import write_durably
from terakoya.storage.json_text import to_json
from terakoya.training.defaults import ResolvedTraining
from terakoya.training.engine.fit import Costs

_VERSION = 2


@dataclass(frozen=True, slots=True)
class Measured:
    """By ``measuring.py``."""

    device: str
    compute_type: str
    gflops: float
    libraries_bytes: int
    """Of the process before it has loaded a model."""
    start_seconds: float
    """Until the libraries were loaded."""
    update_seconds: float
    """Of one optimizer step, for each trained parameter."""
    lane_threads: int
    """Threads that may each take rows of a step; 1 where the model's code leaves a step whole."""
    bytes: Costs
    seconds: Costs
    """Of the largest part of a micro-batch that is cut into lanes."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        costs = {name: Costs.from_json(found[name]) for name in ("bytes", "seconds")}
        return cls(**{field.name: found[field.name] for field in fields(cls)} | costs)


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """How the newest run with the same model and method went."""

    training_seconds: float
    trained_tokens: int
    """Of its rows, as if nothing were shared."""
    gradient_checkpointing: bool
    start_seconds: float
    """From the process' start to the first step."""
    evaluation_seconds: float
    evaluated_rows: int

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        return cls(**{field.name: found[field.name] for field in fields(cls)})


class Measurements:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def measured(self, key: str) -> Measured | None:
        found = self._read(f"{key}.costs.json")
        try:
            return None if found is None else Measured.from_json(found)
        except (KeyError, TypeError):  # written by another version
            return None

    def keep_measured(self, key: str, measured: Measured) -> None:
        self._write(f"{key}.costs.json", measured.to_json())

    def earlier_run(self, key: str) -> EarlierRun | None:
        found = self._read(f"{key}.run.json")
        try:
            return None if found is None else EarlierRun.from_json(found)
        except (KeyError, TypeError):
            return None

    def keep_run(self, key: str, run: EarlierRun) -> None:
        self._write(f"{key}.run.json", asdict(run))

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self._folder / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return found

    def _write(self, name: str, found: dict[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_durably(self._folder / name, to_json(found, indent=1))


def measurement_key(model_sha256: str, resolved: ResolvedTraining, threads: int) -> str:
    """Name what costs depend on: weights' shapes, method, threads and library; not data, rate or steps."""
    method = {
        "version": _VERSION,
        "model": model_sha256,
        "strategy": resolved.strategy,
        "adapter": None if resolved.adapter is None else asdict(resolved.adapter),
        "objective": resolved.objective,
        "threads": threads,
        "torch": metadata.version("torch"),
    }
    return hashlib.sha256(to_json(method)).hexdigest()[:32]
