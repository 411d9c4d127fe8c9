from __future__ import annotations

from pathlib import Path

import pytest

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers.html import parse
from terakoya.rag.indexing.parsers.parsed import Parsed


def _parse(tmp_path: Path, html: str | bytes) -> Parsed:
    path = tmp_path / "file.html"
    path.write_bytes(html if isinstance(html, bytes) else html.encode())
    return parse(path)


def _blocks(document: Parsed) -> list[tuple[str, int, str]]:
    return [(block.kind, block.level, document.text[block.start : block.end]) for block in document.blocks]


def test_structure_becomes_blocks_of_readable_text(tmp_path: Path) -> None:
    document = _parse(
        tmp_path,
        """<!doctype html><html><head><title> Returns &amp;
        refunds </title></head><body><h1>Returns</h1><p>Within <b>30</b> days of
        delivery.<br>No questions.</p><p>商品は三十日以内に
        返品できます。</p><h2>Steps</h2><ol start=3><li>Write to us<ul><li>by mail</ul><li><p>Send it</ol>
        <table><caption>Fees</caption><tr><th>Plan<th>料金<tr><td>A<td><p>1,000</p><p>円</p></table>
        <pre>x = 1

  y</pre><ruby>寺子屋<rp>(</rp><rt>てらこや</rt></ruby></body></html>""",
    )
    assert document.title == "Returns & refunds"
    assert _blocks(document) == [
        ("heading", 1, "Returns"),
        ("paragraph", 0, "Within 30 days of delivery.\nNo questions."),
        ("paragraph", 0, "商品は三十日以内に返品できます。"),
        ("heading", 2, "Steps"),
        ("list", 0, "3. Write to us"),
        ("list", 1, "  - by mail"),
        ("list", 0, "4. Send it"),
        ("table", 0, "Fees\nPlan | 料金\nA | 1,000 円"),
        ("code", 0, "x = 1\n\n  y"),
        ("paragraph", 0, "寺子屋"),
    ]


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>EVIL</script>",
        "<script src=x>EVIL",
        "<SCRIPT\n>EVIL</SCRIPT\n>",
        "<style>EVIL{}</style>",
        "<!-- EVIL -->",
        "<!--[if IE]>EVIL<![endif]-->",
        "<img src=x onerror=EVIL alt='EVIL'>",
        "<svg onload=EVIL><script>EVIL</script><text>EVIL</text></svg>",
        "<svg><style><img src=x onerror=EVIL></style></svg>",
        "<iframe srcdoc='EVIL'>EVIL</iframe>",
        "<a href='javascript:EVIL'>x</a>",
        "<noscript>EVIL</noscript>",
        "<template><p>EVIL</p></template>",
        "<object data=EVIL>EVIL</object>",
        "<math><annotation encoding='application/javascript'>EVIL</annotation></math>",
        "<textarea>EVIL</textarea><select><option>EVIL</select><button>EVIL</button><input value=EVIL>",
        "<p hidden>EVIL</p>",
        "<p hidden=until-found>EVIL</p>",
        "<p aria-hidden=TRUE>EVIL</p>",
        "<p style='color:red; DISPLAY : none'>EVIL</p>",
        "<p style='dis/**/play:none;display/* x */:none'>EVIL</p>",
        r"<p style='d\69splay:none'>EVIL</p>",
        "<p style='visibility:hidden!important'>EVIL</p>",
        "<span style='font-size:0'>EVIL</span><span style='font-size:0px;'>EVIL</span>",
        "<span style='opacity:0'>EVIL</span><span style='opacity:0.0;'>EVIL</span>",
        "<div hidden><div><p>EVIL</p></div>EVIL</div>",
        "<dialog>EVIL</dialog>",
        "<title>EVIL</title>",
        "<body onload=EVIL data-x=EVIL title=EVIL>",
        "<![CDATA[ x ]]><?php EVIL ?>",
    ],
)
def test_what_a_reader_does_not_see_is_never_in_the_text(tmp_path: Path, hostile: str) -> None:
    document = _parse(tmp_path, f"<html><head><title>T</title></head><body><p>before</p>{hostile}")
    assert "before" in document.text
    assert "EVIL" not in document.text
    assert document.title == "T"


@pytest.mark.parametrize("style", ["font-size:0.9em", "opacity:0.5", "opacity:.9", "display:block", "font-size:10px"])
def test_styles_that_hide_nothing_hide_nothing(tmp_path: Path, style: str) -> None:
    assert _parse(tmp_path, f"<p style='{style}'>seen").text == "seen"


def test_text_that_looks_like_a_tag_stays_text(tmp_path: Path) -> None:
    assert _parse(tmp_path, "<p>&lt;script&gt;alert(1)&lt;/script&gt;").text == "<script>alert(1)</script>"


def test_menus_are_left_out_and_said(tmp_path: Path) -> None:
    document = _parse(tmp_path, "<nav><a>Home</a></nav><p>Body")
    assert document.text == "Body"
    assert document.notices == ("menus were left out",)


def test_a_table_that_only_lays_out_the_page_is_no_table(tmp_path: Path) -> None:
    document = _parse(tmp_path, "<table><tr><td><h1>Title</h1><p>Body<td><table><tr><td>a<td>b</table></table>")
    assert [kind for kind, _, _ in _blocks(document)] == ["heading", "paragraph", "table"]


@pytest.mark.parametrize(
    ("codec", "declaration"),
    [
        ("cp932", '<meta charset="Shift_JIS">'),
        ("cp932", '<META http-equiv="Content-Type" content="text/html; charset=x-sjis">'),
        ("euc_jp", "<meta charset=EUC-JP>"),
        ("iso2022_jp", '<meta charset="iso-2022-jp">'),
        ("utf-8", '<meta charset="utf-8">'),
        ("cp932", ""),
        ("cp932", '<meta charset="utf-8">'),
        ("utf-16", '<meta charset="shift_jis">'),
        ("utf-8-sig", '<meta charset="shift_jis">'),
        ("cp932", '<meta charset="no-such-encoding">'),
        ("utf-8", '<meta charset="rot13">'),
    ],
)
def test_the_encoding_is_the_mark_the_declared_or_the_likely_one(tmp_path: Path, codec: str, declaration: str) -> None:
    sentence = "商品は三十日以内であれば返品できます。"
    html = f"<html><head>{declaration}<title>案内</title></head><body><p>{sentence}</body></html>"
    document = _parse(tmp_path, html.encode(codec))
    assert (document.title, document.text) == ("案内", sentence)


def test_english_of_western_europe_is_read_by_its_declaration(tmp_path: Path) -> None:
    html = '<meta charset="iso-8859-1"><p>The café’s “menu”'
    assert _parse(tmp_path, html.encode("cp1252")).text == "The café’s “menu”"


@pytest.mark.parametrize(
    ("tag", "depth"),
    [
        *((tag, 100_000) for tag in ("b", "span", "table", "table><tr><td")),
        # Lexbor's own time grows with the square of these; the child's time limit is for those who nest them deeper.
        *((tag, 5_000) for tag in ("div", "ul", "blockquote", "pre", "ol><li")),
    ],
)
def test_deeply_nested_tags_are_read(tmp_path: Path, tag: str, depth: int) -> None:
    assert "deep" in _parse(tmp_path, f"<{tag}>" * depth + "deep").text


@pytest.mark.parametrize("html", ["", "<html></html>", "<script>x</script>", "<p>&nbsp;</p>", "<img src=a>"])
def test_a_page_without_text_is_refused(tmp_path: Path, html: str) -> None:
    with pytest.raises(UnreadableDocument, match="no text"):
        _parse(tmp_path, html)
