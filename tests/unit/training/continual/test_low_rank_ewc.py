"""The regulariser for LoRA on a real PEFT model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from terakoya.data.tokenization import EncodedExample
from terakoya.models.label_forward import LabelForward, Way
from terakoya.training.continual.errors import ChainMismatch
from terakoya.training.continual.fisher import SequenceBatch
from terakoya.training.continual.low_rank_ewc import LowRankEwc
from terakoya.training.continual.regulariser import TaskEnd
from terakoya.training.continual.state import RetentionState


def adapted(tiny: Any, **settings: Any) -> tuple[Any, dict[str, nn.Parameter]]:
    torch.manual_seed(3)
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | settings
    )
    module = get_peft_model(tiny, config).eval()
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    return module, {name: each for name, each in module.named_parameters() if each.requires_grad}


def ended(
    ewc: LowRankEwc, module: Any, parameters: dict[str, nn.Parameter], rows: list[EncodedExample]
) -> RetentionState:
    forward = LabelForward(module, way=Way.PACKED)
    return ewc.on_task_end(TaskEnd(parameters, [SequenceBatch(len(rows), lambda: forward.logits(rows))], seed=0))


def test_a_task_leaves_marginals_that_pull_the_next_back_to_its_update(tiny: Any, rows: list[EncodedExample]) -> None:
    module, parameters = adapted(tiny)
    ewc = LowRankEwc(module, strength=2.0)
    ewc.on_task_start(None)
    ewc.add_grad_(parameters, step=1)
    assert all(each.grad is None for each in parameters.values())  # the first task of a chain is free
    state = ended(ewc, module, parameters, rows)
    ewc.on_task_start(state)
    ewc.add_grad_(parameters, step=1)
    assert max(float(each.grad.abs().max()) for each in parameters.values() if each.grad is not None) < 1e-6
    assert ewc.diagnostics(parameters)["penalty"] == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter += 0.1 * torch.randn_like(parameter)
    paid = []
    for _ in range(20):
        module.zero_grad()
        ewc.add_grad_(parameters, step=1)
        paid.append(ewc.diagnostics(parameters)["penalty"])
        with torch.no_grad():
            largest = max(float(each.grad.abs().max()) for each in parameters.values() if each.grad is not None)
            for parameter in parameters.values():
                parameter -= 0.002 / largest * parameter.grad
    assert paid == sorted(paid, reverse=True)
    assert paid[-1] < 0.9 * paid[0]


def test_the_anchor_stays_when_the_factors_it_was_taken_from_move(tiny: Any, rows: list[EncodedExample]) -> None:
    module, parameters = adapted(tiny)
    ewc = LowRankEwc(module, strength=1.0)
    ewc.on_task_start(None)
    state = ended(ewc, module, parameters, rows)
    shared = RetentionState(state.importance, ewc.anchor_of(parameters), 1)
    ewc.on_task_start(shared)
    separate = LowRankEwc(module, strength=1.0)
    separate.on_task_start(state)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter += 0.1
    assert ewc.diagnostics(parameters)["penalty"] == pytest.approx(separate.diagnostics(parameters)["penalty"])
    assert ewc.diagnostics(parameters)["penalty"] > 0


def test_the_state_is_the_adapter_and_two_vectors_a_layer(tiny: Any, rows: list[EncodedExample]) -> None:
    module, parameters = adapted(tiny)
    ewc = LowRankEwc(module, strength=1.0)
    ewc.on_task_start(None)
    state = ended(ewc, module, parameters, rows)
    factors = sum(each.numel() for each in parameters.values())
    vectors = sum(sum(each.shape) - 4 for each in parameters.values())
    assert state.size_bytes == 4 * (factors + vectors)


def test_the_anchor_knows_its_scale_when_the_next_run_scales_otherwise(
    tiny_folder: Any, rows: list[EncodedExample]
) -> None:
    """alpha 8 with B is the update of alpha 16 with B / 2: moving from one to the other costs nothing."""
    from transformers import AutoModelForCausalLM

    module, parameters = adapted(AutoModelForCausalLM.from_pretrained(tiny_folder))
    ewc = LowRankEwc(module, strength=1.0)
    ewc.on_task_start(None)
    state = ended(ewc, module, parameters, rows)
    other, others = adapted(AutoModelForCausalLM.from_pretrained(tiny_folder), lora_alpha=16)
    with torch.no_grad():
        for name, parameter in others.items():
            parameter.copy_(parameters[name] / (2 if "lora_B" in name else 1))
    again = LowRankEwc(other, strength=1.0)
    again.on_task_start(state)
    assert again.diagnostics(others)["penalty"] == pytest.approx(0, abs=1e-9)


def test_an_adapter_on_other_layers_or_of_another_width_is_an_error(
    tiny_folder: Any, rows: list[EncodedExample]
) -> None:
    from transformers import AutoModelForCausalLM

    module, parameters = adapted(AutoModelForCausalLM.from_pretrained(tiny_folder))
    ewc = LowRankEwc(module, strength=1.0)
    ewc.on_task_start(None)
    state = ended(ewc, module, parameters, rows)
    narrow, _ = adapted(AutoModelForCausalLM.from_pretrained(tiny_folder), target_modules=["q_proj"])
    with pytest.raises(ChainMismatch, match=r"does not train|does not track"):
        LowRankEwc(narrow, strength=1.0).on_task_start(state)
    name = next(iter(state.importance))
    wider = RetentionState(state.importance | {name: torch.ones(5)}, state.anchor, 1)
    with pytest.raises(ChainMismatch, match="shape"):
        ewc.on_task_start(wider)
    missing = RetentionState(state.importance, dict(list(state.anchor.items())[1:]), 1)
    with pytest.raises(ChainMismatch, match="lora_A"):
        ewc.on_task_start(missing)


def test_a_model_without_an_adapter_is_an_error(tiny: Any) -> None:
    state = RetentionState({"rows/x": torch.ones(1)}, {"x": torch.ones(1)}, 1)
    with pytest.raises(ChainMismatch, match="protect nothing"):
        LowRankEwc(tiny, strength=1.0).on_task_start(state)
