from __future__ import annotations

from pathlib import Path

import pytest

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers import parsed
from terakoya.rag.indexing.parsers.parsed import BlockKind
from terakoya.rag.indexing.parsers.plain import parse

TEXT = "返品について\n\n商品到着後30日以内であれば返品できます。\n送料は当店が負担します。\n"


def _file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("encoding", "notice"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-16", "converted from UTF-16"),
        ("cp932", "converted from CP932 (Shift_JIS as Windows writes it)"),
        ("euc_jp", "converted from EUC-JP"),
        ("iso2022_jp", "converted from ISO-2022-JP"),
    ],
)
def test_japanese_encodings_are_recognised_and_a_conversion_is_said(
    tmp_path: Path, encoding: str, notice: str | None
) -> None:
    document = parse(_file(tmp_path, TEXT.encode(encoding)))
    assert document.text == TEXT
    assert document.notices == (() if notice is None else (notice,))


def test_text_is_stored_as_it_is_but_for_line_ends(tmp_path: Path) -> None:
    text = "ﬁ １２ ｶﾞ e\u0301\u00a0x\r\nsecond\rthird  \n\n\n"
    document = parse(_file(tmp_path, text.encode()))
    assert document.text == text.replace("\r\n", "\n").replace("\r", "\n")


def test_paragraphs_and_items_are_blocks(tmp_path: Path) -> None:
    text = "Title\n\nBring:\n- a pen\n- paper,\n  lined\n\n   \n1. One\n2. Two\n"
    document = parse(_file(tmp_path, text.encode()))
    assert [(block.kind, document.text[block.start : block.end]) for block in document.blocks] == [
        (BlockKind.PARAGRAPH, "Title"),
        (BlockKind.PARAGRAPH, "Bring:"),
        (BlockKind.LIST, "- a pen"),
        (BlockKind.LIST, "- paper,\n  lined"),
        (BlockKind.LIST, "1. One"),
        (BlockKind.LIST, "2. Two"),
    ]


def test_one_damaged_byte_is_read_over_and_said(tmp_path: Path) -> None:
    document = parse(_file(tmp_path, TEXT.encode() * 20 + b"\xff"))
    assert document.text.endswith("\ufffd")
    assert document.notices == ("1 places were not valid UTF-8 and read \ufffd now",)


def test_stray_nuls_are_removed_and_said(tmp_path: Path) -> None:
    document = parse(_file(tmp_path, b"line\n" * 2000 + b"a\0b"))
    assert document.text.endswith("ab")
    assert document.notices == ("1 NUL characters were removed",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0", "a PNG image"),
        (b"PK\x03\x04rest", "a ZIP archive"),
        (b"text\0\0\0more", "NUL bytes"),
        (b"ab\x01\x02\x03\x04" * 100, "control characters"),
        ("naïve café crème brûlée à la carte".encode("cp1252"), "not UTF-8"),
        (b" \n\t\n", "no text"),
        (b"---- ....", "no text"),
    ],
)
def test_what_is_not_readable_text_is_refused_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableDocument, match=reason):
        parse(_file(tmp_path, content))


def test_too_much_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsed, "MAX_CHARACTERS", 1000)
    with pytest.raises(UnreadableDocument, match="1,000 characters"):
        parse(_file(tmp_path, b"a " * 501))
