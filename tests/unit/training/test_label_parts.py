from __future__ import annotations

from terakoya.data.tokenization import EncodedExample
from terakoya.training.chaining import _groups
from terakoya.training.label_parts import label_parts


def test_parts_have_every_label_once_and_nothing_behind_it() -> None:
    row = EncodedExample(1, list(range(12)), ((2, 5), (7, 12)))
    parts = label_parts(row, most=4)
    assert [part.label_spans for part in parts] == [((2, 5), (7, 8)), ((8, 12),)]
    assert [part.input_ids for part in parts] == [list(range(8)), list(range(12))]
    assert label_parts(row) == [row]


def test_rows_are_measured_together_only_as_far_as_they_fit() -> None:
    def row(tokens: int, labels: int) -> EncodedExample:
        return EncodedExample(1, [0] * tokens, ((tokens - labels, tokens),))

    assert [len(group) for group in _groups([row(30, 5)] * 20, 2048)] == [16, 4]
    assert [len(group) for group in _groups([row(30, 5)] * 4, 60)] == [2, 2]
    assert [len(group) for group in _groups([row(900, 300)] * 2, 2048)] == [1, 1]
    assert [len(group) for group in _groups([row(3000, 700), row(10, 1)], 2048)] == [1, 1]
