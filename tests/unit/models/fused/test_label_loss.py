"""The head with its loss against PyTorch's own cross-entropy, in pieces and at once."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy

from terakoya.models.fused import label_loss
from terakoya.models.fused.label_loss import LabelLoss


@pytest.mark.parametrize(("product", "rows"), [(1000, 1000), (4, 3)])
def test_losses_and_gradients_are_those_of_cross_entropy(
    product: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_loss, "_PRODUCT", product)
    monkeypatch.setattr(label_loss, "_ROWS", rows)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(10, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(20, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.randint(20, (10,), generator=generator)
    expected = cross_entropy(states @ weight.t(), labels, reduction="none")
    found = LabelLoss.apply(states, weight, labels)
    torch.testing.assert_close(found, expected)
    factors = torch.arange(10.0, dtype=torch.float64)
    wanted = torch.autograd.grad((expected * factors).sum(), (states, weight))
    torch.testing.assert_close(torch.autograd.grad((found * factors).sum(), (states, weight)), wanted)
    assert gradcheck(lambda x, w: LabelLoss.apply(x, w, labels), (states, weight))
