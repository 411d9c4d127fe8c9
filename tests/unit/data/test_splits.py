from __future__ import annotations

import random

import pytest

from terakoya.data.examples import prompt_key
from terakoya.data.splits import split_rows
from terakoya.domain.datasets import Example, Message, Split
from terakoya.exceptions import InvalidConfig


def example(row: int, prompt: str | None = None, split: Split | None = None) -> Example:
    return Example(row, (Message("user", prompt or f"prompt {row}"), Message("assistant", f"answer {row}")), split)


def split_examples(examples: list[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    train, heldout = split_rows(examples, fraction, seed)
    return [examples[place] for place in train], [examples[place] for place in heldout]


def rows(examples: list[Example]) -> set[int]:
    return {each.row for each in examples}


def test_about_the_asked_fraction_is_held_out_and_nothing_is_lost() -> None:
    train, heldout = split_examples([example(n) for n in range(1, 201)], 0.1, seed=0)

    assert len(heldout) == 20
    assert rows(train) | rows(heldout) == set(range(1, 201))
    assert not rows(train) & rows(heldout)


def test_the_split_follows_the_seed_and_not_the_order_of_rows() -> None:
    examples = [example(n) for n in range(100)]
    shuffled = random.Random(1).sample(examples, 100)

    held = rows(split_examples(examples, 0.2, seed=3)[1])

    assert rows(split_examples(shuffled, 0.2, seed=3)[1]) == held
    assert rows(split_examples(examples, 0.2, seed=4)[1]) != held


def test_rows_that_share_a_prompt_stay_together() -> None:
    examples = [example(n, f"prompt {n // 3}") for n in range(90)]

    train, heldout = split_examples(examples, 0.2, seed=0)

    assert len(heldout) == 18
    assert not {prompt_key(each) for each in train} & {prompt_key(each) for each in heldout}


def test_rows_that_name_their_split_are_obeyed() -> None:
    examples = [example(1, split=Split.HELDOUT), example(2, split=Split.TRAIN), example(3)]

    train, heldout = split_examples(examples, 0.5, seed=0)

    assert (rows(train), rows(heldout)) == ({2, 3}, {1})


def test_one_is_held_out_of_two_and_one_prompt_is_never_held_out() -> None:
    assert [len(side) for side in split_examples([example(1), example(2)], 0.01, seed=0)] == [1, 1]
    assert [len(side) for side in split_examples([example(1, "p"), example(2, "p")], 0.5, seed=0)] == [2, 0]


def test_a_prompt_repeated_too_often_for_the_fraction_is_passed_over() -> None:
    examples = [example(n, "the same") for n in range(80)] + [example(n) for n in range(80, 100)]

    heldouts = [split_examples(examples, 0.1, seed=seed)[1] for seed in range(5)]

    assert sorted(len(heldout) for heldout in heldouts)[2] == 10


def test_prompts_are_one_whatever_their_case_width_and_spacing() -> None:
    keys = [prompt_key(example(1, prompt)) for prompt in ("A b", "a  b ", "\uff41 b", "a c")]
    assert [key == keys[0] for key in keys] == [True, True, True, False]


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_outside_zero_to_one_is_refused(fraction: float) -> None:
    with pytest.raises(InvalidConfig, match="held-out fraction"):
        split_examples([example(1)], fraction, seed=0)


@pytest.mark.parametrize("seed", range(8))
def test_a_prompt_with_most_of_the_rows_is_not_what_is_held_out(seed: int) -> None:
    rows = [example(n, "the same") for n in range(1, 20)] + [example(20, "another")]
    train, heldout = split_examples(rows, 0.1, seed)
    assert (len(train), len(heldout)) == (19, 1)
