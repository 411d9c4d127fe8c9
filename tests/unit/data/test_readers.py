"""Real files of every format, as rows."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
import tracemalloc
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from terakoya.data import sources
from terakoya.data.problems import Problem
from terakoya.data.readers import open_file
from terakoya.data.readers.plain import PASSAGE_CHARACTERS
from terakoya.data.sources import Source
from terakoya.exceptions import InvalidDataset

ROWS = [
    {"prompt": "注文した自転車は、いつ届きますか？", "completion": "配送状況"},
    {"prompt": 'He said "hi",\nand left', "completion": "挨拶"},
    {"prompt": "鍵をなくしました；助けて", "completion": "紛失"},
]
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "cp932", "euc_jp")


def as_table(rows: Sequence[dict[str, str]], delimiter: str) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


TEXTS = {
    "jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    "json": json.dumps(ROWS, ensure_ascii=False),
    "json of many lines": json.dumps(ROWS, ensure_ascii=False, indent=2),
    "json objects of many lines": "\n".join(json.dumps(row, ensure_ascii=False, indent=2) for row in ROWS),
    "csv": as_table(ROWS, ","),
    "csv of Excel": as_table(ROWS, ";"),
    "tsv": as_table(ROWS, "\t"),
}


def rows_of(path: Path, name: str | None = None, wanted: Sequence[str] = ("prompt", "completion")) -> list[Any]:
    with tempfile.TemporaryFile() as unpacked:
        opened = open_file(Source(path, limit_bytes=2**30), filename=name, wanted=wanted, unpacked=unpacked)
        return list(opened.rows)


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("format", TEXTS)
def test_every_format_is_recognised_and_read_in_every_encoding(
    tmp_path: Path, format: str, encoding: str, packed: bool
) -> None:
    content = TEXTS[format].encode(encoding)
    file = write(tmp_path / "upload", gzip.compress(content) if packed else content)

    assert [{name: value.replace("\r\n", "\n") for name, value in row.items()} for _, row in rows_of(file)] == ROWS


@pytest.mark.parametrize("packed", [False, True])
def test_parquet_is_read_with_its_lists_of_messages(tmp_path: Path, packed: bool) -> None:
    messages = [
        [{"role": "user", "content": f"問い {n}"}, {"role": "assistant", "content": str(n)}] for n in range(700)
    ]
    table = arrow.table({"messages": messages, "embedding": [[0.1] * 4] * 700})
    file = tmp_path / "rows.parquet"
    parquet.write_table(table, file, row_group_size=300)
    if packed:
        file.write_bytes(gzip.compress(file.read_bytes()))

    rows = rows_of(file, wanted=("messages",))

    assert [number for number, _ in rows] == list(range(1, 701))
    assert [row["messages"] for _, row in rows] == messages
    assert set(rows[0][1]) == {"messages", "embedding"}
    assert rows[0][1]["embedding"] is ...  # named, not decoded


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("number", 3),
        ("moment", datetime(2026, 1, 1, tzinfo=UTC)),
        ("bytes", b"\xff\x00"),
        ("object", {"a": 1}),
        ("list", ["a"]),
        ("nothing", None),
    ],
)
def test_parquet_values_of_other_types_are_handed_on_for_a_row_to_be_refused(
    tmp_path: Path, column: str, value: Any
) -> None:
    file = tmp_path / "rows.parquet"
    parquet.write_table(arrow.table({"prompt": ["a"], column: [value]}), file)

    assert rows_of(file, wanted=("prompt", column))[0][1] == {"prompt": "a", column: value}


@pytest.mark.parametrize("keep", [5, 50, -1, -9])
def test_a_damaged_parquet_file_is_named(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "rows.parquet"
    parquet.write_table(arrow.table({"prompt": ["a"] * 100}), file)
    file.write_bytes(file.read_bytes()[:keep])

    with pytest.raises(InvalidDataset, match="the Parquet file is damaged"):
        rows_of(file)


def test_a_parquet_file_with_flipped_bytes_is_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    parquet.write_table(arrow.table({"prompt": ["abc"] * 20, "completion": ["d"] * 20}), file)
    whole = file.read_bytes()
    for position in range(4, len(whole) - 8, 7):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            rows_of(file)
        except InvalidDataset:
            continue


def test_rows_of_text_carry_the_number_of_the_line_they_begin_on(tmp_path: Path) -> None:
    table = write(tmp_path / "a", 'prompt,completion\n\n"a\nb",c\nd,e\n')
    lines = write(tmp_path / "b", '\n{"a": 1}\n\n{"a": 2}\n')
    array = write(tmp_path / "c", '[\n\n{"a": 1},\n{"a": 2}]')

    assert [number for number, _ in rows_of(table)] == [3, 5]
    assert [number for number, _ in rows_of(lines)] == [2, 4]
    assert [number for number, _ in rows_of(array)] == [1, 2]


def test_the_name_decides_only_what_the_content_leaves_open(tmp_path: Path) -> None:
    one_column = write(tmp_path / "a", "text\nfirst\nsecond\n")
    lines = write(tmp_path / "b", '{"prompt": "a"}\n')
    comma = write(tmp_path / "c", "a,b\tc\n1,2\t3\n")

    assert [row for _, row in rows_of(one_column, "rows.CSV")] == [{"text": "first"}, {"text": "second"}]
    assert rows_of(lines, "rows.csv") == [(1, {"prompt": "a"})]
    assert rows_of(comma, "rows.tsv.gz") == [(2, {"a,b": "1,2", "c": "3"})]


def test_rows_in_a_file_that_is_called_text_are_rows(tmp_path: Path) -> None:
    lines = write(tmp_path / "a", '{"prompt": "a"}\n\n{"prompt": "b"}\n')
    prose = write(tmp_path / "b", '{"prompt": "a"}\nis how a row is written.\n')
    assert rows_of(lines, "rows.txt") == [(1, {"prompt": "a"}), (3, {"prompt": "b"})]
    assert rows_of(prose, "guide.md") == [(1, {"text": '{"prompt": "a"}\nis how a row is written.'})]


def test_plain_text_without_blank_lines_is_cut_at_line_ends(tmp_path: Path) -> None:
    line = "あ" * 99
    rows = rows_of(write(tmp_path / "a", f"{line}\n" * 1000), "corpus.txt")
    texts = [row["text"] for _, row in rows]  # type: ignore[index]
    assert "\n".join(texts) == "\n".join([line] * 1000)
    assert max(map(len, texts)) <= 4 * PASSAGE_CHARACTERS + 100
    assert [number for number, _ in rows[:2]] == [1, 161]


def test_plain_text_is_cut_at_blank_lines(tmp_path: Path) -> None:
    paragraph = "あ" * (PASSAGE_CHARACTERS // 2)
    file = write(tmp_path / "a", f"\n\n# 題\r\n\r\n{paragraph}\n\n{paragraph}\n\n\n続き\n")

    assert rows_of(file, "book.md") == [
        (3, {"text": f"# 題\n\n{paragraph}\n\n{paragraph}"}),
        (10, {"text": "続き"}),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('[{"a": 1}, {"a": 2}', "not a JSON array: the array is not closed: the file is cut off on line 1"),
        ('[{"a": 1}\n{"a": 2}]', "a comma is missing between two values on line 2"),
        ('[{"a": 1},]', "a comma stands before the closing bracket"),
        ('[{"a": 1}] x', "text follows the closing bracket"),
        ('[\n{"a": 1},\n{"a": x}]', "the file is not JSON: Expecting value on line 3"),
        ('[{"a": "b', "the file is not JSON: Unterminated string starting at on line 1"),
        ("[" * 100_000, "nested too deeply"),
        ("[" + "1" * 10_000, "cannot be read"),
        ('["' + "a" * 5 * 2**20, "the file is not JSON: Unterminated string"),
        ("a,b,a\n1,2,3\n", "names the column 'a' twice"),
        ('a,"b\n1,2\n', "the header of the table cannot be read: a quote is opened here"),
        ("a,b\n" + "x" * 5 * 2**20, "line 2 is longer than 4 MiB"),
    ],
)
def test_a_file_that_cannot_be_told_into_rows_is_refused_with_the_place(
    tmp_path: Path, content: str, reason: str
) -> None:
    with pytest.raises(InvalidDataset, match=reason):
        rows_of(write(tmp_path / "a", content))


@pytest.mark.parametrize(
    ("content", "number", "reason"),
    [
        ("a,b\n1,2,3\n4,5\n", 2, "3 columns where the header has 2"),
        ('a,b\n"1"x,2\n4,5\n', 2, "a quoted field is followed by other text"),
        ('a,b\n4,5\n"1,2\n', 3, "a quote is opened here and not closed; 1 lines were passed over"),
        ("a,b\n1\r2,3\n4,5\n", 2, "a carriage return alone"),
        ('{"a": 1}\n{"a": \x01}\n', 2, "not JSON"),
        ('[{"a": 1}, 3]', 2, "of the JSON type number"),
    ],
)
def test_a_row_that_cannot_be_parsed_is_named_and_the_others_are_read(
    tmp_path: Path, content: str, number: int, reason: str
) -> None:
    rows = rows_of(write(tmp_path / "a", content))

    assert len(rows) == 2
    assert reason in next(row.reason for place, row in rows if place == number and isinstance(row, Problem))


def test_values_across_pieces_of_the_file_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_CHUNK_BYTES", 3)
    monkeypatch.setattr(sources, "_PACKED_BYTES", 2)
    for format, text in TEXTS.items():
        rows = rows_of(write(tmp_path / "a", gzip.compress(text.encode())))
        assert [row["completion"] for _, row in rows] == ["配送状況", "挨拶", "紛失"], format


def test_a_large_array_is_read_in_a_window(tmp_path: Path) -> None:
    file = tmp_path / "a"
    with file.open("w") as array:
        array.write("[")
        array.writelines(f'{{"prompt": "{"x" * 1000}", "completion": "{n}"}},\n' for n in range(20_000))
        array.write('{"prompt": "last", "completion": ""}]')

    tracemalloc.start()
    with tempfile.TemporaryFile() as unpacked:
        opened = open_file(Source(file), filename=None, wanted=(), unpacked=unpacked)
        count = sum(1 for _ in opened.rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert count == 20_001
    assert peak < 12 * 2**20


def test_a_gzip_bomb_is_stopped_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_RATIO_COUNTS_FROM", 2**20)
    squeeze = zlib.compressobj(9, wbits=31)
    row = b'{"prompt": "a", "completion": "b"}\n' * 1000
    file = write(tmp_path / "a", b"".join(squeeze.compress(row) for _ in range(1000)) + squeeze.flush())

    with pytest.raises(InvalidDataset, match="unpacks to more than 300 times its size"):
        rows_of(file)


def test_an_archive_may_unpack_to_what_an_upload_may_have(tmp_path: Path) -> None:
    file = write(tmp_path / "a", gzip.compress(b'{"prompt": "a"}\n' * 1000))

    with pytest.raises(InvalidDataset, match="unpacks to more than the 10,000 bytes"):
        list(Source(file, limit_bytes=10_000).chunks())


def test_an_archive_of_several_members_is_one_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a", gzip.compress(b"abc") + gzip.compress(b"def") + b"\0" * 100)

    assert b"".join(Source(file).chunks()) == b"abcdef"


@pytest.mark.parametrize("damage", [lambda whole: whole[:-9], lambda whole: whole[:20] + b"\xff" + whole[21:]])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: Any) -> None:
    file = write(tmp_path / "a", damage(gzip.compress(TEXTS["jsonl"].encode())))

    with pytest.raises(InvalidDataset, match=r"the gzip archive is (damaged|cut off)"):
        rows_of(file)


def test_an_ending_in_jsonl_is_believed_where_nothing_looks_like_json(tmp_path: Path) -> None:
    words = rows_of(write(tmp_path / "a", "not json\n"), "rows.jsonl.gz")
    array = rows_of(write(tmp_path / "b", '[{"a": 1}]'), "rows.jsonl")

    assert isinstance(words[0][1], Problem)
    assert array == [(1, {"a": 1})]
