"""Our preference losses are TRL's on the same batch; ``benchmarks/trl_losses.py`` asked it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from tests.tiny_model import build_tiny_model
from transformers import AutoModelForCausalLM

from terakoya.data.tokenization import EncodedExample
from terakoya.models.label_forward import LabelForward, Way
from terakoya.training.objectives.methods import OBJECTIVES
from terakoya.training.objectives.objective import MicroBatch, Start, StepSize

TOLD = json.loads((Path(__file__).parents[3] / "data" / "trl_losses.json").read_text(encoding="utf-8"))


def row(prompt: list[int], answer: list[int]) -> EncodedExample:
    return EncodedExample(1, prompt + answer, ((len(prompt), len(prompt) + len(answer)),))


@pytest.mark.parametrize("name", ["dpo", "orpo"])
def test_loss_and_what_is_told_are_trls(name: str, tmp_path: Path) -> None:
    told: dict[str, Any] = dict(TOLD[name])
    pairs = told.pop("pairs")
    examples = [[row(pair["prompt_ids"], pair[f"{side}_ids"]) for side in ("chosen", "rejected")] for pair in pairs]
    method = OBJECTIVES.load(name)
    objective = method.load()(method.resolve_settings({"beta": TOLD["beta"]}))
    module = AutoModelForCausalLM.from_pretrained(build_tiny_model(tmp_path / "reference", seed=TOLD["reference_seed"]))
    forward = LabelForward(module, way=Way.PACKED)
    objective.start(
        Start(
            module=module,
            forward=forward,
            rows=[each for example in examples for each in example],
            examples=range(len(examples)),
            autocast=Accelerator(cpu=True).autocast,
            store=tmp_path / "reference.json",
            fingerprint="",
            tick=lambda done, total: None,
        )
    )
    policy = AutoModelForCausalLM.from_pretrained(build_tiny_model(tmp_path / "policy", seed=TOLD["policy_seed"]))
    module.load_state_dict(policy.state_dict())

    size = StepSize(len(examples), sum(map(objective.count_labels, examples)))
    share = objective.share(forward, MicroBatch(range(len(examples)), examples), size)

    # Sums of float32 logits in two orders: six digits of values up to 20.
    assert share.loss.item() == pytest.approx(told.pop("loss"), rel=1e-5)
    for fact, value in told.items():
        assert share.facts[fact].item() == pytest.approx(value, rel=1e-4, abs=1e-5), fact
