"""The weight-space form for LoRA against dense matrices, finite differences and PEFT's own layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from terakoya.data.tokenization import EncodedExample
from terakoya.exceptions import TrainingError
from terakoya.models.label_forward import LabelForward, Way
from terakoya.training.continual.fisher import SequenceBatch, diagonal_fisher
from terakoya.training.continual.interpolation import between_factors
from terakoya.training.continual.lora_layers import COLUMNS, ROWS, lora_layers, lora_names, marginal_fisher
from terakoya.training.continual.low_rank import (
    Factors,
    Marginals,
    penalty,
    penalty_gradient,
    squared_gradient_marginals,
)

OUT, IN, RANK = 7, 5, 2


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture
def case() -> tuple[Factors, Factors, Marginals]:
    """Where the adapter is, where it was (with another rank and scale), and what matters."""
    torch.manual_seed(0)
    fisher = random(OUT, IN).square()
    return (
        Factors(random(RANK, IN), random(OUT, RANK), 0.5),
        Factors(random(3, IN), random(OUT, 3), 2.0),
        Marginals(fisher.sum(1), fisher.sum(0)),
    )


def test_the_trace_identity_is_the_sum_over_the_dense_matrix(case: tuple[Factors, Factors, Marginals]) -> None:
    now, anchor, marginals = case
    trace = marginals.rows.sum()
    dense = torch.outer(marginals.rows, marginals.columns) / trace * (now.matrix() - anchor.matrix()).square()
    torch.testing.assert_close(penalty(now, anchor, marginals), dense.sum() / 2, rtol=1e-13, atol=0)
    torch.testing.assert_close(marginals.columns.sum(), trace)
    torch.testing.assert_close(marginals.matrix().sum(), trace)


def test_the_gradient_is_that_of_autograd_and_of_finite_differences(case: tuple[Factors, Factors, Marginals]) -> None:
    now, anchor, marginals = case
    a, b = now.a.requires_grad_(), now.b.requires_grad_()

    def cost(a: Tensor, b: Tensor) -> Tensor:
        return penalty(Factors(a, b, now.scale), anchor, marginals)

    by_hand = penalty_gradient(Factors(a.detach(), b.detach(), now.scale), anchor, marginals)
    for found, expected in zip(by_hand, torch.autograd.grad(cost(a, b), (a, b)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert torch.autograd.gradcheck(cost, (a, b))


def test_another_split_of_the_same_update_costs_nothing(case: tuple[Factors, Factors, Marginals]) -> None:
    """(B R, R^-1 A) is the same function. A diagonal on the factors themselves would punish it."""
    now, _, marginals = case
    turn = random(RANK, RANK) + 3 * torch.eye(RANK, dtype=torch.float64)
    turned = Factors(torch.linalg.solve(turn, now.a), now.b @ turn, now.scale)
    assert float(penalty(turned, now, marginals)) == pytest.approx(0, abs=1e-12)
    assert float((turned.a - now.a).square().sum() + (turned.b - now.b).square().sum()) > 1


def test_the_penalty_is_zero_at_the_anchor_and_against_it_not_against_zero(
    case: tuple[Factors, Factors, Marginals],
) -> None:
    now, anchor, marginals = case
    none = Factors(torch.zeros_like(now.a), torch.zeros_like(now.b), now.scale)
    assert float(penalty(anchor, anchor, marginals)) == pytest.approx(0, abs=1e-12)
    assert float(penalty(none, anchor, marginals)) > 1
    for gradient in penalty_gradient(now, now, marginals):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-11)


def test_a_layer_of_no_importance_costs_nothing_and_gives_no_nan(case: tuple[Factors, Factors, Marginals]) -> None:
    now, anchor, marginals = case
    nothing = Marginals(torch.zeros_like(marginals.rows), torch.zeros_like(marginals.columns))
    assert float(penalty(now, anchor, nothing)) == 0
    assert all(not gradient.any() for gradient in penalty_gradient(now, anchor, nothing))


@pytest.mark.parametrize("tokens", [1, 40])
def test_marginals_by_the_gram_matrix_are_sums_of_the_squared_gradient(tokens: int) -> None:
    """One token takes the way over tokens x tokens, forty the one over the gradient itself."""
    torch.manual_seed(1)
    inputs, deltas = random(3, tokens, IN), random(3, tokens, OUT)
    squared = sum((delta.T @ seen).square() for seen, delta in zip(inputs, deltas, strict=True))
    assert isinstance(squared, Tensor)
    found = squared_gradient_marginals(inputs, deltas)
    torch.testing.assert_close(found.rows, squared.sum(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.columns, squared.sum(0), rtol=1e-12, atol=0)


def adapted(tiny: Any, rank: int = 4) -> Any:
    torch.manual_seed(3)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    module = get_peft_model(tiny, config).eval()
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    return module


def one_row_each(module: Any, rows: list[EncodedExample]) -> list[SequenceBatch]:
    forward = LabelForward(module, way=Way.PADDED)
    return [SequenceBatch(1, lambda row=row: forward.logits([row])) for row in rows]  # type: ignore[misc]


def test_tapped_layers_give_the_marginals_of_the_fisher_of_the_weights_beneath(
    tiny: Any, rows: list[EncodedExample]
) -> None:
    """With the same random signs, the diagonal Fisher of each frozen weight has these row and column sums."""
    module = adapted(tiny)
    marginals = marginal_fisher(lora_layers(module), one_row_each(module, rows[:3]), seed=5)
    weights = {name: layer.get_base_layer().weight for name, layer in lora_layers(module).items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    diagonal = diagonal_fisher(weights, one_row_each(module, rows[:3]), seed=5)
    assert len(weights) == 14
    for name, value in diagonal.values.items():
        torch.testing.assert_close(marginals.values[ROWS + name], value.sum(1), rtol=1e-3, atol=1e-8)
        torch.testing.assert_close(marginals.values[COLUMNS + name], value.sum(0), rtol=1e-3, atol=1e-8)
    assert (marginals.sequences, marginals.targets) == (diagonal.sequences, diagonal.targets)


def test_a_way_that_passes_the_layers_by_is_an_error_and_no_importance_of_zero(
    tiny: Any, rows: list[EncodedExample]
) -> None:
    module = adapted(tiny)
    forward = LabelForward(module, way=Way.FUSED)
    with pytest.raises(TrainingError, match="nothing went through"):
        marginal_fisher(lora_layers(module), [SequenceBatch(1, lambda: forward.logits(rows[:1]))])
    marginal_fisher(lora_layers(module), [SequenceBatch(1, lambda: forward.through_modules().logits(rows[:1]))])


def test_taps_leave_no_hook_and_no_gradient_behind(tiny: Any, rows: list[EncodedExample]) -> None:
    module = adapted(tiny)
    layers = lora_layers(module)
    marginal_fisher(layers, one_row_each(module, rows[:1]))
    assert all(not layer._forward_hooks for layer in layers.values())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_factors_are_the_update_that_peft_applies_and_merges(tiny: Any, rows: list[EncodedExample]) -> None:
    """Merged and unmerged answers agree, and the update by our names and scale is the one that was merged."""
    module = adapted(tiny)
    parameters = dict(module.named_parameters())
    before = {name: layer.get_base_layer().weight.detach().clone() for name, layer in lora_layers(module).items()}
    names = lora_names(module)
    updates = {
        name: Factors(parameters[each.a], parameters[each.b], each.scale).matrix().detach()
        for name, each in names.items()
    }
    with torch.no_grad():
        unmerged = LabelForward(module, way=Way.WHOLE).logits(rows)
        module.merge_adapter()
        merged = LabelForward(module, way=Way.WHOLE).logits(rows)
    torch.testing.assert_close(merged, unmerged, rtol=1e-3, atol=1e-4)
    for name, layer in lora_layers(module).items():
        moved = layer.get_base_layer().weight.detach() - before[name]  # type: ignore[operator]
        torch.testing.assert_close(moved, updates[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_point_between_two_updates_is_exact_in_the_weights(
    share: float, case: tuple[Factors, Factors, Marginals]
) -> None:
    after, before, _ = case
    expected = (1 - share) * before.matrix() + share * after.matrix()
    torch.testing.assert_close(between_factors(before, after, share).matrix(), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(between_factors(None, after, share).matrix(), share * after.matrix())
