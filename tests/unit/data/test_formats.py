from __future__ import annotations

from typing import Any

import pytest

from terakoya.data.formats import detect_shape, parse_line, parse_row, unused_fields
from terakoya.domain.datasets import DatasetKind, Message, Split
from terakoya.exceptions import InvalidDataset

USER, ASSISTANT = Message("user", "Hi"), Message("assistant", "Hello")


def says(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def speaks(speaker: str, value: Any) -> dict[str, Any]:
    return {"from": speaker, "value": value}


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"messages": [says("user", "Hi"), says("assistant", "Hello")]}, "messages"),
        ({"conversations": [speaks("human", "Hi"), speaks("gpt", "Hello")]}, "sharegpt"),
        ({"conversations": [says("user", "Hi"), says("assistant", "Hello")]}, "sharegpt"),
        ({"prompt": "Hi", "completion": "Hello"}, "prompt-completion"),
        ({"prompt": [says("user", "Hi")], "completion": [says("assistant", "Hello")]}, "prompt-completion"),
        ({"instruction": "Hi", "output": "Hello"}, "instruction-output"),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, "instruction-output"),
        ({"question": "Hi", "answer": "Hello"}, "question-answer"),
        ({"prompt": "Hi", "response": "Hello"}, "prompt-response"),
        ({"input": "Hi", "output": "Hello"}, "input-output"),
    ],
)
def test_every_shape_of_a_conversation_gives_the_same_one(row: dict[str, Any], shape: str) -> None:
    assert (detect_shape(row).name, detect_shape(row).kind) == (shape, DatasetKind.CONVERSATION)
    assert parse_row(row, 7).messages == (USER, ASSISTANT)
    assert parse_row(row, 7).row == 7


def test_an_input_follows_its_instruction_after_a_blank_line() -> None:
    example = parse_row({"instruction": "Translate", "input": "犬", "output": "dog"}, 1)

    assert example.messages[0].content == "Translate\n\n犬"


def test_a_system_text_comes_first_in_any_shape() -> None:
    expected = (Message("system", "Be brief"), USER, ASSISTANT)
    turns = [says("user", "Hi"), says("assistant", "Hello")]
    for row in (
        {"system": "Be brief", "prompt": "Hi", "completion": "Hello"},
        {"messages": [says("system", "Be brief"), *turns]},
        {"messages": [says("developer", "Be brief"), *turns]},
        {"system": "Be brief", "conversations": [speaks("human", "Hi"), speaks("gpt", "Hello")]},
        {"system": "Be brief", "prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
    ):
        assert parse_row(row, 1).messages == expected


def test_tools_speak_between_two_messages_of_the_assistant() -> None:
    roles = ["system", "human", "function_call", "observation", "gpt", "human", "gpt"]
    row = {"conversations": [speaks(role, str(number)) for number, role in enumerate(roles)]}

    assert [message.role for message in parse_row(row, 1).messages] == [
        *("system", "user", "assistant", "tool", "assistant", "user", "assistant")
    ]


def test_the_text_parts_of_a_message_are_joined() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]

    assert parse_row({"messages": [says("user", "Hi"), says("assistant", parts)]}, 1).messages == (USER, ASSISTANT)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
        {"question": "Hi", "chosen": "Hello", "rejected": "Go away"},
        {"prompt": [says("user", "Hi")], "chosen": [says("assistant", "Hello")], "rejected": "Go away"},
        {
            "prompt": "Hi",
            "chosen": [says("user", "Hi"), says("assistant", "Hello")],
            "rejected": [says("user", "Hi"), says("assistant", "Go away")],
        },
        {
            "chosen": [speaks("human", "Hi"), speaks("gpt", "Hello")],
            "rejected": [speaks("human", "Hi"), speaks("gpt", "Go away")],
        },
    ],
)
def test_every_shape_of_a_preference_gives_the_same_pair(row: dict[str, Any]) -> None:
    example = parse_row(row, 1)

    assert detect_shape(row).kind is DatasetKind.PREFERENCE
    assert (example.messages, example.rejected) == ((USER, ASSISTANT), "Go away")


def test_running_text_is_kept_as_it_is() -> None:
    example = parse_row({"text": " 一行目\n二行目\n", "split": "test"}, 1)

    assert (example.text, example.messages, example.split) == (" 一行目\n二行目\n", (), Split.HELDOUT)
    assert detect_shape({"text": "x"}).kind is DatasetKind.TEXT


