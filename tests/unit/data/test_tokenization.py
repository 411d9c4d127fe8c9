from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_model import CHAT_TEMPLATE, build_tiny_tokenizer
from transformers import AutoTokenizer

from terakoya.data.tokenization import EncodedExample, encode_examples
from terakoya.domain.datasets import Example, Message
from terakoya.exceptions import InvalidDataset

SYSTEM = Message("system", "Sort the mail.")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    build_tiny_tokenizer(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path)


def example(row: int, *texts: str, system: bool = False) -> Example:
    turns = tuple(Message("assistant" if n % 2 else "user", text) for n, text in enumerate(texts))
    return Example(row, (SYSTEM, *turns) if system else turns)


def encode(tokenizer: Any, *examples: Example) -> list[EncodedExample]:
    return encode_examples(examples, tokenizer).complete()


def test_the_answer_and_its_end_token_are_labels_and_nothing_follows(tokenizer: Any) -> None:
    encoded = encode(tokenizer, example(3, "Where is my parcel?", "delivery"))[0]

    assert tokenizer.decode(encoded.answer_ids) == "delivery<|im_end|>"
    assert tokenizer.decode(encoded.prompt_ids).endswith("parcel?<|im_end|>\n<|im_start|>assistant\n")
    assert encoded.prompt_ids + encoded.answer_ids == encoded.input_ids
    assert (encoded.row, encoded.prompt, encoded.answer) == (3, "Where is my parcel?", "delivery")


def test_the_end_is_learned_although_padding_is_the_same_token(tokenizer: Any) -> None:
    tokenizer.pad_token = tokenizer.eos_token

    assert encode(tokenizer, example(1, "a", "b"))[0].answer_ids[-1] == tokenizer.eos_token_id


def test_every_answer_of_a_conversation_is_learned_after_what_came_before(tokenizer: Any) -> None:
    first, second = encode(tokenizer, example(1, "a", "one", "b", "two", system=True))

    assert tokenizer.decode(first.answer_ids) == "one<|im_end|>"
    assert tokenizer.decode(second.answer_ids) == "two<|im_end|>"
    assert second.input_ids[: len(first.input_ids)] == first.input_ids


def test_an_answer_that_names_the_end_token_ends_after_it(tokenizer: Any) -> None:
    encoded = encode(tokenizer, example(1, "a", "write <|im_end|> here"))[0]

    assert tokenizer.decode(encoded.answer_ids) == "write <|im_end|> here<|im_end|>"
    assert encoded.answer_ids.count(tokenizer.eos_token_id) == 1


def test_a_row_over_the_maximum_length_is_refused_by_number_and_not_cut(tokenizer: Any) -> None:
    rows = [example(1, "a", "b"), example(2, "a", "b" * 100)]
    length = len(encode(tokenizer, rows[1])[0].input_ids)

    fitting = encode_examples(rows, tokenizer, max_length=length)
    refusing = encode_examples(rows, tokenizer, max_length=length - 1)

    assert [len(fitting.examples), len(refusing.examples)] == [2, 1]
    with pytest.raises(InvalidDataset, match=rf"(?s)1 of 2 answers.*row 2: it has {length} tokens.*{length - 1}"):
        refusing.complete()


def test_only_the_rows_that_a_template_refuses_are_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT_TEMPLATE
    )

    encoded = encode_examples(
        [example(1, "a", "b"), example(2, "a", "b", system=True), example(3, "a", "b")], tokenizer
    )

    assert [each.row for each in encoded.examples] == [1, 3]
    assert [(each.row, each.reason) for each in encoded.refused] == [
        (2, "the model's chat template refuses it: no system role")
    ]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (CHAT_TEMPLATE + "{% if 'x' in messages[-1]['content'] %} {% endif %}", None),
        (CHAT_TEMPLATE.replace("+ '<|im_end|>'", "+ ('' if 'x' in message['content'] else '<|im_end|>')"), "not end"),
        (CHAT_TEMPLATE.replace("message['content']", "message['content'].replace('x', '')"), "no token of its answer"),
        ("{% if 'x' in messages[-1]['content'] %}!{% endif %}" + CHAT_TEMPLATE, "tokens of its prompt change"),
    ],
)
def test_what_a_template_does_to_one_row_alone_is_found(tokenizer: Any, template: str, reason: str | None) -> None:
    tokenizer.chat_template = template

    encoded = encode_examples([example(1, "a", "b"), example(2, "a", "x")], tokenizer)

    assert [each.row for each in encoded.refused] == ([] if reason is None else [2])
    assert all(reason in each.reason for each in encoded.refused if reason)


def test_progress_counts_rows_and_not_their_answers(tokenizer: Any) -> None:
    heard: list[int] = []

    encode_examples((example(n, "a", "b", "c", "d") for n in range(300)), tokenizer, progress=heard.append)

    assert heard == [128, 256, 300]


@pytest.mark.slow
def test_the_starter_model_learns_answer_and_end_token_alone() -> None:
    folder = os.environ.get("TERAKOYA_TEST_MODEL")
    if folder is None:
        pytest.skip("TERAKOYA_TEST_MODEL names no folder with the starter model")
    starter = AutoTokenizer.from_pretrained(folder)
    texts = ("translate", " leading space", "日本語の答え", "two\n\nparagraphs", "trailing\n", "<|im_end|>")

    for text in texts:
        encoded = encode(starter, example(1, "What does 犬 mean?", text))[0]
        assert starter.decode(encoded.answer_ids) == text + "<|im_end|>"
        assert starter.decode(encoded.prompt_ids).endswith("<|im_start|>assistant\n")
        assert encoded.answer_ids.count(starter.eos_token_id) == 1
