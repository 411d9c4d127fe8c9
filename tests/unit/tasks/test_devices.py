from __future__ import annotations

from pathlib import Path

import pytest

from terakoya.tasks.devices import environment_for, training_devices


@pytest.mark.parametrize(
    ("wanted", "visible", "devices"),
    [
        (("cuda:1", "cpu", "cuda:1"), "0", ("cuda:1", "cpu")),
        ((), "2,3", ("cuda:2", "cuda:3")),
        ((), "", ("cpu",)),
        ((), "-1", ("cpu",)),
        ((), "MIG-1f2e", ("cuda:MIG-1f2e",)),
    ],
)
def test_what_is_set_wins_then_what_this_process_may_see(
    wanted: tuple[str, ...], visible: str, devices: tuple[str, ...]
) -> None:
    assert training_devices(wanted, {"CUDA_VISIBLE_DEVICES": visible}) == devices


@pytest.mark.parametrize(
    ("script", "devices"), [("printf '0\\n1\\n'", ("cuda:0", "cuda:1")), ("exit 9", ("cpu",)), (None, ("cpu",))]
)
def test_gpus_are_asked_of_the_drivers_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, devices: tuple[str, ...]
) -> None:
    if script is not None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert training_devices((), {}) == devices


def test_a_process_sees_its_device_and_no_other() -> None:
    assert environment_for("cuda:3") == {"CUDA_VISIBLE_DEVICES": "3"}
    assert environment_for("cpu") == {"CUDA_VISIBLE_DEVICES": ""}
    assert environment_for(None) == {}
