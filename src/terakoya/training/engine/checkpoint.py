"""Checkpoints of a run: trained weights, optimizer and position as safetensors and JSON in ``step-N`` folders that
appear whole or not at all. Knows nothing of how the run computes.

There is no random state to keep: data order and every step's seed follow from (seed, step).
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from terakoya.exceptions import AppException, TrainingError
from terakoya.storage.files import full_disk_is_named, sync_directory, write_durably
from terakoya.storage.json_text import to_json
from terakoya.storage.manifest import MANIFEST, verify_manifest, write_manifest
from terakoya.training.engine.checkpoint_size import KEPT_CHECKPOINTS

_NAME = re.compile(r"step-(\d+)")
_WEIGHTS, _OPTIMIZER, _STATE = "trained.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands between two steps."""

    step: int = 0
    """Optimizer steps taken."""
    budget_tokens: int | None = None
    """The micro-batch budget in force: it shapes rounding, so a resumed run keeps it."""
    gradient_checkpointing: bool = False
    """Whether activations are recomputed, which shapes rounding too."""
    trained_tokens: int = 0
    training_seconds: float = 0.0
    retention_strength: float | None = None
    """The lambda in force, where a forgetting budget steers it."""
    retention_step: int = 0
    """The step after which it was last measured."""
    watching_seconds: float = 0.0
    """Spent on evaluations and samples between steps."""
    evaluated_step: int = 0
    """The last step after which held-out rows were scored."""
    best_step: int | None = None
    """Under early stopping: the step with the lowest held-out loss; its checkpoint is kept."""
    best_loss: float | None = None
    evaluations_since_best: int = 0


class Unusable(Exception):
    """A checkpoint that is not gone on from, with the reason. Never leaves this module."""


class Checkpoints:
    def __init__(self, directory: Path, *, fingerprint: str) -> None:
        """``fingerprint`` tells the run's configuration; a checkpoint with another one is not resumed from."""
        self._directory = directory
        self._fingerprint = fingerprint

    def save(
        self, position: Position, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer
    ) -> tuple[Path, int]:
        """Write ``step-N`` durably and drop all but the newest and the best; return it and its size.

        Raises: StorageFull.
        """
        final = self._directory / f"step-{position.step}"
        temporary = self._directory / f"step-{position.step}.tmp"
        with full_disk_is_named(final):
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                temporary.mkdir(parents=True)
                _save_tensors({name: _plain(parameter) for name, parameter in parameters.items()}, temporary / _WEIGHTS)
                _save_tensors(_moments(parameters, optimizer), temporary / _OPTIMIZER)
                write_durably(temporary / _STATE, to_json(asdict(position) | {"fingerprint": self._fingerprint}))
                write_manifest(temporary)
                shutil.rmtree(final, ignore_errors=True)
                temporary.replace(final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)  # what a full disk has no room for
            sync_directory(self._directory)
        for step, old in self._all()[KEPT_CHECKPOINTS:]:
            if step != position.best_step:
                shutil.rmtree(old, ignore_errors=True)
        return final, sum(path.stat().st_size for path in final.iterdir())

    def restore(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: Optimizer,
        *,
        on_skip: Callable[[str, str], None] | None = None,
    ) -> Position | None:
        """Load the newest checkpoint that verifies into weights and optimizer; None if there is none.

        ``on_skip`` is told the name of each that does not, and why.
        """
        for _, path in self._all():
            try:
                position = self._verify(path)
            except Unusable as error:
                if on_skip is not None:
                    on_skip(path.name, str(error))
                continue
            _load(path, parameters, optimizer)
            return position
        return None

    def load_weights(self, step: int, parameters: Mapping[str, nn.Parameter]) -> None:
        """Load the trained weights of that step's checkpoint. Raises: TrainingError if it is not there or damaged."""
        path = self._directory / f"step-{step}"
        try:
            self._verify(path)
        except Unusable as error:
            raise TrainingError(
                f"the checkpoint of step {step}, which is to be kept, cannot be used: {error}"
            ) from error
        _load_weights(path, parameters)

    def _all(self) -> list[tuple[int, Path]]:
        """Newest first."""
        if not self._directory.is_dir():
            return []
        found = [(_NAME.fullmatch(path.name), path) for path in self._directory.iterdir()]
        return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)

    def _verify(self, path: Path) -> Position:
        """Raises: Unusable."""
        try:
            manifest = (path / MANIFEST).read_bytes()
            verify_manifest(path, hashlib.sha256(manifest).hexdigest())
            state: dict[str, Any] = json.loads((path / _STATE).read_bytes())
            fingerprint = state.pop("fingerprint")
            position = Position(**state)
        except (OSError, ValueError, KeyError, TypeError, AppException) as error:
            raise Unusable(f"it is damaged ({error})") from error
        if fingerprint != self._fingerprint:
            raise Unusable("it is of another configuration, model or dataset")
        return position


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Raises: OSError, also where the library has its own error for a full disk."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        if "os error 28" in str(error):
            raise OSError(errno.ENOSPC, str(error)) from error
        raise


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _moments(parameters: Mapping[str, nn.Parameter], optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors as ``name/key``; names come last in no key, so the split is unambiguous."""
    state = optimizer.state
    return {
        f"{key}/{name}": _plain(cast(Tensor, value))
        for name, parameter in parameters.items()
        for key, value in state.get(parameter, {}).items()
    }


def _load_weights(path: Path, parameters: Mapping[str, nn.Parameter]) -> None:
    weights = load_file(path / _WEIGHTS)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def _load(path: Path, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer) -> None:
    _load_weights(path, parameters)
    order = {name: number for number, name in enumerate(parameters)}
    state: dict[int, dict[str, Tensor]] = {}
    for compound, value in load_file(path / _OPTIMIZER).items():
        key, _, name = compound.partition("/")
        state.setdefault(order[name], {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
