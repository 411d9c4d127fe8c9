"""What a model said of a label, kept small: its k likeliest tokens with their probabilities, and how much was left for
all others. And the loss of a later model against that. Knows logits only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from terakoya.exceptions import InvalidConfig


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """One row a label. The probabilities of ``tokens`` and the rest sum to one."""

    tokens: Tensor
    """[labels, k], int32: the likeliest tokens, likeliest first."""
    log_probabilities: Tensor
    """[labels, k], float32."""
    log_rest: Tensor
    """[labels], float32: log of the probability of all other tokens together; -inf if there is none."""

    def __len__(self) -> int:
        return len(self.tokens)

    def slice(self, start: int, stop: int) -> SoftTargets:
        return SoftTargets(self.tokens[start:stop], self.log_probabilities[start:stop], self.log_rest[start:stop])

    def to(self, device: torch.device) -> SoftTargets:
        return SoftTargets(self.tokens.to(device), self.log_probabilities.to(device), self.log_rest.to(device))


def joined(parts: list[SoftTargets]) -> SoftTargets:
    return SoftTargets(
        torch.cat([part.tokens for part in parts]),
        torch.cat([part.log_probabilities for part in parts]),
        torch.cat([part.log_rest for part in parts]),
    )


@torch.no_grad()
def soft_targets(logits: Tensor, k: int) -> SoftTargets:
    """Keep the k likeliest of [labels, classes] logits; the rest's mass is summed before anything is rounded."""
    if not 1 <= k <= logits.shape[-1]:
        raise InvalidConfig(f"soft targets keep 1 to {logits.shape[-1]} tokens a label; got {k}")
    logits = logits.float()
    kept, tokens = logits.topk(k, dim=-1)
    total = logits.logsumexp(-1, keepdim=True)
    rest = logits.scatter(-1, tokens, -torch.inf).logsumexp(-1, keepdim=True) - total
    return SoftTargets(tokens.int(), kept - total, rest.squeeze(-1))


def soft_target_losses(logits: Tensor, targets: SoftTargets) -> Tensor:
    """Return KL(stored || model) of each label, [labels], float32, never negative, zero for the model that was stored.

    Both sides are taken as distributions over k + 1 events: each kept token, and "any other". How the model spreads
    the rest over other tokens is free, since it was not kept; its size is not. This is at most the KL over all tokens,
    and equal to it where the shape of the rest did not change (the chain rule of KL).

    Source: Hinton et al. 2015 at temperature 1, with the tail as one class instead of dropped or renormalised.
    """
    logits = logits.float()
    tokens = targets.tokens.long()
    total = logits.logsumexp(-1, keepdim=True)
    kept = logits.gather(-1, tokens) - total
    rest = logits.scatter(-1, tokens, -torch.inf).logsumexp(-1) - total.squeeze(-1)
    return _terms(targets.log_probabilities, kept).sum(-1) + _terms(targets.log_rest, rest)


def _terms(stored: Tensor, model: Tensor) -> Tensor:
    """p (log p - log q), and 0 where p is 0 (also in the gradient, where -inf would give NaN)."""
    possible = stored > -torch.inf
    return torch.where(possible, stored.exp() * (stored - torch.where(possible, model, stored)), 0.0)
