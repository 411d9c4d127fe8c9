"""A conversation in one row must teach what its answers teach one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from terakoya.data.tokenization import EncodedExample, encode_examples
from terakoya.domain.datasets import Example, Message
from terakoya.models.label_forward import LabelForward, Way

# Two float32 orders of summation; one label more or less, or after other tokens, is off by 1e-2 and more.
ROUNDING = 2e-5


def conversation(row: int, *texts: str) -> Example:
    return Example(row, tuple(Message("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)))


CONVERSATIONS = [
    conversation(1, "Who?", "The miller.", "When?", "At dawn.", "Why?", "Bread."),
    conversation(2, "Who are you?", "A clerk."),
    conversation(3, "Who else?", "Nobody.", "Sure?", "Yes, as far as I can see."),
]


def losses_and_gradients(module: Any, rows: Sequence[EncodedExample], way: Way) -> tuple[Tensor, dict[str, Tensor]]:
    module.zero_grad()
    losses = LabelForward(module, way=way).losses(rows)
    (losses.sum() / len(losses)).backward()
    return losses.detach(), {name: each.grad.clone() for name, each in module.named_parameters()}


@pytest.mark.parametrize("way", list(Way))
def test_loss_and_gradients_are_those_of_one_row_an_answer(tiny: Any, tiny_folder: Path, way: Way) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    apart = encode_examples(CONVERSATIONS, tokenizer).complete()
    joined = encode_examples(CONVERSATIONS, tokenizer, join_answers=True).complete()
    assert (len(apart), len(joined)) == (6, 3)

    expected_losses, expected = losses_and_gradients(tiny, apart, Way.WHOLE)
    losses, found = losses_and_gradients(tiny, joined, way)

    torch.testing.assert_close(losses, expected_losses, rtol=ROUNDING, atol=ROUNDING)
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= ROUNDING * gradient.abs().max(), name
