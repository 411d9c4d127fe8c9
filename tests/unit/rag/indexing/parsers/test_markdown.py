from __future__ import annotations

import time
from pathlib import Path

import pytest

from terakoya.rag.indexing.parsers.markdown import parse
from terakoya.rag.indexing.parsers.parsed import Parsed


def _parse(tmp_path: Path, text: str) -> Parsed:
    path = tmp_path / "file.md"
    path.write_text(text)
    return parse(path)


def _blocks(document: Parsed) -> list[tuple[str, int, str]]:
    return [(block.kind, block.level, document.text[block.start : block.end]) for block in document.blocks]


def test_marks_are_removed_and_structure_is_kept(tmp_path: Path) -> None:
    document = _parse(
        tmp_path,
        "# 返品の*手引き*\n\n商品は**30日以内**に\n[お問い合わせ](https://example.com/?a=1)ください。\n\n"
        "Wrapped *English*\ntext.  \nAfter a break.\n\n## Steps\n\n"
        "1. First `code`\n2. Second\n   - nested **item**\n\n   more of it\n\n> quoted ![a diagram](x.png)\n\n"
        "| Plan | 料金 |\n|---|--:|\n| A | 1,000円 |\n| B \\| C | 2,000円 |\n\n```python\nx = 1\n\n  y = 2\n```\n",
    )
    assert document.title == "返品の手引き"
    assert _blocks(document) == [
        ("heading", 1, "返品の手引き"),
        ("paragraph", 0, "商品は30日以内にお問い合わせください。"),
        ("paragraph", 0, "Wrapped English text.\nAfter a break."),
        ("heading", 2, "Steps"),
        ("list", 0, "1. First code"),
        ("list", 0, "2. Second"),
        ("list", 1, "  - nested item"),
        ("paragraph", 0, "more of it"),
        ("paragraph", 0, "quoted a diagram"),
        ("table", 0, "Plan | 料金\nA | 1,000円\nB | C | 2,000円"),
        ("code", 0, "x = 1\n\n  y = 2"),
    ]


def test_front_matter_gives_the_title_and_is_left_out(tmp_path: Path) -> None:
    document = _parse(tmp_path, '---\ntitle: "Opening hours"\ntags: [a]\n---\nWe open at nine.\n')
    assert document.title == "Opening hours"
    assert document.text == "We open at nine."
    assert document.notices == ("the front matter was left out",)


def test_a_rule_at_the_beginning_is_no_front_matter(tmp_path: Path) -> None:
    assert _parse(tmp_path, "---\n\nFirst.\n\n---\n\nSecond.\n").text == "First.\n\nSecond."


def test_html_inside_is_read_without_its_scripts(tmp_path: Path) -> None:
    document = _parse(
        tmp_path,
        "Before <b onclick='x()'>bold</b><br>line <script>alert(1)</script> after &amp; &#x3042;.\n\n"
        "<div hidden>secret</div>\n<script>\nevil()\n</script>\n\n<!-- remark -->\n\n<table><tr><td>a<td>b</table>\n",
    )
    assert document.text == "Before bold\nline  after & あ.\n\na | b"


@pytest.mark.parametrize("text", [">" * 20_000 + " deep", "\n".join(" " * 2 * n + "- x" for n in range(500)) + "deep"])
def test_what_is_nested_too_deeply_is_read_as_plain_text_and_said(tmp_path: Path, text: str) -> None:
    document = _parse(tmp_path, text)
    assert document.text.endswith("deep")
    assert document.notices == ("nested more than 30 levels deep: read as plain text",)


@pytest.mark.parametrize(
    "text", ["[" * 10_000, "*a" * 20_000, "`" * 50_000, "![[](" * 2_000, "&" * 20_000, "<" * 20_000]
)
def test_hostile_marks_take_no_more_than_seconds(tmp_path: Path, text: str) -> None:
    started = time.process_time()
    _parse(tmp_path, f"begin {text} end")
    assert time.process_time() - started < 10


def test_every_word_arrives(tmp_path: Path) -> None:
    document = _parse(tmp_path, "\n\n".join(f"para{n} *em{n}* `code{n}`" for n in range(500)))
    assert all(f"para{n} em{n} code{n}" in document.text for n in range(500))
