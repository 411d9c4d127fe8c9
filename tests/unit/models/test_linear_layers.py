from __future__ import annotations

from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from tests.tiny_model import build_tiny_model
from transformers import AutoModelForCausalLM

from terakoya.models.linear_layers import adapter_parameters, linear_layers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("linear") / "model")


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"]])
@pytest.mark.parametrize("dora", [False, True])
def test_the_count_is_that_of_the_adapter_peft_makes(folder: Path, targets: str | list[str], dora: bool) -> None:
    config = LoraConfig(r=3, target_modules=targets, use_dora=dora, task_type="CAUSAL_LM")
    module = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    made = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    assert adapter_parameters(linear_layers(folder), targets, 3, has_magnitudes=dora) == made


def test_a_folder_without_weights_has_no_layers(tmp_path: Path) -> None:
    assert linear_layers(tmp_path) == []
