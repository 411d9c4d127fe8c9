"""Estimates the diagonal of a model's Fisher information: how much its answers depend on each weight. Knows logits
and weights; not datasets, tokens or penalties.

For a sequence with targets at positions t, F = sum_t E[g_t g_t^T], where g_t is the gradient of log p(y_t | before t)
and y_t is drawn from the model itself: summed over the targets of a sequence, averaged over sequences. Prompt and
padding are no targets, so callers give logits at targets only.

All estimators here share one form. With logits z and p = softmax(z) at a target, a random (or enumerated) cotangent d
with E[d d^T] = diag(p) - p p^T, pulled back through the model and squared, has the Fisher as its expectation. As the
cotangents of two targets are independent with mean zero, cross terms vanish: sequences may share a backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from terakoya.exceptions import TrainingError

Cotangents = Callable[[Tensor, torch.Generator], Iterator[Tensor]]
"""From logits [targets, classes] to cotangents of the same shape, each of which gets a backward pass of its own."""


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """A few sequences of a task, to be run through the model when their turn comes."""

    sequences: int
    logits: Callable[[], Tensor]
    """[targets, classes] with a graph: the model's logits where a label is, and nowhere else."""


class Estimator(StrEnum):
    S_RADEMACHER = "s_rademacher"
    SAMPLED = "sampled"
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class FisherEstimate:
    """What was estimated, and from how much."""

    values: dict[str, Tensor]
    """By name of the weight, in the weight's shape."""
    sequences: int
    targets: int

    @property
    def trace(self) -> float:
        return sum(float(value.sum(dtype=torch.float64)) for value in self.values.values())


def s_rademacher(logits: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """One cotangent with random signs: d = q * e - p (q . e), q = sqrt(p), e in {-1, +1}.

    E[d d^T] = diag(p) - p p^T exactly, since E[e e^T] = 1 and q . q = 1. Unlike a drawn label, every class speaks in
    every pass, which is what makes its variance small.
    """
    positive = torch.randint(0, 2, logits.shape, generator=generator, device=logits.device, dtype=torch.int8).bool()
    yield signed_roots(logits.detach(), positive)


def signed_roots(logits: Tensor, positive: Tensor) -> Tensor:
    """The cotangent of ``s_rademacher`` for given signs, [targets, classes] all."""
    probabilities = logits.softmax(-1)
    signed = torch.where(positive, 1, -1) * probabilities.sqrt()
    return signed - probabilities * signed.sum(-1, keepdim=True)


def sampled_labels(logits: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """The score function of a label drawn from the model: d = onehot(y) - p. The reference at one sequence a batch."""
    probabilities = logits.detach().softmax(-1)
    drawn = torch.multinomial(probabilities, 1, generator=generator)
    yield (-probabilities).scatter_add(-1, drawn, torch.ones_like(probabilities[:, :1]))


def every_class(logits: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Every label of every target, weighted by its probability: exact, at targets x classes backward passes."""
    probabilities = logits.detach().softmax(-1)
    for target, row in enumerate(probabilities):
        for label in range(len(row)):
            cotangent = torch.zeros_like(probabilities)
            cotangent[target] = -row
            cotangent[target, label] += 1
            yield cotangent * row[label].sqrt()


COTANGENTS: dict[Estimator, Cotangents] = {
    Estimator.S_RADEMACHER: s_rademacher,
    Estimator.SAMPLED: sampled_labels,
    Estimator.EXACT: every_class,
}


def diagonal_fisher(
    parameters: Mapping[str, nn.Parameter],
    batches: Iterable[SequenceBatch],
    *,
    cotangents: Cotangents = s_rademacher,
    seed: int = 0,
) -> FisherEstimate:
    """Estimate F_i for every weight. One that is used twice (tied embeddings) has its gradients summed, then squared.

    The module must be in evaluation mode: dropout would make another model of each pass. ``.grad`` is left alone.
    Raises: TrainingError for float16 weights, for weights the logits do not depend on, or without sequences.

    Source: Kunstner et al. 2019 for the true against the empirical Fisher; Martens 2020 for its equality with the
    Gauss-Newton matrix, whose factor is what the cotangents draw.
    """
    weights = list(parameters.values())
    refuse_float16(parameters)
    totals = [torch.zeros_like(weight, dtype=precise(weight.dtype)) for weight in weights]
    sequences = targets = 0
    for batch, cotangent, logits in backward_passes(batches, cotangents, seed):
        gradients = torch.autograd.grad(logits, weights, cotangent, retain_graph=True, allow_unused=True)
        for name, total, gradient in zip(parameters, totals, gradients, strict=True):
            if gradient is None:
                raise TrainingError(f"no answer of the model depends on {name!r}; its importance cannot be estimated")
            total.addcmul_(gradient.to(total.dtype), gradient.to(total.dtype))
        if batch is not None:
            sequences += batch.sequences
            targets += len(logits)
    require_sequences(sequences)
    return FisherEstimate(
        {name: total.div_(sequences) for name, total in zip(parameters, totals, strict=True)}, sequences, targets
    )


def backward_passes(
    batches: Iterable[SequenceBatch], cotangents: Cotangents, seed: int
) -> Iterator[tuple[SequenceBatch | None, Tensor, Tensor]]:
    """Yield each backward pass to be made; the batch comes with its first pass only, to be counted once."""
    generator: torch.Generator | None = None
    for batch in batches:
        logits = batch.logits()
        if generator is None:
            generator = torch.Generator(device=logits.device).manual_seed(seed)
        counted: SequenceBatch | None = batch
        for cotangent in cotangents(logits, generator):
            yield counted, cotangent, logits
            counted = None


def precise(dtype: torch.dtype) -> torch.dtype:
    """What sums over many gradients are kept in."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def refuse_float16(parameters: Mapping[str, nn.Parameter]) -> None:
    """Raises: TrainingError. The square of a gradient below 2.4e-4 is zero in float16."""
    for name, parameter in parameters.items():
        if parameter.dtype is torch.float16:
            raise TrainingError(
                f"{name!r} is float16, in which the square of a small gradient is zero; use float32 or bfloat16"
            )


def require_sequences(sequences: int) -> None:
    if sequences == 0:
        raise TrainingError("importance is estimated from sequences of the task; there were none")
