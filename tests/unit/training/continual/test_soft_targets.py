"""The loss against stored top-k targets: what it equals, what it bounds, and that nothing of the mass is lost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from terakoya.exceptions import InvalidConfig
from terakoya.training.continual.budget import kl_from
from terakoya.training.continual.soft_targets import SoftTargets, joined, soft_target_losses, soft_targets

LABELS, CLASSES, K = 5, 9, 3


def logits(seed: int) -> Tensor:
    return 2 * torch.randn(LABELS, CLASSES, generator=torch.Generator().manual_seed(seed))


def test_probabilities_and_rest_sum_to_one() -> None:
    kept = soft_targets(logits(0), K)
    torch.testing.assert_close(kept.log_probabilities.exp().sum(-1) + kept.log_rest.exp(), torch.ones(LABELS))
    torch.testing.assert_close(kept.log_probabilities.exp(), logits(0).softmax(-1).sort(descending=True)[0][:, :K])


def test_the_loss_is_the_kl_over_the_kept_tokens_and_any_other() -> None:
    """Against probabilities that are summed by hand, in float64."""
    kept = soft_targets(logits(0), K)
    before, now = logits(0).double().softmax(-1), logits(1).double().softmax(-1)
    for label in range(LABELS):
        tokens = kept.tokens[label].long()
        p = torch.cat([before[label, tokens], 1 - before[label, tokens].sum(0, keepdim=True)])
        q = torch.cat([now[label, tokens], 1 - now[label, tokens].sum(0, keepdim=True)])
        expected = (p * (p / q).log()).sum()
        assert float(soft_target_losses(logits(1), kept)[label]) == pytest.approx(float(expected), rel=1e-5)


def test_with_every_token_kept_it_is_the_whole_kl() -> None:
    kept = soft_targets(logits(0), CLASSES)
    assert bool((kept.log_rest == -torch.inf).all())
    torch.testing.assert_close(soft_target_losses(logits(1), kept), kl_from(logits(0), logits(1)))


def test_it_never_exceeds_the_whole_kl_and_meets_it_where_the_rest_keeps_its_shape() -> None:
    kept = soft_targets(logits(0), K)
    assert bool((soft_target_losses(logits(1), kept) <= kl_from(logits(0), logits(1)) + 1e-6).all())
    raised = logits(0).scatter_add(-1, kept.tokens.long(), torch.tensor([[1.0, -2.0, 0.5]]).expand(LABELS, K))
    torch.testing.assert_close(soft_target_losses(raised, kept), kl_from(logits(0), raised))


def test_a_rest_that_grows_is_not_overlooked() -> None:
    """Renormalising the kept tokens would see no difference here: their proportions did not change."""
    kept = soft_targets(logits(0), K)
    lowered = logits(0).scatter_add(-1, kept.tokens.long(), torch.full((LABELS, K), -4.0))
    assert bool((soft_target_losses(lowered, kept) > 0.2).all())


def test_the_model_that_was_stored_has_no_loss_and_no_gradient() -> None:
    now = logits(0).requires_grad_()
    loss = soft_target_losses(now, soft_targets(logits(0), K)).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert now.grad is not None
    assert float(now.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("k", [K, CLASSES])
def test_the_gradient_is_that_of_finite_differences(k: int) -> None:
    kept = soft_targets(logits(0), k)
    now = logits(1).requires_grad_()
    soft_target_losses(now, kept).sum().backward()  # type: ignore[no-untyped-call]
    assert now.grad is not None
    assert bool(now.grad.isfinite().all())
    h = 1e-2
    for label, token in ((0, 0), (2, 7), (4, 3)):
        step = torch.zeros(LABELS, CLASSES)
        step[label, token] = h
        rise = soft_target_losses(logits(1) + step, kept) - soft_target_losses(logits(1) - step, kept)
        assert float(now.grad[label, token]) == pytest.approx(float(rise.sum()) / (2 * h), abs=2e-3)


def test_joined_and_cut_targets_are_the_same_ones() -> None:
    whole = soft_targets(logits(0), K)
    parts = joined([whole.slice(0, 2), whole.slice(2, LABELS)])
    assert torch.equal(parts.tokens, whole.tokens)
    assert torch.equal(parts.log_rest, whole.log_rest)
    assert len(parts) == LABELS


@pytest.mark.parametrize("k", [0, CLASSES + 1])
def test_k_is_at_least_one_and_at_most_the_vocabulary(k: int) -> None:
    with pytest.raises(InvalidConfig, match=f"got {k}"):
        soft_targets(logits(0), k)


def test_targets_are_small() -> None:
    kept: SoftTargets = soft_targets(logits(0), K)
    assert (kept.tokens.dtype, kept.log_probabilities.dtype) == (torch.int32, torch.float32)
