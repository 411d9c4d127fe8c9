from __future__ import annotations

from pathlib import Path

import docx
import pytest
from docx.enum.style import WD_STYLE_TYPE
from tests.unit.rag.indexing.parsers.office_files import package, paragraph, word

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers.docx import parse
from terakoya.rag.indexing.parsers.parsed import Parsed

_NUMBERING = """<w:numbering xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">
<w:abstractNum w:abstractNumId="1"><w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="japaneseCounting"/>
<w:lvlText w:val="第%1章"/></w:lvl><w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="decimal"/>
<w:lvlText w:val="(%2)"/></w:lvl></w:abstractNum>
<w:num w:numId="5"><w:abstractNumId w:val="1"/></w:num></w:numbering>"""
_PART_RELS = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
_REL = (
    '<Relationship Id="{0}" Target="{0}.xml" Type="http://schemas.openxmlformats.org/officeDocument/2006/'
    'relationships/{0}"/>'
)


def blocks(document: Parsed) -> list[tuple[str, int, str]]:
    return [(block.kind, block.level, document.text[block.start : block.end]) for block in document.blocks]


def _by_hand(tmp_path: Path, body: str, **parts: str) -> Parsed:
    rels = _PART_RELS.format("".join(_REL.format(name) for name in parts))
    files = {"word/document.xml": word(body), "word/_rels/document.xml.rels": rels}
    return parse(package(tmp_path / "a.docx", files | {f"word/{name}.xml": xml for name, xml in parts.items()}))


def test_headings_lists_and_tables_of_a_document_keep_their_place(tmp_path: Path) -> None:
    document = docx.Document()
    document.core_properties.title = "就業規則"
    document.add_heading("休暇", level=1)
    document.add_paragraph("年次有給休暇は六か月の勤務の後に与える。")
    document.add_paragraph("申請は前日まで", style="List Bullet")
    document.add_paragraph("時季変更あり", style="List Bullet 2")
    document.add_heading("付与日数", level=2)
    table = document.add_table(rows=3, cols=2)
    for row, cells in zip(table.rows, [("勤続年数", "日数"), ("0.5", "10"), ("1.5", "11")], strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    document.save(str(tmp_path / "rules.docx"))
    parsed = parse(tmp_path / "rules.docx")
    assert parsed.title == "就業規則"
    assert blocks(parsed) == [
        ("heading", 1, "休暇"),
        ("paragraph", 0, "年次有給休暇は六か月の勤務の後に与える。"),
        ("list", 0, "- 申請は前日まで"),
        ("list", 0, "- 時季変更あり"),
        ("heading", 2, "付与日数"),
        ("table", 0, "勤続年数 | 日数\n0.5 | 10\n1.5 | 11"),
    ]
    assert parsed.blocks[-1].label == "勤続年数 | 日数"


def test_a_style_of_ones_own_is_a_heading_if_the_style_it_is_based_on_is(tmp_path: Path) -> None:
    document = docx.Document()
    style = document.styles.add_style("Our chapter", WD_STYLE_TYPE.PARAGRAPH)
    style.base_style = document.styles["Heading 2"]
    document.add_paragraph("Shipping", style="Our chapter")
    document.add_paragraph("Free from 5,000 yen.")
    document.save(str(tmp_path / "a.docx"))
    assert blocks(parse(tmp_path / "a.docx"))[0] == ("heading", 2, "Shipping")


def test_numbers_that_word_counts_are_written_as_word_shows_them(tmp_path: Path) -> None:
    def numbered(text: str, level: int, outline: str = "") -> str:
        numbering = f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="5"/></w:numPr>'
        return paragraph(text, f"<w:pPr>{numbering}{outline}</w:pPr>")

    chapter = '<w:outlineLvl w:val="0"/>'
    body = numbered("総則", 0, chapter) + numbered("目的", 1) + numbered("定義", 1) + numbered("休暇", 0, chapter)
    document = _by_hand(tmp_path, body + numbered("年休", 1), numbering=_NUMBERING)
    assert document.text == "第一章 総則\n\n  (1) 目的\n  (2) 定義\n\n第二章 休暇\n\n  (1) 年休"


def test_what_a_reader_of_the_page_does_not_see_is_left_out(tmp_path: Path) -> None:
    body = (
        "<w:p><w:r><w:t>Kept</w:t></w:r><w:del><w:r><w:delText>deleted</w:delText></w:r></w:del>"
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r><w:ins><w:r><w:t> and added</w:t></w:r></w:ins>"
        "<w:r><w:instrText>PAGE</w:instrText></w:r><w:r><w:ruby><w:rt><w:r><w:t>とうきょう</w:t></w:r></w:rt>"
        "<w:rubyBase><w:r><w:t>東京</w:t></w:r></w:rubyBase></w:ruby></w:r>"
        '<w:r><w:rPr><w:vanish w:val="0"/></w:rPr><w:t>.</w:t></w:r></w:p>'
    )
    assert _by_hand(tmp_path, body).text == "Kept and added東京."


def test_footnotes_stand_behind_the_paragraph_that_refers_to_them(tmp_path: Path) -> None:
    notes = (
        '<w:footnotes xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        '<w:footnote w:id="0" w:type="separator"><w:p><w:r><w:t>-</w:t></w:r></w:p></w:footnote>'
        '<w:footnote w:id="2"><w:p><w:r><w:t>Except in August.</w:t></w:r></w:p></w:footnote></w:footnotes>'
    )
    body = '<w:p><w:r><w:t>Open daily.</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r></w:p>' + paragraph("Next.")
    assert _by_hand(tmp_path, body, footnotes=notes).text == "Open daily.\n\nExcept in August.\n\nNext."


def test_pages_are_those_of_the_last_layout(tmp_path: Path) -> None:
    body = paragraph("First page.") + "<w:p><w:r><w:t>Goes </w:t><w:lastRenderedPageBreak/><w:t>on.</w:t></w:r></w:p>"
    document = _by_hand(tmp_path, body)
    assert document.page_starts is not None
    assert document.text[document.page_starts[1] :].strip() == "on."


def test_cells_merged_downwards_show_their_value_in_each_row(tmp_path: Path) -> None:
    def cell(text: str, merge: str = "") -> str:
        return f"<w:tc><w:tcPr>{merge}</w:tcPr>{paragraph(text) if text else '<w:p/>'}</w:tc>"

    rows = [
        cell("Region", "") + cell("Shop"),
        cell("East", '<w:vMerge w:val="restart"/>') + cell("Tokyo"),
        cell("", "<w:vMerge/>") + cell("Chiba"),
    ]
    body = f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in rows)}</w:tbl>"
    assert _by_hand(tmp_path, body).text == "Region | Shop\nEast | Tokyo\nEast | Chiba"


def test_an_entity_is_refused_before_it_is_expanded(tmp_path: Path) -> None:
    evil = '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + word(paragraph("&x;"))
    with pytest.raises(UnreadableDocument, match="declares a document type"):
        parse(package(tmp_path / "a.docx", {"word/document.xml": evil}))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<w:document", "no valid XML"),
        ("<a>" * 2_000, "nested more than"),
        (word(""), "holds no text"),
    ],
)
def test_a_document_that_cannot_be_read_says_why(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(UnreadableDocument, match=reason):
        parse(package(tmp_path / "a.docx", {"word/document.xml": content}))


def test_another_archive_is_no_word_document(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDocument, match="another kind of document"):
        parse(package(tmp_path / "a.docx", {"xl/workbook.xml": "<a/>"}, main="ppt/presentation.xml"))
