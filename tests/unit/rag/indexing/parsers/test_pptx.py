from __future__ import annotations

from pathlib import Path

import pytest
from pptx import Presentation
from pptx.util import Inches

from terakoya.rag.indexing.parsers.parsed import Parsed
from terakoya.rag.indexing.parsers.pptx import parse


def _parsed(presentation: object, tmp_path: Path) -> Parsed:
    path = tmp_path / "slides.pptx"
    presentation.save(str(path))  # type: ignore[attr-defined]
    return parse(path)


@pytest.fixture
def presentation() -> object:
    made = Presentation()
    first = made.slides.add_slide(made.slide_layouts[1])
    first.shapes.title.text = "返品の流れ"
    frame = first.placeholders[1].text_frame
    frame.text = "三十日以内"
    nested = frame.add_paragraph()
    nested.text = "未開封に限る"
    nested.level = 1
    first.notes_slide.notes_text_frame.text = "質問が多いところ。"
    second = made.slides.add_slide(made.slide_layouts[5])
    second.shapes.title.text = "料金"
    table = second.shapes.add_table(3, 2, Inches(1), Inches(2), Inches(4), Inches(2)).table
    for row, cells in enumerate([("地域", "送料 (円)"), ("関東", "500"), ("九州", "900")]):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    return made


def test_a_slide_is_a_page_with_its_title_lists_tables_and_notes(presentation: object, tmp_path: Path) -> None:
    parsed = _parsed(presentation, tmp_path)
    assert [(block.kind, block.level, parsed.text[block.start : block.end]) for block in parsed.blocks] == [
        ("heading", 1, "返品の流れ"),
        ("list", 0, "- 三十日以内"),
        ("list", 1, "  - 未開封に限る"),
        ("paragraph", 0, "質問が多いところ。"),
        ("heading", 1, "料金"),
        ("table", 0, "地域 | 送料 (円)\n関東 | 500\n九州 | 900"),
    ]
    assert parsed.blocks[-1].label == "地域 | 送料 (円)"
    assert parsed.page_starts is not None
    assert [parsed.text[start : start + 2] for start in parsed.page_starts] == ["返品", "料金"]
    assert parsed.notices == ("the speaker's notes are read with their slides",)


def test_hidden_slides_are_left_out_and_said(presentation: object, tmp_path: Path) -> None:
    presentation.slides[1]._element.set("show", "0")  # type: ignore[attr-defined]
    parsed = _parsed(presentation, tmp_path)
    assert "料金" not in parsed.text
    assert "hidden slides were left out: 2" in parsed.notices
    assert len(parsed.page_starts or ()) == 2


def test_a_slide_without_a_title_leaves_the_heading_of_the_one_before(presentation: object, tmp_path: Path) -> None:
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])  # type: ignore[attr-defined]
    box = slide.shapes.add_textbox(Inches(1), Inches(1), Inches(4), Inches(1))
    box.text_frame.text = "お問い合わせ"
    parsed = _parsed(presentation, tmp_path)
    assert parsed.blocks[-1].kind == "heading"
