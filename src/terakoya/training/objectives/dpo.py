"""Direct preference optimisation: the better answer is to gain on the worse one, against the model of the start.

The reference is the model as it is before the first step. What it says of the pairs never changes, so it is computed
once and kept beside the run: a step then costs one model and not two, and memory holds no second copy of the weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from terakoya.models.evaluating import evaluating
from terakoya.models.label_forward import LabelForward
from terakoya.models.packing import Row
from terakoya.models.row_likelihood import log_likelihoods, row_sums
from terakoya.storage.files import write_durably
from terakoya.storage.json_text import to_json
from terakoya.training.objectives.encodings import PAIRS, Encoding
from terakoya.training.objectives.formulas import dpo_losses
from terakoya.training.objectives.objective import MicroBatch, Objective, Share, Start, StepSize


class DPOObjective(Objective):
    """An example is two rows: the better answer, then the worse one."""

    encoding: ClassVar[Encoding] = PAIRS

    def start(self, start: Start) -> None:
        kept = _kept(start.store, start.fingerprint)
        if kept is None:
            kept = _reference(start)
            content = to_json({"fingerprint": start.fingerprint, "log_likelihoods": sorted(kept.items())})
            write_durably(start.store, content)
        self._reference = kept

    def share(self, forward: LabelForward, batch: MicroBatch, size: StepSize) -> Share:
        rows = batch.rows
        policy = -row_sums(forward.losses(rows), rows).view(-1, 2)  # [pairs, better and worse]
        reference = policy.new_tensor([self._reference[number] for number in batch.numbers])
        gained, lost = (policy - reference).unbind(1)
        beta = self.settings["beta"]
        losses = dpo_losses(gained, lost, beta=beta, label_smoothing=self.settings["label_smoothing"])
        facts = {
            "reward_chosen": beta * gained,
            "reward_rejected": beta * lost,
            "reward_margin": beta * (gained - lost),
            "reward_accuracy": (gained > lost).float(),
        }
        return Share(losses.sum() / size.examples, means(facts, size))


def means(facts: dict[str, Tensor], size: StepSize) -> dict[str, Tensor]:
    """Each example's facts as a share of the step's means: [examples] -> scalar."""
    return {name: values.detach().sum() / size.examples for name, values in facts.items()}


def _reference(start: Start) -> dict[int, tuple[float, float]]:
    rows: list[Row] = [start.rows[2 * number + side] for number in start.examples for side in (0, 1)]
    with evaluating(start.module), torch.no_grad(), start.autocast():
        found = log_likelihoods(start.forward, rows, progress=start.tick)
    return {number: (found[2 * place], found[2 * place + 1]) for place, number in enumerate(start.examples)}


def _kept(path: Path, fingerprint: str) -> dict[int, tuple[float, float]] | None:
    try:
        kept = json.loads(path.read_bytes())
        if kept["fingerprint"] != fingerprint:
            return None
        return {number: (chosen, rejected) for number, (chosen, rejected) in kept["log_likelihoods"]}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
