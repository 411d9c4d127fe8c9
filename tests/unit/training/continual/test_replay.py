from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from terakoya.exceptions import InvalidConfig, TrainingError
from terakoya.training.continual.replay import (
    ReplayBuffer,
    ReplayExample,
    choose,
    choose_varied,
    replay_count,
    with_targets,
)
from terakoya.training.continual.self_replay import self_generated
from terakoya.training.continual.soft_targets import SoftTargets, soft_targets


def example(number: int, task: str = "first") -> ReplayExample:
    return ReplayExample(task, (1, 2, number), ((2, 3),))


def buffer(**counts: int) -> ReplayBuffer:
    first = 0
    examples = []
    for task, count in counts.items():
        examples += [example(first + number, task) for number in range(count)]
        first += count
    return ReplayBuffer().with_task(examples)


def test_a_row_is_kept_once_whichever_task_it_comes_from_again() -> None:
    kept = ReplayBuffer().with_task([example(1), example(2), example(1)]).with_task([example(2, "second"), example(3)])
    assert [each.input_ids[-1] for each in kept.examples] == [1, 2, 3]
    assert kept.tasks() == {"first": 3}
    other_labels = ReplayExample("first", (1, 2, 1), ((1, 3),))
    assert len(kept.with_task([other_labels]).examples) == 4


def test_a_task_can_be_deleted() -> None:
    assert buffer(a=3, b=2).without_task("a").tasks() == {"b": 2}


def test_a_cap_takes_from_the_task_that_has_most() -> None:
    full = buffer(a=10, b=2)
    one = full.examples[0].size_bytes
    kept = full.capped(5 * one)
    assert kept.tasks() == {"a": 3, "b": 2}
    assert kept.size_bytes <= 5 * one
    assert full.capped(full.size_bytes) == full
    with pytest.raises(InvalidConfig, match="more than 0"):
        full.capped(0)


def test_soft_targets_count_towards_the_size() -> None:
    hard = example(1)
    soft = with_targets(hard, soft_targets(torch.randn(1, 50), k=8))
    assert soft.size_bytes - hard.size_bytes == (8 + 8 + 1) * 4
    with pytest.raises(InvalidConfig, match="1 labels"):
        with_targets(hard, soft_targets(torch.randn(2, 50), k=8))


def test_every_task_is_drawn_equally_often_and_each_example_before_any_comes_twice() -> None:
    kept = buffer(a=6, b=2)
    drawn = [each for step in range(1, 7) for each in kept.draw(4, seed=3, step=step)]
    assert Counter(each.task for each in drawn) == {"a": 12, "b": 12}
    assert set(Counter(each.key for each in drawn if each.task == "a").values()) == {2}
    assert set(Counter(each.key for each in drawn if each.task == "b").values()) == {6}


def test_a_step_draws_the_same_examples_after_a_resume() -> None:
    kept = buffer(a=6, b=2)
    assert kept.draw(4, seed=3, step=5) == kept.draw(4, seed=3, step=5)
    assert kept.draw(4, seed=3, step=5) != kept.draw(4, seed=4, step=5)
    assert ReplayBuffer().draw(4, seed=3, step=5) == []


def test_a_share_keeps_one_row_at_least_and_zero_contradicts_soft_targets() -> None:
    assert replay_count(1000, share=0.02, soft_targets=True) == 20
    assert replay_count(10, share=0.01, soft_targets=True) == 1
    assert replay_count(10, share=0.0, soft_targets=False) == 0
    with pytest.raises(InvalidConfig, match="soft targets"):
        replay_count(10, share=0.0, soft_targets=True)
    with pytest.raises(InvalidConfig, match="from 0 to 1"):
        replay_count(10, share=1.5, soft_targets=True)


def test_the_choice_is_seeded_and_takes_no_row_twice() -> None:
    chosen = choose(range(100), 10, seed=1)
    assert chosen == choose(range(100), 10, seed=1) != choose(range(100), 10, seed=2)
    assert len(set(chosen)) == 10
    assert choose(range(3), 10, seed=1) == [0, 1, 2]


def test_a_few_kept_rows_speak_for_every_answer() -> None:
    answers = ["common"] * 90 + ["rare"] * 5 + ["rarer"]
    chosen = choose_varied(answers, 3, seed=1)
    assert {answers[place] for place in chosen} == {"common", "rare", "rarer"}
    assert chosen == sorted(chosen) == choose_varied(answers, 3, seed=1)
    more = [answers[place] for place in choose_varied(answers, 7, seed=1)]
    assert (more.count("rarer"), more.count("rare"), more.count("common")) == (1, 3, 3)
    assert len(set(choose_varied(list(range(50)), 10, seed=2))) == 10
    assert choose_varied(["a", "b"], 5, seed=0) == [0, 1]


def test_a_model_without_old_data_writes_its_own_with_its_own_targets() -> None:
    written = iter(range(100))

    def write(count: int) -> Sequence[ReplayExample]:
        return [example(next(written) // 2) for _ in range(count)]  # every second one is a repetition

    def said_of(row: ReplayExample) -> SoftTargets:
        return soft_targets(torch.arange(20.0)[None] * row.input_ids[-1], 4)

    own = self_generated(5, write, said_of)
    assert len({each.key for each in own.examples}) == 5
    assert all(each.targets is not None and len(each.targets) == 1 for each in own.examples)


def test_a_model_that_only_repeats_itself_is_an_error() -> None:
    with pytest.raises(TrainingError, match="only 1 different"):
        self_generated(3, lambda count: [example(7)] * count, lambda _: soft_targets(torch.zeros(1, 20), 4))
