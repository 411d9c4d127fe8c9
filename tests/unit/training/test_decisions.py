from __future__ import annotations

from pathlib import Path
from typing import Any

from terakoya.training.decisions import Decisions


def decided(task_dir: Path, value: str, *, attempt: int, device: str = "cpu") -> str:
    def decide() -> dict[str, Any]:
        return {"value": value}

    decisions = Decisions(task_dir, device=device, is_first_attempt=attempt == 1)
    return str(decisions.once("compute_type", decide)["value"])


def test_later_attempts_keep_what_the_first_decided(tmp_path: Path) -> None:
    assert decided(tmp_path, "bfloat16", attempt=1) == "bfloat16"
    assert decided(tmp_path, "float32", attempt=2) == "bfloat16"
    assert decided(tmp_path, "float32", attempt=3) == "bfloat16"


def test_another_device_decides_anew_and_so_does_an_attempt_that_finds_nothing(tmp_path: Path) -> None:
    assert decided(tmp_path, "float32", attempt=2) == "float32"
    assert decided(tmp_path, "bfloat16", attempt=3, device="cuda:0") == "bfloat16"
