from __future__ import annotations

from datetime import date, datetime, time
from pathlib import Path

import openpyxl
import pytest
from tests.unit.rag.indexing.parsers.office_files import package

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers.parsed import Parsed
from terakoya.rag.indexing.parsers.xlsx import parse
from terakoya.rag.indexing.parsers.xlsx_numbers import shown


def _saved(book: openpyxl.Workbook, tmp_path: Path) -> Parsed:
    book.save(tmp_path / "book.xlsx")
    return parse(tmp_path / "book.xlsx")


def test_sheets_are_pages_and_their_blocks_tables_with_caption_header_and_units(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "価格表"
    for row in [
        ["2026年度 価格表"],
        ["品目", "単価", "在庫"],
        ["", "(円)", "(個)"],
        ["机", 12800, 4],
        ["椅子", 6400, 12],
    ]:
        sheet.append(row)
    sheet.append([])
    sheet.append(["備考: 税別"])
    other = book.create_sheet("支店")
    other.append(["支店", "電話"])
    other.append(["東京", "03-1234-5678"])
    other.append(["大阪", "06-1234-5678"])
    parsed = _saved(book, tmp_path)
    assert parsed.text == (
        "価格表\n\n2026年度 価格表\n品目 | 単価 | 在庫\n | (円) | (個)\n机 | 12800 | 4\n椅子 | 6400 | 12\n\n"
        "備考: 税別\n\n支店\n\n支店 | 電話\n東京 | 03-1234-5678\n大阪 | 06-1234-5678"
    )
    assert parsed.blocks[1].label == "2026年度 価格表 品目 | 単価 (円) | 在庫 (個)"
    assert parsed.page_starts is not None
    assert [parsed.text[start:].split("\n")[0] for start in parsed.page_starts] == ["価格表", "支店"]


def test_values_are_written_as_their_formats_show_them(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    values = [
        (date(2026, 4, 1), "yyyy/m/d"),
        (date(2026, 4, 1), 'yyyy"年"m"月"d"日"'),
        (datetime(2026, 4, 1, 13, 30), "yyyy-mm-dd h:mm"),
        (time(9, 5), "h:mm"),
        (0.085, "0.0%"),
        (1234567, "#,##0"),
        (1200, '#,##0"円"'),
        (1200, "¥#,##0"),
        (-5, "#,##0;[Red]-#,##0"),
        (0.1, "General"),
        (True, "General"),
    ]
    for row, (value, form) in enumerate(values, start=1):
        sheet.cell(row, 1, "値")
        sheet.cell(row, 2, value).number_format = form
    cells = [line.split(" | ")[1] for line in _saved(book, tmp_path).text.split("\n")[2:]]
    assert cells == [
        *("2026-04-01", "2026年4月1日", "2026-04-01 13:30", "9:05", "8.5%"),
        *("1,234,567", "1,200円", "¥1,200", "-5", "0.1", "TRUE"),
    ]


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        ("1e400", "0", "1e400"),
        ("abc", "0", "abc"),
        ("45748", "[$-411]ggge年m月d日", "2025年4月1日"),
        ("99999999999", "yyyy/m/d", "99999999999"),
        ("1.5", "[h]:mm", "36:00"),
        ("3", "0.00E+00", "3"),
        ("12.50", "0.0#", "12.5"),
        ("2.10", '0.00"kg"', "2.10kg"),
    ],
)
def test_odd_numbers_and_formats(value: str, form: str, expected: str) -> None:
    assert shown(value, form) == expected


def test_cells_merged_downwards_show_their_value_in_each_row(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    for row in [["地域", "店"], ["東", "東京"], [None, "千葉"], ["西", "大阪"]]:
        sheet.append(row)
    sheet.merge_cells("A2:A3")
    assert _saved(book, tmp_path).text.split("\n")[2:] == ["地域 | 店", "東 | 東京", "東 | 千葉", "西 | 大阪"]


def test_hidden_sheets_rows_and_columns_are_left_out_and_said(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    for row in [["a", "secret", "b"], ["1", "x", "2"], ["hidden", "row", "3"], ["4", "y", "5"]]:
        sheet.append(row)
    sheet.column_dimensions["B"].hidden = True
    sheet.row_dimensions[3].hidden = True
    book.create_sheet("Internal").sheet_state = "hidden"
    parsed = _saved(book, tmp_path)
    assert "secret" not in parsed.text
    assert "row" not in parsed.text
    assert parsed.notices == (
        "hidden sheets were left out: Internal",
        "1 hidden or filtered rows were left out",
        "1 hidden columns were left out",
    )


def test_formulas_without_a_result_are_said(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["total", "=SUM(C1:C9)"])
    parsed = _saved(book, tmp_path)
    assert parsed.text.endswith("total")
    assert parsed.notices[0].startswith("1 formulas have no stored result")


_WORKBOOK = (
    '<workbook xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets>'
    '<sheet name="S" r:id="rId1"/></sheets></workbook>'
)
_SHEET_RELS = (
    '<Relationships><Relationship Id="rId1" Target="sheet.xml" Type="http://schemas.openxmlformats.org/officeDocument/'
    '2006/relationships/worksheet"/></Relationships>'
)


def _by_hand(tmp_path: Path, rows: str) -> Parsed:
    parts = {
        "xl/workbook.xml": _WORKBOOK,
        "xl/_rels/workbook.xml.rels": _SHEET_RELS,
        "xl/sheet.xml": f"<worksheet><sheetData>{rows}</sheetData></worksheet>",
    }
    return parse(package(tmp_path / "a.xlsx", parts, main="xl/workbook.xml"))


def test_cells_far_apart_cost_no_more_than_cells_side_by_side(tmp_path: Path) -> None:
    row = '<row r="{0}"><c r="A{0}"><v>1</v></c><c r="XFD{0}"><v>2</v></c></row>'
    parsed = _by_hand(tmp_path, row.format(1) + row.format(1_048_576))
    assert parsed.text == "S\n\n1 | 2\n\n1 | 2"


def test_a_sheet_that_is_mostly_empty_columns_is_refused_before_it_is_written(tmp_path: Path) -> None:
    rows = "".join(f'<row r="{at}"><c r="{_letters(at)}{at}"><v>1</v></c></row>' for at in range(1, 4_001))
    with pytest.raises(UnreadableDocument, match="nearly all of them empty"):
        _by_hand(tmp_path, rows)


def _letters(column: int) -> str:
    return openpyxl.utils.get_column_letter(column)
