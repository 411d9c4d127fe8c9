from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from terakoya.exceptions import InvalidConfig
from terakoya.training.defaults import resolve
from terakoya.training.methods import STRATEGIES
from terakoya.training.request import TrainingRequest
from terakoya.training.strategy import TrainingStrategy

IDS = torch.tensor([[5, 6, 7, 8]])


def strategy(name: str, **fields: Any) -> TrainingStrategy:
    request = TrainingRequest.model_validate({"model": "m", "dataset": "d", "strategy": name} | fields)
    return STRATEGIES.load(name)(resolve(request, parameters=100_000, rows=10))


def logits(module: Any) -> Tensor:
    with torch.no_grad():
        result: Tensor = module(IDS).logits
    return result


def disturb(module: Any) -> None:
    """Stand in for training: move every trained weight."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)


def test_lora_trains_adapters_on_all_linear_layers_but_the_head(tiny: Any) -> None:
    lora = strategy("lora")
    module = lora.prepare(tiny, base_id="model_base")
    names = lora.trained_parameters(module)
    assert all("lora_" in name for name in names)
    assert lora.describe(module)["adapter_targets"] == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip
    assert not any("lm_head" in name for name in names)


def test_full_trains_every_weight(tiny: Any) -> None:
    full = strategy("full")
    module = full.prepare(tiny, base_id="model_base")
    assert full.describe(module)["trained_parameters"] == sum(each.numel() for each in tiny.parameters())


@pytest.mark.parametrize("name", ["lora", "full"])
def test_what_is_trained_is_float32_on_a_bfloat16_model(tiny: Any, name: str) -> None:
    each = strategy(name)
    module = each.prepare(tiny.to(torch.bfloat16), base_id="model_base")
    assert {parameter.dtype for parameter in each.trained_parameters(module).values()} == {torch.float32}


def test_lora_shows_the_model_as_it_was_with_the_adapter_off(tiny: Any) -> None:
    original = logits(tiny)
    lora = strategy("lora")
    module = lora.prepare(tiny, base_id="model_base")
    disturb(module)
    with lora.as_before(module) as before:
        assert torch.equal(logits(before), original)
    assert not torch.allclose(logits(module), original)


def test_full_asks_for_the_model_to_be_loaded_again(tiny: Any) -> None:
    with strategy("full").as_before(tiny) as before:
        assert before is None


def test_a_saved_adapter_names_its_base_and_opens_with_peft(tiny: Any, tiny_folder: Path, tmp_path: Path) -> None:
    lora = strategy("lora")
    module = lora.prepare(tiny, base_id="model_base")
    disturb(module)
    lora.save(module, tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file()
    assert '"base_model_name_or_path": "model_base"' in (tmp_path / "adapter_config.json").read_text()
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), tmp_path)
    torch.testing.assert_close(logits(opened), logits(module))


def test_a_saved_model_opens_alone_and_keeps_tied_weights_once(tiny: Any, tmp_path: Path) -> None:
    full = strategy("full")
    module = full.prepare(tiny, base_id="model_base")
    disturb(module)
    full.save(module, tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(module))


def test_a_rank_wider_than_a_layer_is_refused_with_its_name(tiny: Any) -> None:
    with pytest.raises(InvalidConfig, match=r"LoRA rank must be 1-32 for 'model.layers.0.self_attn.k_proj'; got 40"):
        strategy("lora", adapter={"rank": 40}).prepare(tiny, base_id="model_base")


def test_an_unknown_target_is_told_which_layers_there_are(tiny: Any) -> None:
    with pytest.raises(InvalidConfig, match=r"no linear layer named 'query'; it has down_proj, gate_proj"):
        strategy("lora", adapter={"targets": ["query"]}).prepare(tiny, base_id="model_base")
