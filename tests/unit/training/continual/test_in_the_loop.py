"""The regulariser's place in the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tests.unit.training.conftest import Recorder
from tests.unit.training.engine.test_loop import a_loop
from torch import nn

from terakoya.data.tokenization import EncodedExample
from terakoya.domain.events import EventType
from terakoya.training.continual.diagonal_ewc import DiagonalEwc
from terakoya.training.continual.state import RetentionState
from terakoya.training.engine.checkpoint import Position


class Watching(DiagonalEwc):
    """Remembers the norm of the gradient it was given."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.norms: list[float] = []

    def add_grad_(self, parameters: Mapping[str, nn.Parameter], step: int) -> None:
        gradients = [each.grad for each in parameters.values() if each.grad is not None]
        self.norms.append(float(torch.nn.utils.get_total_norm(gradients)))
        super().add_grad_(parameters, step)


def test_the_pull_comes_after_clipping_keeps_weights_near_and_stays_out_of_the_loss(
    tiny_folder: Path, rows: list[EncodedExample], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    moved, losses = {}, {}
    for strength in (0.0, 1e6):
        module = AutoModelForCausalLM.from_pretrained(tiny_folder)
        parameters = dict(module.named_parameters())
        start = {name: each.detach().clone() for name, each in parameters.items()}
        ewc = Watching(parameters, strength=strength)
        ewc.on_task_start(RetentionState({name: torch.ones_like(each) for name, each in start.items()}, start, 1))
        recorder = Recorder()
        loop = a_loop(module, rows, tmp_path / f"{strength:g}", recorder)
        loop.regulariser = ewc
        loop.run(Position())
        assert len(ewc.norms) == loop.plan.total_steps
        assert max(ewc.norms) <= 1.0 + 1e-5  # clipped to max_grad_norm before
        moved[strength] = sum(float((each.detach() - start[name]).square().sum()) for name, each in parameters.items())
        losses[strength] = [event["loss"] for event in recorder.of(EventType.STEP)]
    assert moved[1e6] < 0.5 * moved[0.0]
    assert losses[1e6][0] == losses[0.0][0]  # the first step starts at the anchor
    assert max(losses[1e6]) < 20  # a penalty of 1e6 would show
