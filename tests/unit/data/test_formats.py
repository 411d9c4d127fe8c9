from __future__ import annotations

from typing import Any

import pytest

from terakoya.data.formats import detect_format, parse_line, parse_row, unused_fields
from terakoya.domain.datasets import Message, Split
from terakoya.exceptions import InvalidDataset

USER, ASSISTANT = Message("user", "Hi"), Message("assistant", "Hello")


def says(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"messages": [says("user", "Hi"), says("assistant", "Hello")]}, "messages"),
        ({"prompt": "Hi", "completion": "Hello"}, "prompt-completion"),
        ({"instruction": "Hi", "output": "Hello"}, "instruction-output"),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, "instruction-output"),
        ({"question": "Hi", "answer": "Hello"}, "question-answer"),
    ],
)
def test_every_accepted_shape_gives_the_same_conversation(row: dict[str, Any], format: str) -> None:
    assert detect_format(row) == format
    assert parse_row(row, 7).messages == (USER, ASSISTANT)
    assert parse_row(row, 7).row == 7


def test_an_input_follows_its_instruction_after_a_blank_line() -> None:
    example = parse_row({"instruction": "Translate", "input": "犬", "output": "dog"}, 1)

    assert example.messages[0].content == "Translate\n\n犬"


def test_a_system_text_comes_first_in_any_shape() -> None:
    flat = parse_row({"system": "Be brief", "prompt": "Hi", "completion": "Hello"}, 1)
    listed = parse_row({"messages": [says("system", "Be brief"), says("user", "Hi"), says("assistant", "Hello")]}, 1)

    assert flat.messages == listed.messages == (Message("system", "Be brief"), USER, ASSISTANT)


@pytest.mark.parametrize(
    ("value", "split"),
    [
        (None, None),
        ("train", Split.TRAIN),
        ("heldout", Split.HELDOUT),
        ("test", Split.HELDOUT),
        ("Validation", Split.HELDOUT),
    ],
)
def test_split_names_of_other_tools_are_understood(value: str | None, split: Split | None) -> None:
    assert parse_row({"prompt": "Hi", "completion": "Hello", "split": value}, 1).split is split


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "none of the known fields, only no fields"),
        ({"text": "x", "label": 1}, "only 'text', 'label'"),
        ({"prompt": "Hi"}, "it has 'prompt' but no 'completion'"),
        ({"answer": "Hi"}, "it has 'answer' but no 'question'"),
        ({"prompt": "Hi", "completion": None}, "'completion' must be text, not null"),
        ({"prompt": ["Hi"], "completion": "x"}, "'prompt' must be text, not a list"),
        ({"prompt": "Hi", "completion": " \n"}, "'completion' is empty"),
        ({"prompt": "", "completion": "x"}, "'prompt' is empty"),
        ({"prompt": "Hi", "completion": "\ud83d"}, r"half of a surrogate pair, \\ud83d"),
        ({"prompt": "Hi", "completion": "x", "split": "tarin"}, "'split' is 'tarin'"),
        ({"messages": "Hi"}, "'messages' must be a list of at least two messages, not text"),
        ({"messages": []}, "not an empty list"),
        ({"messages": ["Hi"]}, "message 1 must be an object, not text"),
        ({"messages": [{"from": "human"}]}, "message 1 has no 'role', only 'from'"),
        ({"messages": [says("tool", "x")]}, "message 1 has the role 'tool'; known are system, user, assistant"),
        ({"messages": [says("user", [{"type": "text"}])]}, "'content of message 1' must be text, not a list"),
        ({"messages": [says("user", "Hi")]}, "the last message must be the assistant's"),
        ({"messages": [says("system", "Hi")]}, "the last message must be the assistant's"),
        ({"messages": [says("assistant", "Hi")]}, "message 1 is the assistant's where the user's turn is"),
        ({"messages": [says("user", "a"), says("user", "b"), says("assistant", "c")]}, "message 2 is the user's"),
        ({"messages": [says("user", "a"), says("system", "b"), says("assistant", "c")]}, "message 2 is the system's"),
        ({"messages": [says("user", "a"), says("assistant", "")]}, "message 2, the assistant's, is empty"),
        (
            {"messages": [says("system", "s"), says("user", " "), says("assistant", "a")]},
            "message 2, the user's, is empty",
        ),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_refused_with_the_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidDataset, match=reason):
        parse_row(row, 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("hello", "not JSON: Expecting value at character 1"),
        ('{"prompt": "x"', "not JSON"),
        ("[1]", "not a JSON object but a list"),
        ("3", "not a JSON object but a number"),
        ("null", "not a JSON object but null"),
        ("[" * 200_000, "nested too deeply"),
        ('{"prompt":' * 200_000, "nested too deeply"),
        ("1" * 10_000, "not a row"),
    ],
)
def test_a_line_that_is_no_object_is_refused_with_the_reason(line: str, reason: str) -> None:
    with pytest.raises(InvalidDataset, match=reason):
        parse_line(line)


def test_fields_that_are_not_read_are_named() -> None:
    flat = {"question": "q", "answer": "a", "context": "c", "split": "train", "system": ""}
    listed = {"messages": [says("user", "a") | {"name": "Ann"}, says("assistant", "b")], "id": 3}

    assert unused_fields(flat, "question-answer") == ["context"]
    assert sorted(unused_fields(listed, "messages")) == ["id", "messages[].name"]
