from __future__ import annotations

import pytest

from terakoya.data.formats import parse_row
from terakoya.data.mapping import shape_of
from terakoya.domain.datasets import DatasetKind, Message, Split
from terakoya.exceptions import InvalidConfig, InvalidDataset

ROW = {
    "Frage": "q",
    "Kontext": "c",
    "Antwort": "a",
    "Falsch": "r",
    "Rolle": "s",
    "Teil": "test",
    "Turns": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
}
QUESTION, ANSWER, SYSTEM = Message("user", "q"), Message("assistant", "a"), Message("system", "s")


@pytest.mark.parametrize(
    ("mapping", "messages", "rejected", "text"),
    [
        ({"prompt": "Frage", "answer": "Antwort"}, (QUESTION, ANSWER), None, None),
        (
            {"prompt": "Frage", "input": "Kontext", "answer": "Antwort", "system": "Rolle"},
            (SYSTEM, Message("user", "q\n\nc"), ANSWER),
            None,
            None,
        ),
        ({"messages": "Turns", "system": "Rolle"}, (SYSTEM, QUESTION, ANSWER), None, None),
        ({"prompt": "Frage", "chosen": "Antwort", "rejected": "Falsch"}, (QUESTION, ANSWER), "r", None),
        ({"text": "Kontext"}, (), None, "c"),
    ],
)
def test_columns_are_read_for_what_they_are_said_to_be(
    mapping: dict[str, str], messages: tuple[Message, ...], rejected: str | None, text: str | None
) -> None:
    example = parse_row(ROW, 1, shape_of(mapping | {"split": "Teil"}))

    assert (example.messages, example.rejected, example.text) == (messages, rejected, text)
    assert example.split is Split.HELDOUT


def test_a_reason_names_the_columns_as_they_are_called_in_the_file() -> None:
    shape = shape_of({"prompt": "Frage", "answer": "Antwort"})

    with pytest.raises(InvalidDataset, match="'Antwort' is empty"):
        parse_row({"Frage": "q", "Antwort": " "}, 1, shape)
    with pytest.raises(InvalidDataset, match="it lacks the column 'Antwort' of the mapping"):
        parse_row({"Frage": "q"}, 1, shape)


@pytest.mark.parametrize(
    "mapping",
    [
        {"prompt": "a"},
        {"answer": "a"},
        {"split": "a"},
        {"prompt": "a", "answer": "b", "text": "c"},
        {"text": "a", "system": "b"},
        {"messages": "a", "input": "b"},
        {"chosen": "a"},
        {"prompt": "a", "answer": "a"},
        {"prompt": "", "answer": "b"},
        {"prompt": "x" * 201, "answer": "b"},
        {"frage": "a", "answer": "b"},
        {"prompt": "system", "answer": "b"},
        {"prompt": "a", "answer": "split"},
    ],
)
def test_a_mapping_that_makes_no_row_is_refused(mapping: dict[str, str]) -> None:
    with pytest.raises(InvalidConfig):
        shape_of(mapping)


def test_the_kind_follows_from_the_mapping() -> None:
    assert shape_of({"text": "a"}).kind is DatasetKind.TEXT
    assert shape_of({"chosen": "a", "rejected": "b"}).kind is DatasetKind.PREFERENCE
