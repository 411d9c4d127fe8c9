"""Points between two models, against weights interpolated by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.tiny_model import build_tiny_model, tiny_artifact
from torch import Tensor
from transformers import AutoModelForCausalLM

from terakoya.data.examples import to_line
from terakoya.domain.datasets import Example, Message, Split
from terakoya.domain.models import ModelArtifact, ModelKind
from terakoya.exceptions import InvalidConfig
from terakoya.models.factory import create_model_loader
from terakoya.training.continual.errors import ChainMismatch
from terakoya.training.points import open_line
from terakoya.training.scoring import ScoredTask

IDS = torch.tensor([[1, 40, 50, 60, 70]])


def an_adapter(base: ModelArtifact, folder: Path, *, seed: int, targets: list[str], **options: Any) -> ModelArtifact:
    torch.manual_seed(seed)
    module = AutoModelForCausalLM.from_pretrained(base.path)
    adapted = get_peft_model(module, LoraConfig(task_type="CAUSAL_LM", target_modules=targets, **options))
    for name, parameter in adapted.named_parameters():
        if ".lora_" in name:
            parameter.data.normal_(std=0.1)
    cast(Any, adapted).save_pretrained(folder)
    info = replace(base.info, id=folder.name, name=folder.name, kind=ModelKind.ADAPTER, parent_id=base.info.id)
    return ModelArtifact(info, folder, base)


@torch.no_grad()
def logits(artifact: ModelArtifact) -> Tensor:
    loader = create_model_loader("lora" if artifact.base else "full")
    return cast(Tensor, loader.load(artifact).module(input_ids=IDS).logits)


@torch.no_grad()
def shifted(base: ModelArtifact, *moves: tuple[ModelArtifact, float]) -> Tensor:
    """The base with each adapter's matrix added to its weights, so much of it."""
    module = AutoModelForCausalLM.from_pretrained(base.path)
    for adapter, share in moves:
        merged = create_model_loader("lora").load(adapter).module.merge_and_unload()  # type: ignore[operator]
        plain = dict(AutoModelForCausalLM.from_pretrained(base.path).named_parameters())
        for name, weight in merged.named_parameters():
            module.get_parameter(name).add_(share * (weight - plain[name]))
    return cast(Tensor, module(input_ids=IDS).logits)


@pytest.fixture
def base(tiny_folder: Path) -> ModelArtifact:
    return tiny_artifact(tiny_folder)


def test_a_point_between_two_adapters_is_the_model_with_both_shares_in_its_weights(
    base: ModelArtifact, tmp_path: Path
) -> None:
    before = an_adapter(base, tmp_path / "before", seed=1, targets=["q_proj"], r=2, lora_alpha=8)
    after = an_adapter(base, tmp_path / "after", seed=2, targets=["q_proj"], r=4, lora_alpha=4, use_rslora=True)
    line = open_line(before, after)
    for share in (0.0, 0.3, 1.0):
        line.move_to(share)
        (tmp_path / f"{share}").mkdir()
        line.save(tmp_path / f"{share}")
        kept = ModelArtifact(replace(after.info, name="kept"), tmp_path / f"{share}", base)
        assert torch.allclose(logits(kept), shifted(base, (before, 1 - share), (after, share)), atol=1e-5)
    assert torch.allclose(logits(kept), logits(after), atol=1e-5)
    assert json.loads((kept.path / "adapter_config.json").read_text())["base_model_name_or_path"] == base.info.id


def test_without_an_adapter_before_the_line_begins_at_the_base(base: ModelArtifact, tmp_path: Path) -> None:
    after = an_adapter(base, tmp_path / "after", seed=2, targets=["v_proj", "down_proj"], r=4, lora_alpha=8)
    line = open_line(None, after)
    with torch.no_grad():
        line.move_to(0.0)
        assert torch.allclose(line.module(input_ids=IDS).logits, logits(base), atol=1e-5)
        line.move_to(0.25)
        assert torch.allclose(line.module(input_ids=IDS).logits, shifted(base, (after, 0.25)), atol=1e-5)


def test_whole_models_meet_weight_by_weight(base: ModelArtifact, tmp_path: Path) -> None:
    after = tiny_artifact(build_tiny_model(tmp_path / "after", seed=5))
    line = open_line(base, after)
    line.move_to(0.5)
    one, other = (AutoModelForCausalLM.from_pretrained(each.path) for each in (base, after))
    for name, weight in line.module.named_parameters():
        assert torch.allclose(weight, (one.get_parameter(name) + other.get_parameter(name)) / 2, atol=1e-7)
    (tmp_path / "kept").mkdir()
    line.save(tmp_path / "kept")
    with torch.no_grad():
        wanted = line.module(input_ids=IDS).logits
    assert torch.allclose(logits(ModelArtifact(after.info, tmp_path / "kept")), wanted, atol=1e-6)


def test_adapters_of_other_layers_or_models_have_no_line(base: ModelArtifact, tmp_path: Path) -> None:
    after = an_adapter(base, tmp_path / "after", seed=2, targets=["q_proj"], r=2)
    with pytest.raises(ChainMismatch, match="v_proj"):
        open_line(an_adapter(base, tmp_path / "wider", seed=1, targets=["q_proj", "v_proj"], r=2), after)
    other = replace(base, info=replace(base.info, id="other"))
    with pytest.raises(InvalidConfig, match="different models"):
        open_line(an_adapter(other, tmp_path / "foreign", seed=1, targets=["q_proj"], r=2), after)


def test_rows_are_the_held_out_ones_of_the_run_and_their_score_is_that_of_greedy_decoding(
    base: ModelArtifact, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        Example(row, (Message("user", f"{row}?"), Message("assistant", "yes")), Split.HELDOUT if row > 4 else None)
        for row in range(1, 9)
    ]
    path.write_bytes(b"".join(map(to_line, rows)))
    fields = {"name": "t", "rows": str(path), "objective": "supervised", "heldout_fraction": 0.5, "seed": 0}
    task = ScoredTask.read(
        fields | {"max_evaluation_examples": 500, "max_length": None},
        create_model_loader("full").load(base).tokenizer,
        context=1024,
        most=3,
    )
    assert len(task.rows) == 3
    assert {row.row for row in task.rows} <= {5, 6, 7, 8}
    module = AutoModelForCausalLM.from_pretrained(base.path).eval()
    score = task.score(module)
    nats = labels = 0.0
    for row in task.rows:
        with torch.no_grad():
            found = module(input_ids=torch.tensor([row.input_ids])).logits[0].log_softmax(-1)
        for start, end in row.label_spans:
            nats -= sum(float(found[at - 1, row.input_ids[at]]) for at in range(start, end))
            labels += end - start
    assert score["loss"] == pytest.approx(nats / labels, rel=1e-4)
    assert (score["rows"], score["exact"]) == (3, 0.0)
