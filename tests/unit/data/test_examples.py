from __future__ import annotations

import json
from pathlib import Path

import pytest

from terakoya.data.examples import answers, prompt_key, read_examples, stored_row, to_line, to_record
from terakoya.domain.datasets import Example, Message, Split
from terakoya.exceptions import InvalidDataset

TURNS = (Message("user", "a"), Message("assistant", "b"), Message("user", "c\n"), Message("assistant", "d\u2028"))


def test_what_is_stored_is_read_back_the_same(tmp_path: Path) -> None:
    examples = [Example(1, TURNS), Example(3, TURNS[:2], Split.HELDOUT)]
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"".join(map(to_line, examples)))

    assert list(read_examples(rows)) == examples


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"row": 1}', b'{"row": 1, "messages": [], "split": "x"}'])
def test_damaged_rows_are_named_by_line(tmp_path: Path, line: bytes) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(to_line(Example(1, TURNS)) + line)

    with pytest.raises(InvalidDataset, match=r"line 2 of the stored rows 'rows.jsonl' is damaged"):
        list(read_examples(rows))


def test_a_conversation_gives_one_example_for_each_answer() -> None:
    cut = list(answers([Example(5, TURNS, Split.TRAIN)]))

    assert [example.messages for example in cut] == [TURNS[:2], TURNS]
    assert {(example.row, example.split) for example in cut} == {(5, Split.TRAIN)}


def test_prompts_that_differ_in_case_width_or_spacing_alone_are_the_same() -> None:
    def key(text: str, role: str = "user") -> bytes:
        return prompt_key(Example(1, (Message(role, text), Message("assistant", "x"))))  # type: ignore[arg-type]

    assert key("Ｗhere is  it?\n") == key("where is it?")
    assert key("where is it") != key("where is it?")
    assert key("a") != key("a", role="system")


@pytest.mark.parametrize(
    "example",
    [
        Example(1, TURNS, Split.TRAIN),
        Example(
            2,
            (Message("user", 'say "\u0007\\" 寺子屋 \U0001f6b2\x7f'), Message("assistant", "\t\r\n")),
            None,
            "no\u2029",
        ),
        Example(3, (), Split.HELDOUT, text="一\n二"),
    ],
)
def test_a_line_is_the_json_of_what_is_shown(example: Example) -> None:
    line = to_line(example)

    assert json.loads(line) == to_record(example)
    assert line == json.dumps(to_record(example), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def test_what_a_row_holds_has_one_key_whatever_its_number_and_split() -> None:
    keys = [
        stored_row(example)[1]
        for example in (
            *(Example(1, TURNS), Example(2, TURNS, Split.HELDOUT)),
            *(Example(3, TURNS[:2]), Example(4, TURNS[:2], rejected="x"), Example(5, (), text="a")),
        )
    ]

    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_running_text_is_its_own_prompt() -> None:
    assert prompt_key(Example(1, (), text="Ａ b")) == prompt_key(Example(2, (), text="a  B\n"))
