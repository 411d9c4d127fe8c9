from __future__ import annotations

from pathlib import Path

import pytest

from terakoya.data.examples import answers, prompt_key, read_examples, to_line
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
