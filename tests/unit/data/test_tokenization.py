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
    with pytest.raises(InvalidDataset, match=rf"(?s)1 of 2 examples.*row 2: it has {length} tokens.*{length - 1}"):
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


STRIPS_EARLIER = (  # as templates do that leave out the reasoning of all turns but the last
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'].split('</think>')[-1] if not loop.last else message['content'] }}"
    "{{ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_joined_answers_are_the_labels_they_were_one_by_one(tokenizer: Any) -> None:
    conversation = example(4, "a", "one", "b", "two", "c", "three", system=True)
    apart = encode(tokenizer, conversation)

    [joined] = encode_examples([conversation], tokenizer, join_answers=True).complete()

    assert joined.input_ids == apart[-1].input_ids
    assert joined.label_spans == tuple(each.label_spans[0] for each in apart)
    assert (joined.row, joined.prompt, joined.answer) == (4, "c", "three")
    assert tokenizer.decode(joined.answer_ids) == "three<|im_end|>"


def test_a_conversation_whose_earlier_turns_are_written_anew_stays_one_row_an_answer(tokenizer: Any) -> None:
    tokenizer.chat_template = STRIPS_EARLIER
    plain = example(1, "a", "one", "b", "two")
    thinking = example(2, "a", "hm</think>one", "b", "hm</think>two")

    encoded = encode_examples([plain, thinking, plain], tokenizer, join_answers=True)

    assert [(each.row, len(each.label_spans)) for each in encoded.examples] == [(1, 2), (2, 1), (2, 1), (1, 2)]
    assert encoded.split_conversations == 1
    assert tokenizer.decode(encoded.examples[1].answer_ids) == "hm</think>one<|im_end|>"


def test_what_a_tool_says_is_context_and_never_a_label(tokenizer: Any) -> None:
    turns = [("user", "weather?"), ("assistant", "call"), ("tool", "rain"), ("assistant", "It rains.")]
    conversation = Example(1, tuple(Message(role, text) for role, text in turns))  # type: ignore[arg-type]

    [joined] = encode_examples([conversation], tokenizer, join_answers=True).complete()

    learned = [tokenizer.decode(joined.input_ids[start:end]) for start, end in joined.label_spans]
    assert learned == ["call<|im_end|>", "It rains.<|im_end|>"]
    assert "tool\nrain" in tokenizer.decode(joined.prompt_ids)


@pytest.mark.parametrize(
    ("unanswerable", "reason"),
    [
        (Example(2, (Message("user", "and?"),)), "no answer to learn"),
        (Example(2, (Message("assistant", "hello"),)), "no message of the assistant follows a prompt"),
        (Example(2, (), text="Running text."), "running text without an answer"),
    ],
)
def test_a_row_without_an_answer_is_refused_and_not_passed_over(
    tokenizer: Any, unanswerable: Example, reason: str
) -> None:
    encoded = encode_examples([example(1, "a", "b"), unanswerable, example(3, "a", "b")], tokenizer)

    assert [each.row for each in encoded.examples] == [1, 3]
    assert [(each.row, reason in each.reason) for each in encoded.refused] == [(2, True)]
