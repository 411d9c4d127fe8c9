from __future__ import annotations

from collections.abc import Callable

import pytest

from terakoya.exceptions import Unavailable
from terakoya.models.budget import MIB, Budget, Promised


class Shelf:
    """Keeps things of a size, in the order they came."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = list(sizes)

    def held_bytes(self) -> int:
        return sum(self.sizes)

    def oldest(self, at_work: object | None) -> tuple[int, Callable[[], None]] | None:
        return (0, lambda: self.sizes.pop(0) and None) if self.sizes else None


def test_what_training_was_promised_is_not_taken_and_the_error_says_so() -> None:
    budget = Budget(100 * MIB, promised=lambda: Promised(50 * MIB, 45 * MIB))
    budget.make_room("small", 5 * MIB)
    with pytest.raises(Unavailable, match=r"'big' needs 6 MiB; 50 MiB of memory are free, .* going to take 45 of them"):
        budget.make_room("big", 6 * MIB)


def test_the_unused_goes_before_a_model_is_refused() -> None:
    shelf = Shelf(10 * MIB, 10 * MIB)
    budget = Budget(100 * MIB, promised=lambda: Promised(40 * MIB - shelf.held_bytes(), 15 * MIB))
    budget.join(shelf)
    budget.make_room("new", 15 * MIB)
    assert shelf.sizes == [10 * MIB]


def test_it_gives_way_as_far_as_is_needed_and_no_further() -> None:
    shelf = Shelf(*[10 * MIB] * 4)
    promised: list[int] = []
    budget = Budget(
        100 * MIB, promised=lambda: Promised(50 * MIB - shelf.held_bytes(), promised[0]) if promised else None
    )
    budget.join(shelf)
    assert budget.give_way() == 0
    promised.append(25 * MIB)
    assert budget.give_way() == 2
    assert len(shelf.sizes) == 2
    promised[0] = 500 * MIB
    assert budget.give_way() == 2  # what there is, and then it is the trainer's to make do
