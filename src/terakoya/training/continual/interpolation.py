"""The free slider after a run: a point on the line between the weights before and after. Knows weights by name; which
point is best is measured elsewhere.

Source: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT): weights of the ensemble, one model.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from terakoya.exceptions import InvalidConfig
from terakoya.training.continual.low_rank import Factors
from terakoya.training.continual.state import require_same


@torch.no_grad()
def between(before: Mapping[str, Tensor], after: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return (1 - share) * before + share * after for every weight. Raises: ChainMismatch, InvalidConfig."""
    _check(share)
    require_same(before, after, what="the model before")
    return {
        name: torch.lerp(weight.float(), after[name].float(), share).to(weight.dtype) for name, weight in before.items()
    }


@torch.no_grad()
def between_factors(before: Factors | None, after: Factors, share: float) -> Factors:
    """The same for a low-rank update, exactly: both updates side by side, each with its share; None is no update.

    The factors themselves must not be interpolated: B A is not linear in them.
    """
    _check(share)
    if before is None:
        return Factors(after.a, share * after.b, after.scale)
    return Factors(
        torch.cat([before.a, after.a]),
        torch.cat([(1 - share) * before.scale * before.b, share * after.scale * after.b], dim=1),
        1.0,
    )


def _check(share: float) -> None:
    if not 0 <= share <= 1:
        raise InvalidConfig(f"a point between two models has a share from 0 (before) to 1 (after); got {share!r}")
