"""The estimators against closed forms, exact enumeration and each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from terakoya.data.tokenization import EncodedExample
from terakoya.exceptions import TrainingError
from terakoya.models.label_forward import LabelForward, Way
from terakoya.training.continual.fisher import (
    SequenceBatch,
    diagonal_fisher,
    every_class,
    s_rademacher,
    sampled_labels,
    signed_roots,
)

CLASSES, WIDTH, ROWS = 4, 3, 6


def regression(*, bias: bool = True) -> tuple[nn.Linear, Tensor]:
    """Softmax regression in float64, and its inputs [ROWS, WIDTH]."""
    torch.manual_seed(0)
    return nn.Linear(WIDTH, CLASSES, bias=bias, dtype=torch.float64), torch.randn(ROWS, WIDTH, dtype=torch.float64)


def one_by_one(module: Callable[[Tensor], Tensor], inputs: Tensor) -> list[SequenceBatch]:
    return [SequenceBatch(1, lambda row=row: module(row)) for row in inputs.split(1)]  # type: ignore[misc]


def together(module: Callable[[Tensor], Tensor], inputs: Tensor) -> list[SequenceBatch]:
    return [SequenceBatch(len(inputs), lambda: module(inputs))]


def weights_of(module: nn.Module) -> dict[str, nn.Parameter]:
    return dict(module.named_parameters())


def test_exact_fisher_of_softmax_regression_has_its_closed_form() -> None:
    module, inputs = regression()
    fisher = diagonal_fisher(weights_of(module), one_by_one(module, inputs), cotangents=every_class)
    p = module(inputs).detach().softmax(-1)
    spread = p * (1 - p)  # [rows, classes]
    torch.testing.assert_close(fisher.values["weight"], spread.T @ inputs.square() / ROWS, rtol=1e-12, atol=0)
    torch.testing.assert_close(fisher.values["bias"], spread.mean(0), rtol=1e-12, atol=0)
    assert (fisher.sequences, fisher.targets) == (ROWS, ROWS)
    assert fisher.trace == pytest.approx(float((spread * (inputs.square().sum(1, keepdim=True) + 1)).sum() / ROWS))


def test_exact_fisher_of_softmax_regression_is_the_diagonal_of_the_hessian() -> None:
    module, inputs = regression(bias=False)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])  # the Hessian does not depend on them
    hessian = torch.autograd.functional.hessian(
        lambda weight: cross_entropy(inputs @ weight.T, labels), module.weight.detach()
    )
    fisher = diagonal_fisher(weights_of(module), one_by_one(module, inputs), cotangents=every_class)
    diagonal = hessian.reshape(CLASSES * WIDTH, -1).diagonal().reshape(CLASSES, WIDTH)
    torch.testing.assert_close(fisher.values["weight"], diagonal, rtol=1e-12, atol=1e-15)


def test_signed_roots_have_exactly_the_fisher_of_the_softmax_as_their_covariance() -> None:
    logits = torch.tensor([[0.3, -1.2, 2.0, 0.0]], dtype=torch.float64)
    p = logits.softmax(-1)[0]
    every = list(itertools.product([False, True], repeat=CLASSES))
    cotangents = torch.cat([signed_roots(logits, torch.tensor([signs])) for signs in every])
    covariance = cotangents.T @ cotangents / len(every)
    torch.testing.assert_close(covariance, p.diag() - torch.outer(p, p), rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(cotangents.sum(-1), torch.zeros(len(every), dtype=torch.float64), rtol=0, atol=1e-15)


def test_sharing_a_backward_pass_leaves_the_expectation_alone() -> None:
    """Every combination of signs of three sequences at once: the mean is the exact Fisher, cross terms and all."""
    torch.manual_seed(1)
    module, inputs = nn.Linear(2, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    signs = iter(itertools.product([False, True], repeat=6))

    def enumerated(logits: Tensor, _: torch.Generator) -> Iterator[Tensor]:
        yield signed_roots(logits.detach(), torch.tensor(next(signs)).view(3, 2))

    found = [
        diagonal_fisher(weights_of(module), together(module, inputs), cotangents=enumerated).values["weight"]
        for _ in range(2**6)
    ]
    exact = diagonal_fisher(weights_of(module), one_by_one(module, inputs), cotangents=every_class)
    torch.testing.assert_close(torch.stack(found).mean(0), exact.values["weight"], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("cotangents", "batches", "count"), [(s_rademacher, together, 1000), (sampled_labels, one_by_one, 400)]
)
def test_random_estimators_meet_the_exact_trace(cotangents: Any, batches: Any, count: int) -> None:
    """Seeded draws: the mean lies within four standard errors of the exact value, which a bias of 10% would not."""
    torch.manual_seed(2)
    module, inputs = nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Linear(5, CLASSES)), torch.randn(ROWS, WIDTH)
    exact = diagonal_fisher(weights_of(module), one_by_one(module, inputs), cotangents=every_class).trace
    draws = torch.tensor(
        [
            diagonal_fisher(weights_of(module), batches(module, inputs), cotangents=cotangents, seed=seed).trace
            for seed in range(count)
        ]
    )
    error = float(draws.std()) / len(draws) ** 0.5
    assert abs(float(draws.mean()) - exact) < 4 * error
    assert 4 * error < 0.1 * exact


def test_squaring_batch_means_of_label_gradients_gives_one_batch_size_th() -> None:
    """The common bug. At an optimum the mean gradient is zero, so (batch mean)^2 averages to F / B: exactly, over all
    batches with replacement. Ours has F itself.
    """
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    bias = nn.Parameter((torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64) / 6).log())  # the optimum for these labels

    def logits(rows: int) -> Tensor:
        return bias.expand(rows, 3)

    def label_gradients(chosen: Tensor) -> Any:
        def cotangents(z: Tensor, _: torch.Generator) -> Iterator[Tensor]:
            yield (nn.functional.one_hot(chosen, 3) - z.detach().softmax(-1)) / len(chosen)

        return cotangents

    def measured(chosen: Tensor) -> Tensor:
        batch = [SequenceBatch(1, lambda: logits(len(chosen)))]
        return diagonal_fisher({"bias": bias}, batch, cotangents=label_gradients(chosen)).values["bias"]

    exact = diagonal_fisher({"bias": bias}, [SequenceBatch(1, lambda: logits(1))], cotangents=every_class)
    p = bias.detach().exp()
    torch.testing.assert_close(exact.values["bias"], p * (1 - p))
    for size in (1, 2, 3):
        batches = itertools.product(range(len(labels)), repeat=size)
        batched = torch.stack([measured(labels[list(batch)]) for batch in batches]).mean(0)
        torch.testing.assert_close(batched, exact.values["bias"] / size, rtol=1e-12, atol=0)


def test_importance_adds_up_over_the_targets_of_a_sequence() -> None:
    """A sum over targets, never their mean: four targets of one sequence tell four times as much as one."""
    module, inputs = regression()
    row = inputs[:1]
    one = diagonal_fisher(weights_of(module), together(module, row), cotangents=every_class)
    four = SequenceBatch(1, lambda: module(row.expand(4, -1)))
    whole = diagonal_fisher(weights_of(module), [four], cotangents=every_class)
    torch.testing.assert_close(whole.values["weight"], 4 * one.values["weight"])
    assert whole.targets == 4


def test_a_weight_that_is_used_twice_has_its_gradients_summed_before_they_are_squared() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64))

        def forward(self, tokens: Tensor) -> Tensor:
            return self.table[tokens] @ self.table.T

    module = Tied()
    logits = module(torch.tensor([0]))
    expected = torch.zeros_like(module.table)
    for p, row in zip(logits[0].softmax(-1).detach(), logits[0].log_softmax(-1), strict=True):
        (whole,) = torch.autograd.grad(row, module.table, retain_graph=True)
        expected += p * whole.square()
    fisher = diagonal_fisher(weights_of(module), together(module, torch.tensor([0])), cotangents=every_class)
    torch.testing.assert_close(fisher.values["table"], expected)


@pytest.mark.parametrize("way", [Way.PADDED, Way.PACKED])
def test_neither_prompt_nor_padding_is_a_target(tiny: Any, rows: list[EncodedExample], way: Way) -> None:
    """A row's share of the gradient is the same beside a longer row as alone, so padding adds nothing to it."""
    short, long = sorted(rows, key=lambda row: len(row.input_ids))[:: len(rows) - 1]
    labels = len(short.answer_ids)

    def only_short(logits: Tensor, _: torch.Generator) -> Iterator[Tensor]:
        cotangent = signed_roots(logits.detach(), torch.ones_like(logits, dtype=torch.bool))
        cotangent[labels:] = 0
        yield cotangent

    tiny.eval()
    forward = LabelForward(tiny, way=way)
    parameters = weights_of(tiny)
    alone, beside = (
        diagonal_fisher(parameters, [SequenceBatch(1, lambda some=some: forward.logits(some))], cotangents=only_short)  # type: ignore[misc]
        for some in ([short], [short, long])
    )
    assert alone.targets == labels
    assert beside.targets == labels + len(long.answer_ids)
    for name, value in alone.values.items():
        torch.testing.assert_close(beside.values[name], value, rtol=1e-3, atol=1e-7)


def test_float16_weights_are_refused() -> None:
    module = nn.Linear(2, 2).half()
    with pytest.raises(TrainingError, match="float16"):
        diagonal_fisher(weights_of(module), [])


def test_a_weight_the_answers_do_not_depend_on_is_refused_by_name() -> None:
    module, inputs = regression()
    parameters = weights_of(module) | {"lost": nn.Parameter(torch.ones(2))}
    with pytest.raises(TrainingError, match="'lost'"):
        diagonal_fisher(parameters, together(module, inputs))


def test_no_sequences_is_an_error_and_not_an_importance_of_zero() -> None:
    module, _ = regression()
    with pytest.raises(TrainingError, match="there were none"):
        diagonal_fisher(weights_of(module), [])


def test_estimates_follow_from_their_seed_and_leave_gradients_alone() -> None:
    module, inputs = regression()
    first, same, other = (
        diagonal_fisher(weights_of(module), together(module, inputs), seed=seed).values["weight"] for seed in (3, 3, 4)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert module.weight.grad is None
