"""CSV and JSON: files that are rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers import csv_table, json_text
from terakoya.rag.indexing.parsers.tables import header_rows, label_of


def _file(tmp_path: Path, content: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "file"
    path.write_bytes(content.encode(encoding))
    return path


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_the_separator_is_found_out(tmp_path: Path, separator: str) -> None:
    rows = [["品番", "品名", "単価(円)"], ["A-1", "机, 大", "12,800"], ["A-2", "椅子", "6,400"]]
    content = "\n".join(separator.join(f'"{cell}"' for cell in row) for row in rows)
    parsed = csv_table.parse(_file(tmp_path, content, "cp932"))
    assert parsed.text == "品番 | 品名 | 単価(円)\nA-1 | 机, 大 | 12,800\nA-2 | 椅子 | 6,400"
    assert parsed.blocks[0].label == "品番 | 品名 | 単価(円)"


def test_a_cell_of_several_lines_stays_one_row(tmp_path: Path) -> None:
    parsed = csv_table.parse(_file(tmp_path, 'name,note\nA,"two\nlines"\nB,one\n'))
    assert parsed.text == "name | note\nA | two lines\nB | one"


@pytest.mark.parametrize(
    ("rows", "headers"),
    [
        ([["name", "price"], ["desk", "12"]], 1),
        ([["name", "price"], ["", "(yen)"], ["desk", "12"]], 2),
        ([["1", "2"], ["3", "4"]], 0),
        ([["name", "name"], ["a", "1"]], 0),
        ([["desk", "wood"], ["chair", "steel"]], 0),
        ([["2026-04-01", "open"], ["2026-04-02", "shut"]], 0),
    ],
)
def test_a_header_is_guessed_from_what_stands_below_it(rows: list[list[str]], headers: int) -> None:
    assert header_rows(rows) == headers


def test_a_long_header_is_cut_where_a_label_ends() -> None:
    label = label_of([[f"column {number}" for number in range(99)], ["1"] * 99])
    assert len(label) <= 160
    assert label.endswith("…")


def test_alike_objects_are_a_table_and_numbers_stay_as_written(tmp_path: Path) -> None:
    parsed = json_text.parse(_file(tmp_path, '[{"id": 1.50, "名前": "机"}, {"id": 2e3, "名前": "椅子"}]'))
    assert parsed.text == "id | 名前\n1.50 | 机\n2e3 | 椅子"


def test_an_object_is_read_under_the_keys_that_lead_to_it(tmp_path: Path) -> None:
    content = '{"name": "shop", "open": true, "none": null, "delivery": {"days": [1, 2], "area": {"max_km": 20}}}'
    parsed = json_text.parse(_file(tmp_path, content))
    assert [(block.kind, block.level, parsed.text[block.start : block.end]) for block in parsed.blocks] == [
        ("paragraph", 0, "name: shop\nopen: true"),
        ("heading", 1, "delivery"),
        ("heading", 2, "days"),
        ("list", 0, "- 1"),
        ("list", 0, "- 2"),
        ("heading", 2, "area"),
        ("paragraph", 0, "max_km: 20"),
    ]


def test_lines_of_records_are_one_paragraph_each(tmp_path: Path) -> None:
    content = '{"q": "いつ", "a": {"text": "明日", "tags": ["x", "y"]}}\n\n{"q": "どこ"}\n'
    assert json_text.parse_lines(_file(tmp_path, content)).text == "q: いつ\na.text: 明日\na.tags: x, y\n\nq: どこ"


def test_a_damaged_line_is_named_and_many_are_refused(tmp_path: Path) -> None:
    parsed = json_text.parse_lines(_file(tmp_path, '{"a": 1}\n{oops\n'))
    assert parsed.notices == ("1 lines that are not valid JSON were left out, the first is line 2",)
    with pytest.raises(UnreadableDocument, match=r"3 of its 4 lines .* first is line 2"):
        json_text.parse_lines(_file(tmp_path, "{}\na\nb\nc\n"))


@pytest.mark.parametrize("parse", [json_text.parse, json_text.parse_lines])
@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "{", '[{"a":1}'])
def test_hostile_json_is_refused(tmp_path: Path, parse: object, content: str) -> None:
    with pytest.raises(UnreadableDocument):
        parse(_file(tmp_path, content))  # type: ignore[operator]
