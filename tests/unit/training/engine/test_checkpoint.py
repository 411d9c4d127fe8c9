from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from terakoya.exceptions import StorageFull
from terakoya.training.engine import checkpoint
from terakoya.training.engine.checkpoint import Checkpoints, Position
from terakoya.training.engine.loop import make_optimizer

Parameters = dict[str, nn.Parameter]


def some_parameters(seed: int = 0) -> Parameters:
    drawn = torch.Generator().manual_seed(seed)
    return {name: nn.Parameter(torch.randn(3, 4, generator=drawn)) for name in ("layer/a.weight", "b")}


def take_step(parameters: Parameters, optimizer: torch.optim.Optimizer) -> None:
    for parameter in parameters.values():
        parameter.grad = torch.full_like(parameter, 0.5) * parameter.detach()
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.step()


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", fingerprint="as configured")


def trained(checkpoints: Checkpoints, steps: int) -> tuple[Parameters, torch.optim.Optimizer]:
    parameters = some_parameters()
    optimizer = make_optimizer(parameters, weight_decay=0.0)
    for step in range(1, steps + 1):
        take_step(parameters, optimizer)
        checkpoints.save(Position(step=step, budget_tokens=99), parameters, optimizer)
    return parameters, optimizer


def test_what_is_restored_goes_on_bit_for_bit(checkpoints: Checkpoints) -> None:
    parameters, optimizer = trained(checkpoints, 2)
    restored = some_parameters(seed=1)
    restored_optimizer = make_optimizer(restored, weight_decay=0.0)
    assert checkpoints.restore(restored, restored_optimizer) == Position(step=2, budget_tokens=99)
    take_step(parameters, optimizer)
    take_step(restored, restored_optimizer)
    assert all(torch.equal(parameters[name], restored[name]) for name in parameters)


def test_only_the_newest_two_are_kept(checkpoints: Checkpoints, tmp_path: Path) -> None:
    trained(checkpoints, 4)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-3", "step-4"]


def test_files_are_safetensors_and_json_only(checkpoints: Checkpoints, tmp_path: Path) -> None:
    trained(checkpoints, 1)
    suffixes = {path.suffix for path in (tmp_path / "checkpoints" / "step-1").iterdir()}
    assert suffixes == {".safetensors", ".json"}


def spoil_a_bit(path: Path) -> None:
    weights = bytearray((path / "trained.safetensors").read_bytes())
    weights[-1] ^= 1
    (path / "trained.safetensors").write_bytes(weights)


def remove_the_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def cut_the_optimizer(path: Path) -> None:
    (path / "optimizer.safetensors").write_bytes(b"")


@pytest.mark.parametrize("damage", [spoil_a_bit, remove_the_manifest, cut_the_optimizer])
def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(
    checkpoints: Checkpoints, tmp_path: Path, damage: object
) -> None:
    trained(checkpoints, 3)
    damage(tmp_path / "checkpoints" / "step-3")  # type: ignore[operator]
    parameters = some_parameters()
    skipped: list[tuple[str, str]] = []
    position = checkpoints.restore(
        parameters, make_optimizer(parameters, weight_decay=0.0), on_skip=lambda *told: skipped.append(told)
    )
    assert position is not None
    assert position.step == 2
    [(name, reason)] = skipped
    assert name == "step-3"
    assert reason.startswith("it is damaged")


def test_a_half_written_one_is_not_seen_and_does_not_hinder(checkpoints: Checkpoints, tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-1.tmp").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-1.tmp" / "trained.safetensors").write_bytes(b"torn")
    parameters = some_parameters()
    optimizer = make_optimizer(parameters, weight_decay=0.0)
    assert checkpoints.restore(parameters, optimizer) is None
    trained(checkpoints, 1)
    assert checkpoints.restore(parameters, optimizer) is not None


def test_another_configurations_checkpoint_is_not_resumed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    trained(checkpoints, 1)
    other = Checkpoints(tmp_path / "checkpoints", fingerprint="another")
    parameters = some_parameters()
    assert other.restore(parameters, make_optimizer(parameters, weight_decay=0.0)) is None


def test_a_full_disk_is_named_and_the_half_written_checkpoint_removed(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    parameters, optimizer = trained(checkpoints, 1)
    monkeypatch.setattr(checkpoint, "save_file", half)
    with pytest.raises(StorageFull, match="free some space"):
        checkpoints.save(Position(step=2), parameters, optimizer)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-1"]
