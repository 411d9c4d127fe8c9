from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terakoya.data.examples import to_line
from terakoya.data.long_rows import pieces
from terakoya.data.row_view import JoinedRows, RowView
from terakoya.data.stored_rows import StoredRows
from terakoya.data.token_store import TokenStore, TokenWriter, largest_token, lengths_of
from terakoya.data.tokenization import EncodedExample
from terakoya.domain.datasets import Example, Message
from terakoya.exceptions import InvalidDataset

ROWS = [
    EncodedExample(1, [1, 2, 3], ((1, 3),), "ask", "answer"),
    EncodedExample(4, [7], ((0, 1),)),
    EncodedExample(9, [5, 4_000_000_000, 5, 5], ((0, 1), (3, 4)), "質問\ud800", "𠮷"),
]


def stored(folder: Path, rows: list[EncodedExample]) -> TokenStore:
    with TokenWriter(folder) as writer:
        writer.extend(rows)
        assert len(writer) == len(rows)
        writer.finish(split_conversations=2)
    return TokenStore(folder)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    store = stored(tmp_path, ROWS)
    assert list(store) == ROWS
    assert (store[-1], store[:2], len(store)) == (ROWS[2], ROWS[:2], 3)
    assert store.facts == {"split_conversations": 2}
    assert lengths_of(store).tolist() == lengths_of(ROWS).tolist() == [3, 1, 4]
    assert largest_token(store) == largest_token(ROWS) == 4_000_000_000


def test_more_rows_than_are_written_at_once(tmp_path: Path) -> None:
    rows = [EncodedExample(number, [number, 1], ((1, 2),), str(number)) for number in range(9000)]
    assert list(stored(tmp_path, rows)) == rows


def test_no_rows(tmp_path: Path) -> None:
    store = stored(tmp_path, [])
    assert (list(store), largest_token(store)) == ([], 0)


@pytest.mark.parametrize("file", ["ids", "rows", "spans", "texts", "counts.json"])
def test_a_store_that_lost_bytes_or_a_file_does_not_open(tmp_path: Path, file: str) -> None:
    stored(tmp_path, ROWS)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"were written|no whole store|Expecting|Unterminated"):
        TokenStore(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="no whole store"):
        TokenStore(tmp_path)


def test_an_unfinished_store_does_not_open(tmp_path: Path) -> None:
    with TokenWriter(tmp_path) as writer:
        writer.append(ROWS[0])
    with pytest.raises(ValueError, match="no whole store"):
        TokenStore(tmp_path)


def test_a_view_chooses_and_cuts(tmp_path: Path) -> None:
    store = stored(tmp_path, ROWS)
    [cut] = pieces(4, ROWS[2].label_spans, 3, "truncate")
    view = RowView(store, np.array([2, 0]), {0: cut})
    assert [row.row for row in view] == [9, 1]
    assert view[0].input_ids == [5, 4_000_000_000, 5]
    assert view[0].label_spans == ((0, 1),)
    assert view.lengths.tolist() == [len(row.input_ids) for row in view] == [3, 3]
    assert lengths_of(store).tolist() == [3, 1, 4]


def test_joined_rows_are_those_of_both(tmp_path: Path) -> None:
    store = stored(tmp_path, ROWS)
    again = RowView(store, np.array([1, 1, 0]))
    joined = JoinedRows(store, again)
    assert [row.row for row in joined] == [1, 4, 9, 4, 4, 1]
    assert joined.lengths.tolist() == lengths_of(list(joined)).tolist()
    assert joined[2:4] == [ROWS[2], ROWS[1]]
    assert joined[-1] == ROWS[0]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=20), st.data())
def test_stored_rows_are_read_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    examples = [Example(n, (Message("user", t), Message("assistant", "x"))) for n, t in enumerate(texts, start=1)]
    path.write_bytes(b"".join(map(to_line, examples)))
    rows = StoredRows.of(path)
    order = data.draw(st.permutations(range(len(texts))))
    assert list(rows) == examples
    assert list(rows.at(np.array(order))) == [examples[place] for place in order]
    assert rows[order[0]] == examples[order[0]]
    assert list(rows[1:3]) == examples[1:3]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(to_line(Example(1, (Message("user", "a"), Message("assistant", "b")))) + b"{\n")
    rows = StoredRows.of(path)
    assert (len(rows), rows[0].row) == (2, 1)
    with pytest.raises(InvalidDataset, match="line 2 of the stored rows"):
        rows[1]