@pytest.mark.parametrize(
    ("value", "split"),
    [
        (None, None),
        ("", None),
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
        ({"texte": "x", "label": 1}, "only 'texte', 'label'"),
        ({"prompt": "Hi"}, "it has 'prompt' but no 'completion'"),
        ({"answer": "Hi"}, "it has 'answer' but no 'question'"),
        ({"prompt": "Hi", "chosen": "a"}, "it has 'chosen' but no 'rejected'"),
        ({"prompt": "Hi", "completion": None}, "'completion' must be text, not of the type null"),
        ({"prompt": {"a": 1}, "completion": "x"}, "'prompt' must be text, not of the type object"),
        ({"prompt": ["Hi"], "completion": "x"}, "message 1 must be an object, not of the type string"),
        ({"prompt": "Hi", "completion": " \n"}, "'completion' is empty"),
        ({"prompt": "", "completion": "x"}, "'prompt' is empty"),
        ({"prompt": "Hi", "completion": "\ud83d"}, r"half of a surrogate pair, \\ud83d"),
        ({"prompt": "Hi", "completion": "\udc82\udca0"}, "bytes that are not valid"),
        ({"prompt": "Hi", "completion": "a\0b"}, "'completion' holds a NUL character"),
        ({"prompt": "Hi", "completion": "x", "split": "tarin"}, "the split is 'tarin'"),
        ({"text": "\n"}, "'text' is empty"),
        ({"messages": "Hi"}, "'messages' must be a list of messages, not of the type string"),
        ({"messages": []}, "not of the type empty array"),
        ({"messages": ["Hi"]}, "message 1 must be an object, not of the type string"),
        ({"messages": [{"from": "human"}]}, "message 1 has no 'content', only 'from'"),
        ({"messages": [says("critic", "x")]}, "message 1 has the role 'critic'"),
        ({"messages": [says("user", [{"type": "image_url"}])]}, "message 1 has parts that are not text"),
        ({"messages": [says("user", 3)]}, "'content of message 1' must be text, not of the type number"),
        ({"messages": [says("user", "x"), says("assistant", "") | {"tool_calls": [{}]}]}, "message 2 has tool_calls"),
        ({"messages": [says("user", "Hi")]}, "the last message must be the assistant's"),
        ({"messages": [says("system", "Hi")]}, "the last message must be the assistant's"),
        ({"messages": [says("assistant", "Hi")]}, "message 1 is of the role assistant where user is expected"),
        ({"messages": [says("user", "a"), says("user", "b"), says("assistant", "c")]}, "message 2 is of the role user"),
        ({"messages": [says("user", "a"), says("tool", "b")]}, "message 2 is of the role tool where assistant is"),
        (
            {"messages": [says("user", "a"), says("assistant", "b"), says("assistant", "c")]},
            "message 3 is of the role assistant where user or tool is expected",
        ),
        ({"messages": [says("user", "a"), says("system", "b")]}, "message 2 is of the role system"),
        ({"messages": [says("user", "a"), says("assistant", "")]}, "message 2, of the role assistant, is empty"),
        ({"messages": [says("system", "s"), says("user", " ")]}, "message 2, of the role user, is empty"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "a"}, "chosen and rejected are the same"),
        ({"chosen": "a", "rejected": "b"}, "no prompt"),
        ({"prompt": "p", "chosen": "a", "rejected": ""}, "'rejected' is empty"),
        (
            {
                "chosen": [says("user", "a"), says("assistant", "b")],
                "rejected": [says("user", "x"), says("assistant", "c")],
            },
            "chosen and rejected do not follow the same messages",
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
        ("[1]", "not a JSON object but of the JSON type array"),
        ("3", "not a JSON object but of the JSON type number"),
        ("null", "not a JSON object but of the JSON type null"),
        ("[" * 200_000, "nested too deeply"),
        ('{"prompt":' * 200_000, "nested too deeply"),
        ("1" * 10_000, "not a row"),
    ],
)
def test_a_line_that_is_no_object_is_refused_with_the_reason(line: str, reason: str) -> None:
    with pytest.raises(InvalidDataset, match=reason):
        parse_line(line)


def test_fields_that_are_not_read_are_named() -> None:
    flat = {"question": "q", "answer": "a", "context": "c", "split": "train", "system": "", "nothing": None}
    listed = {"messages": [says("user", "a") | {"name": "Ann"}, says("assistant", "b")], "id": 3}

    assert unused_fields(flat, detect_shape(flat)) == ["context"]
    assert sorted(unused_fields(listed, detect_shape(listed))) == ["id", "messages[].name"]
