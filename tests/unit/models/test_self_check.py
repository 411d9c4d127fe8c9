from __future__ import annotations

from collections.abc import Sequence

import pytest

from terakoya.exceptions import ModelLoadError
from terakoya.models.export_formats import ExportFormat
from terakoya.models.self_check import Place, check, refuse_failed, texts_of

TEXTS = [f"text number {number} of some length" for number in range(10)]


class Counting:
    """Thinks that what comes next is the length of the prompt; ``wrong_at`` it thinks of something else."""

    def __init__(self, *, wrong_every: int = 0, shift: float = 0.0, stops: bool = True, merges: bool = False) -> None:
        self.wrong_every, self.shift, self.stops, self.merges = wrong_every, shift, stops, merges
        self.asked = 0

    def next_after(self, prompts: Sequence[Sequence[int]]) -> list[Place]:
        return [self.place(prompt) for prompt in prompts]

    def place(self, prompt: Sequence[int]) -> Place:
        self.asked += 1
        right, other = (len(prompt), -0.1 - self.shift), (999, -3.0)
        is_wrong = self.wrong_every and self.asked % self.wrong_every == 0
        return Place((other, right) if is_wrong else (right, other))

    def stops_after(self, prompt: Sequence[int]) -> bool:
        return self.stops

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode())[:: 2 if self.merges else 1]


def run(exported: Counting, format: ExportFormat = ExportFormat.GGUF_F16) -> object:
    found = check(Counting(), exported, format=format, texts=TEXTS, answered=[([1], [2])] * 5)
    refuse_failed(found, "m")
    return found


def test_a_model_that_is_the_same_passes() -> None:
    found = check(Counting(), Counting(shift=0.25), format=ExportFormat.GGUF_F16, texts=TEXTS, answered=[([1], [2])])
    assert not found.failures
    assert (found.prompts, found.places, found.top1_agreement) == (10, 60, 1.0)
    assert found.largest_difference == 0.25
    assert found.to_json()["passed"] is True


@pytest.mark.parametrize(
    ("exported", "said"),
    [
        (Counting(wrong_every=10), "90.0% of 60 places, and 99.0% are needed"),
        (Counting(stops=False), "5 of 5 answers do not end"),
        (Counting(merges=True), "10 of 10 texts become other tokens"),
    ],
)
def test_one_that_is_not_is_refused_with_the_reason(exported: Counting, said: str) -> None:
    with pytest.raises(ModelLoadError, match="was not kept") as refused:
        run(exported)
    assert said in str(refused.value)


def test_coarser_weights_may_differ_more() -> None:
    run(Counting(wrong_every=30), ExportFormat.GGUF_Q8_0)
    with pytest.raises(ModelLoadError):
        run(Counting(wrong_every=30), ExportFormat.GGUF_F16)


def test_a_few_passages_make_a_hundred_texts() -> None:
    passages = [
        f"Passage {number} has a first sentence. It has a second one in {number}. And then there is a third, {number}."
        for number in range(40)
    ]
    texts = texts_of(passages)
    assert len(texts) == 100
    assert len(set(texts)) == 100
