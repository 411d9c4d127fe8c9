"""scripts/install_torch.py with a recorded command runner: only pip and the GPU are imagined."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_torch", ROOT / "scripts" / "install_torch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


install_torch = _load()
PINNED = install_torch.TORCH_VERSION


class Machine:
    """Records what would be run; pip's answers are given."""

    def __init__(
        self, *, offers_cpu_wheel: bool, installed: str | None = None, installs: str = PINNED + "+cpu"
    ) -> None:
        self.offers_cpu_wheel = offers_cpu_wheel
        self.version = installed
        self._installs = installs
        self.asked: list[Sequence[str]] = []
        self.run: list[Sequence[str]] = []

    def quiet(self, command: Sequence[str]) -> int:
        self.asked.append(command)
        return 0 if self.offers_cpu_wheel else 1

    def visible(self, command: Sequence[str]) -> int:
        self.run.append(command)
        self.version = self._installs
        return 0

    def main(self, choice: str | None, platform: str = "linux") -> int:
        environment = {} if choice is None else {"TORCH": choice}
        status: int = install_torch.main(
            environment, installed=lambda: self.version, quiet=self.quiet, visible=self.visible, platform=platform
        )
        return status

    @property
    def arguments(self) -> list[str]:
        """What followed ``pip install`` in the one command that was run."""
        (command,) = self.run
        assert command[:4] == [sys.executable, "-m", "pip", "install"]
        return list(command[4:])


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_torch, "has_nvidia_gpu", lambda run: False)


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_torch, "has_nvidia_gpu", lambda run: True)


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize("choice", [None, "", "auto", "cpu"])
def test_a_cpu_wheel_that_pip_offers_is_taken(choice: str | None) -> None:
    machine = Machine(offers_cpu_wheel=True)
    assert machine.main(choice) == 0
    assert machine.arguments == ["--no-deps", f"torch=={PINNED}+cpu"]


@pytest.mark.usefixtures("without_gpu")
def test_without_gpu_and_wheel_the_cpu_index_is_used() -> None:
    machine = Machine(offers_cpu_wheel=False)
    assert machine.main("auto") == 0
    assert machine.arguments == ["--no-deps", "--index-url", install_torch.CPU_INDEX, f"torch=={PINNED}+cpu"]


@pytest.mark.usefixtures("with_gpu")
def test_with_a_gpu_auto_takes_the_default_build() -> None:
    machine = Machine(offers_cpu_wheel=False, installs=PINNED)
    assert machine.main("auto") == 0
    assert machine.arguments == [f"torch=={PINNED}"]


@pytest.mark.usefixtures("with_gpu")
def test_cpu_is_obeyed_on_a_machine_with_a_gpu() -> None:
    machine = Machine(offers_cpu_wheel=False)
    assert machine.main("cpu") == 0
    assert install_torch.CPU_INDEX in machine.arguments


@pytest.mark.usefixtures("without_gpu")
def test_cuda_is_obeyed_and_needs_no_dry_run() -> None:
    machine = Machine(offers_cpu_wheel=True, installs=PINNED)
    assert machine.main("cuda") == 0
    assert machine.arguments == [f"torch=={PINNED}"]
    assert machine.asked == []


@pytest.mark.usefixtures("without_gpu")
def test_a_build_other_than_the_one_asked_for_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine(offers_cpu_wheel=True, installs=PINNED + "+cpu")
    assert machine.main("cuda") == 1
    assert "TORCH=cuda was asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("choice", "installed"),
    [("auto", PINNED + "+cpu"), ("auto", PINNED), ("cpu", PINNED + "+cpu"), ("cuda", PINNED + "+cu130")],
)
def test_the_right_version_in_place_runs_nothing(choice: str, installed: str) -> None:
    machine = Machine(offers_cpu_wheel=True, installed=installed)
    assert machine.main(choice) == 0
    assert machine.run == machine.asked == []


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize(("choice", "installed"), [("auto", "2.1.0+cpu"), ("cpu", PINNED)])
def test_another_version_or_build_is_replaced(choice: str, installed: str) -> None:
    machine = Machine(offers_cpu_wheel=True, installed=installed)
    assert machine.main(choice) == 0
    assert len(machine.run) == 1


def test_an_unknown_choice_names_what_would_work(capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine(offers_cpu_wheel=True)
    assert machine.main("rocm") == 2
    message = capsys.readouterr().err
    assert "'rocm'" in message
    assert "auto, cpu, cuda" in message
    assert machine.run == []


@pytest.mark.usefixtures("without_gpu")
def test_a_failing_pip_fails_the_step() -> None:
    machine = Machine(offers_cpu_wheel=True)
    machine.visible = lambda command: 3  # type: ignore[method-assign]
    assert machine.main("auto") == 3


@pytest.mark.usefixtures("without_gpu")
def test_on_macos_the_default_build_is_the_cpu_build() -> None:
    machine = Machine(offers_cpu_wheel=False, installs=PINNED)
    assert machine.main("cpu", platform="darwin") == 0
    assert machine.arguments == ["--no-deps", f"torch=={PINNED}"]
