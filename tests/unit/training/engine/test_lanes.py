from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from terakoya.training.engine.batching import lane_count, lanes_of
from terakoya.training.engine.lanes import Lanes


@dataclass
class Share:
    loss: Tensor


def test_gradients_are_added_in_the_order_of_the_losses_whoever_is_first() -> None:
    """Sums of float32 depend on their order: 1e8 + 1 - 1e8 is 0, 1e8 - 1e8 + 1 is 1."""
    factors = [1e8, 1.0, -1e8]

    def loss_after(delay: float, factor: float, weight: Tensor) -> Share:
        time.sleep(delay)
        return Share((weight * factor).sum())

    for delays in ([0.0, 0.05, 0.1], [0.1, 0.05, 0.0], [0.05, 0.1, 0.0]):
        weight = torch.ones(1, requires_grad=True)
        lanes = Lanes(3, [weight])
        pairs = zip(delays, factors, strict=True)
        lanes.backward([lambda pair=pair, weight=weight: loss_after(*pair, weight) for pair in pairs])  # type: ignore[misc]
        assert weight.grad is not None
        assert weight.grad.item() == 0.0


def test_a_lane_adds_to_what_is_there_and_leaves_alone_what_a_loss_does_not_reach() -> None:
    reached, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    lanes = Lanes(2, [reached, other])
    for _ in range(2):
        shares = lanes.backward([lambda: Share(reached.sum()), lambda: Share(2 * reached.sum())])
    assert [share.loss.item() for share in shares] == [2, 4]
    assert reached.grad is not None
    assert reached.grad.tolist() == [6, 6]
    assert other.grad is None


def test_threads_of_a_lane_share_the_processors_and_the_caller_keeps_its_own() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        weight = torch.ones(1, requires_grad=True)
        seen: dict[str, int] = {}

        def loss() -> Share:
            seen[threading.current_thread().name] = torch.get_num_threads()
            time.sleep(0.05)
            return Share(weight.sum())

        Lanes(2, [weight]).backward([loss, loss])
        assert sorted(seen.values()) == [2, 2]
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_a_lane_is_worth_it_only_for_enough_tokens() -> None:
    assert [lane_count(threads=4, tokens_per_step=tokens) for tokens in (10, 100, 200, 10_000)] == [1, 1, 2, 4]


def test_lanes_get_about_the_same_and_every_row_once() -> None:
    lengths = [9, 1, 8, 2, 7, 3]
    parts = lanes_of([0, 1, 2, 3, 4, 5], lengths, count=2)
    assert sorted(row for part in parts for row in part) == [0, 1, 2, 3, 4, 5]
    assert [sum(lengths[row] for row in part) for part in parts] == [15, 15]
    assert lanes_of([4], lengths, count=2) == [[4]]
