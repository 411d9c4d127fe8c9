from __future__ import annotations

import pytest
import torch

from terakoya.models import probe
from terakoya.models.probe import choose_compute_type


def test_this_machine_is_measured_and_the_faster_type_taken() -> None:
    choice = choose_compute_type(torch.device("cpu"), hidden=64, intermediate=128, seconds=0.02)
    assert choice.gflops_float32 > 0
    assert choice.gflops_bfloat16 > 0
    assert (choice.dtype is torch.bfloat16) == (choice.gflops_bfloat16 > 1.2 * choice.gflops_float32)


@pytest.mark.parametrize(("bfloat16", "name"), [(100.0, "float32"), (119.0, "float32"), (121.0, "bfloat16")])
def test_bfloat16_must_be_clearly_faster(monkeypatch: pytest.MonkeyPatch, bfloat16: float, name: str) -> None:
    monkeypatch.setattr(probe, "_gflops", lambda device, dtype, *_: 100.0 if dtype is torch.float32 else bfloat16)
    assert choose_compute_type(torch.device("cpu"), hidden=8, intermediate=8).name == name
