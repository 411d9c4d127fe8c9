from __future__ import annotations

import pytest
import torch

from terakoya.exceptions import InvalidConfig
from terakoya.training.continual.errors import ChainMismatch
from terakoya.training.continual.interpolation import between

BEFORE = {"w": torch.tensor([0.0, 2.0]), "b": torch.tensor([1.0], dtype=torch.bfloat16)}
AFTER = {"w": torch.tensor([4.0, 0.0]), "b": torch.tensor([3.0], dtype=torch.bfloat16)}


def test_the_ends_are_the_models_themselves_and_the_middle_lies_between() -> None:
    assert all(torch.equal(value, BEFORE[name]) for name, value in between(BEFORE, AFTER, 0.0).items())
    assert all(torch.equal(value, AFTER[name]) for name, value in between(BEFORE, AFTER, 1.0).items())
    quarter = between(BEFORE, AFTER, 0.25)
    assert torch.equal(quarter["w"], torch.tensor([1.0, 1.5]))
    assert quarter["b"].dtype is torch.bfloat16


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_point_beyond_the_two_models_is_refused(share: float) -> None:
    with pytest.raises(InvalidConfig, match="from 0"):
        between(BEFORE, AFTER, share)


def test_two_models_of_different_weights_have_no_point_between() -> None:
    with pytest.raises(ChainMismatch, match="'b'"):
        between(BEFORE, {"w": AFTER["w"]}, 0.5)
