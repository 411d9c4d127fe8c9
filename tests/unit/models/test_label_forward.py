"""Every way through a model must mean the same: loss and gradients of rows computed one by one, without padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from terakoya.domain.models import ModelArtifact
from terakoya.models import label_forward
from terakoya.models.label_forward import LabelForward, Way

# Two float32 orders of summation over a few hundred terms; a wrong mask or position is off by 1e-2 and more.
ROUNDING = 2e-5


@dataclass(frozen=True)
class Row:
    input_ids: list[int]
    label_spans: tuple[tuple[int, int], ...]


def some_rows(count: int = 5) -> list[Row]:
    """Rows of different lengths with ten shared tokens in front; every other one has labels in two places."""
    drawn = torch.Generator().manual_seed(0)
    rows = []
    for number in range(count):
        own = torch.randint(3, 250, (6 + 3 * number,), generator=drawn).tolist()
        ids = [*range(40, 50), *own]
        last = (len(ids) - 2 - number % 3, len(ids))
        rows.append(Row(ids, ((11, 13), last) if number % 2 else (last,)))
    return rows


@pytest.fixture
def full(tiny_base: ModelArtifact) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_base.path)


@pytest.fixture
def lora(full: Any) -> Any:
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapted = get_peft_model(full, config)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:  # zero at the start, which would hide A's gradient
                nn.init.normal_(parameter, std=0.1)
    return adapted


def one_by_one(module: Any, rows: Sequence[Row]) -> Tensor:
    losses = []
    for row in rows:
        logits = module(torch.tensor([row.input_ids])).logits[0]
        for start, end in row.label_spans:
            labels = torch.tensor(row.input_ids[start:end])
            losses.append(cross_entropy(logits[start - 1 : end - 1], labels, reduction="none"))
    return torch.cat(losses)


def gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize(
    ("way", "share_prefix"),
    [
        (Way.FUSED, True),
        (Way.FUSED, False),
        (Way.PACKED, True),
        (Way.PACKED, False),
        (Way.PADDED, False),
        (Way.WHOLE, False),
    ],
)
def test_loss_and_gradients_are_those_of_rows_one_by_one(
    kind: str, way: Way, share_prefix: bool, request: pytest.FixtureRequest
) -> None:
    module = request.getfixturevalue(kind)
    rows = some_rows()
    wanted = one_by_one(module, rows)
    expected = gradients(module, wanted.sum())
    losses = LabelForward(module, way=way, share_prefix=share_prefix).losses(rows)
    found = gradients(module, losses.sum())
    torch.testing.assert_close(losses, wanted, rtol=ROUNDING, atol=ROUNDING)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= ROUNDING * gradient.abs().max(), name


def test_many_labels_are_answered_in_pieces_with_the_same_gradient(full: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows()
    forward = LabelForward(full, way=Way.PACKED)
    expected = gradients(full, forward.losses(rows).sum())
    monkeypatch.setattr(label_forward, "LABELS_AT_ONCE", 3)
    found = gradients(full, forward.losses(rows).sum())
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= ROUNDING * gradient.abs().max(), name


def test_predictions_are_the_likeliest_tokens(full: Any) -> None:
    rows = some_rows(3)
    losses, likeliest = LabelForward(full, way=Way.PACKED).predict(rows)
    torch.testing.assert_close(losses, one_by_one(full, rows), rtol=ROUNDING, atol=ROUNDING)
    row = rows[0]
    logits = full(torch.tensor([row.input_ids])).logits[0, row.label_spans[0][0] - 1 : -1]
    assert likeliest[: len(logits)].tolist() == logits.argmax(-1).tolist()


def test_the_models_own_attention_is_left_in_place(full: Any) -> None:
    before = full.config._attn_implementation
    LabelForward(full, way=Way.PACKED).losses(some_rows(2))
    assert full.config._attn_implementation == before


SMALL = {"vocab_size": 260, "num_hidden_layers": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WIDE = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}


def llama_like() -> nn.Module:
    return Qwen2ForCausalLM(Qwen2Config(**SMALL, **WIDE))


def with_scaled_logits() -> nn.Module:
    return GraniteForCausalLM(GraniteConfig(**SMALL, **WIDE, logits_scaling=8.0))


def with_a_sliding_window() -> nn.Module:
    return MistralForCausalLM(MistralConfig(**SMALL, **WIDE, sliding_window=4))


def with_a_window_longer_than_the_rows() -> nn.Module:
    return MistralForCausalLM(MistralConfig(**SMALL, **WIDE, sliding_window=4096))


def mistral_like() -> nn.Module:
    return MistralForCausalLM(MistralConfig(**SMALL, **WIDE, sliding_window=None))


def with_learned_positions() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=260, n_layer=2, n_embd=32, n_head=4, n_positions=64))


@pytest.mark.parametrize(
    ("build", "way"),
    [
        (llama_like, Way.FUSED),
        (with_learned_positions, Way.PACKED),
        (with_scaled_logits, Way.WHOLE),
        (mistral_like, Way.FUSED),
        (with_a_sliding_window, Way.PADDED),
        (with_a_window_longer_than_the_rows, Way.PADDED),
    ],
)
def test_the_cheapest_way_that_agrees_with_the_model_is_chosen(build: Callable[[], Any], way: Way) -> None:
    torch.manual_seed(0)
    module = build()
    module.train()
    forward = LabelForward.choose(module, some_rows(3))
    assert forward.way is way
    assert module.training
    module.eval()
    torch.testing.assert_close(
        forward.losses(some_rows()), one_by_one(module, some_rows()), rtol=ROUNDING, atol=ROUNDING
    )


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_layers_computed_again_give_the_same_gradient(kind: str, request: pytest.FixtureRequest) -> None:
    module = request.getfixturevalue(kind)
    module.train()
    forward, rows = LabelForward(module, way=Way.FUSED), some_rows()
    expected = gradients(module, forward.losses(rows).sum())
    for layer in forward._backbone.layers:
        layer.gradient_checkpointing = True
    found = gradients(module, forward.losses(rows).sum())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize("way", [Way.FUSED, Way.PACKED, Way.PADDED, Way.WHOLE])
def test_what_is_made_of_logits_in_pieces_is_what_is_made_of_them_at_once(
    lora: Any, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = some_rows()
    trained = [each for each in lora.parameters() if each.requires_grad]
    forward, most = LabelForward(lora, way=way), []

    def entropies(logits: Tensor, which: slice) -> Tensor:
        most.append(len(logits))
        weights = torch.arange(1.0, 19.0)[which]
        return weights * torch.special.entr(logits.softmax(-1)).sum(-1)

    whole = forward.of_logits(rows, entropies)
    wanted = torch.autograd.grad(whole.sum(), trained)
    assert most == [len(whole)] == [18]
    most.clear()
    monkeypatch.setattr(label_forward, "LABELS_AT_ONCE", 3)
    pieces = forward.of_logits(rows, entropies)
    assert torch.allclose(pieces, whole, atol=ROUNDING)
    found = torch.autograd.grad(pieces.sum(), trained)
    assert max(most) == 3
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=10 * ROUNDING * max(1.0, float(other.abs().max())))
