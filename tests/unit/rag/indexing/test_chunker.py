from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.rag.indexing.tokenizer import small_tokenizer

from terakoya.rag.indexing.chunker import Chunk, Sizes, chunk
from terakoya.rag.indexing.parsers.parsed import Block, BlockKind, Parsed, TextWriter
from terakoya.rag.indexing.parsers.plain import parse_text
from terakoya.rag.indexing.parsers.tables import write_table
from terakoya.rag.indexing.token_count import TokenCount

TOKENIZER = small_tokenizer()
SIZES = Sizes(small=6, least=20, most=40)


def _chunks(parsed: Parsed, sizes: Sizes | None = SIZES) -> tuple[Chunk, ...]:
    return chunk(parsed, TokenCount(parsed.text, TOKENIZER), sizes)


def _written(*blocks: tuple[BlockKind, str, int]) -> Parsed:
    writer = TextWriter()
    for kind, text, level in blocks:
        writer.add(kind, text, level=level)
    return Parsed(writer.text(), blocks=writer.blocks)


def _texts(parsed: Parsed) -> list[str]:
    return [parsed.text[piece.start : piece.end] for piece in _chunks(parsed)]


def _words(count: int, word: str = "word") -> str:
    return " ".join([word] * count)


def _heading(text: str, level: int = 1) -> tuple[BlockKind, str, int]:
    return BlockKind.HEADING, text, level


def _paragraph(text: str) -> tuple[BlockKind, str, int]:
    return BlockKind.PARAGRAPH, text, 0


def test_a_short_document_is_one_passage() -> None:
    parsed = _written(_heading("Returns"), _paragraph("Within thirty days."))
    assert _texts(parsed) == ["Returns\n\nWithin thirty days."]


def test_no_passage_reaches_over_a_main_heading() -> None:
    parsed = _written(
        _heading("Guide", 1),
        _heading("Returns", 2),
        _paragraph(_words(10)),
        _heading("Shipping", 2),
        _paragraph(_words(10)),
    )
    assert _texts(parsed) == [f"Guide\n\nReturns\n\n{_words(10)}", f"Shipping\n\n{_words(10)}"]


def test_a_tiny_section_is_joined_to_the_next() -> None:
    parsed = _written(_heading("A"), _paragraph("one"), _heading("B"), _paragraph(_words(10)))
    assert len(_chunks(parsed)) == 1


def test_lesser_sections_share_a_passage_until_it_is_large_enough() -> None:
    parsed = _written(
        _heading("A"),
        *(block for name in "abcdef" for block in (_heading(name, 2), _paragraph(_words(7)))),
        _heading("B"),
    )
    sizes = [len(text.split()) for text in _texts(parsed)]
    assert all(size <= SIZES.most for size in sizes)
    assert len(sizes) < 6


def test_each_passage_knows_the_headings_above_it_and_not_those_inside_it() -> None:
    parsed = _written(
        _heading("Guide"), _heading("Returns", 2), *(_paragraph(_words(30)) for _ in range(2)), _heading("Fees", 2)
    )
    assert [piece.heading for piece in _chunks(parsed)] == [(), ("Guide", "Returns"), ("Guide",)]


def test_a_heading_stays_with_what_follows_it() -> None:
    parsed = _written(_paragraph(_words(35)), _heading("Details", 3), _paragraph(_words(35)))
    assert _texts(parsed) == [_words(35), f"Details\n\n{_words(35)}"]


def test_a_long_paragraph_is_cut_between_sentences_into_even_parts() -> None:
    sentence = "This sentence has exactly seven words ."
    parsed = parse_text(" ".join([sentence] * 8), ())
    texts = _texts(parsed)
    assert [text.count("This") for text in texts] == [4, 4]
    assert all(text.endswith(".") for text in texts)


def test_japanese_is_cut_after_its_full_stops() -> None:
    parsed = parse_text("返品は三十日以内です。" * 10, ())
    assert all(text.endswith("。") for text in _texts(parsed))


def test_tables_items_and_code_that_fit_are_not_torn() -> None:
    table = "\n".join(["a | b | c"] * 5)
    code = "x = 1\n\ny = 2\nprint(x + y)"
    parsed = _written(
        _paragraph(_words(20)),
        (BlockKind.TABLE, table, 0),
        _paragraph(_words(30)),
        (BlockKind.CODE, code, 0),
        (BlockKind.LIST, f"- {_words(25)}", 0),
    )
    texts = _texts(parsed)
    for whole in (table, code, f"- {_words(25)}"):
        assert sum(whole in text for text in texts) == 1


def test_a_table_that_is_too_long_is_cut_between_rows() -> None:
    row = "alpha | beta | gamma"
    parsed = _written((BlockKind.TABLE, "\n".join([row] * 30), 0))
    assert {line for text in _texts(parsed) for line in text.splitlines()} == {row}


def test_a_word_longer_than_a_passage_is_cut_anyway() -> None:
    parsed = parse_text("漢" * 1000, ())
    assert [len(text) for text in _texts(parsed)][:2] == [40, 40]


BLOCKS = st.lists(
    st.tuples(
        st.sampled_from(BlockKind),
        st.text(alphabet="abc 。.、\n\u3000漢字かな!|🙂e\u0301", min_size=1, max_size=300),
        st.integers(1, 4),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(BLOCKS)
def test_passages_hold_all_text_once_and_in_order_within_the_size(blocks: list[tuple[BlockKind, str, int]]) -> None:
    parsed = _written(*blocks)
    chunks = _chunks(parsed)
    edges = [0, *(edge for piece in chunks for edge in (piece.start, piece.end)), len(parsed.text)]
    assert edges == sorted(edges)
    assert not "".join(parsed.text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)).strip()
    for piece in chunks:
        text = parsed.text[piece.start : piece.end]
        assert text == text.strip() != ""
        assert len(TOKENIZER.encode(text).ids) <= SIZES.most


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=400))
def test_any_plain_text_is_covered(text: str) -> None:
    parsed = parse_text(text, ())
    covered = "".join(parsed.text[piece.start : piece.end] for piece in _chunks(parsed))
    assert "".join(covered.split()) == "".join(text.split())


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["a", "漢", "word ", "短い文。", "a\n\n", "- item\n", "「", "1. "])
def test_time_grows_with_the_length_alone(piece: str) -> None:
    parsed = parse_text(piece * (400_000 // len(piece)), ())
    started = time.process_time()
    assert chunk(parsed, TokenCount(parsed.text, TOKENIZER))
    assert time.process_time() - started < 30  # quadratic ones took minutes


@pytest.mark.parametrize("gap", [" ", "\n"])
@pytest.mark.parametrize("kind", [BlockKind.PARAGRAPH, BlockKind.CODE])
def test_white_space_without_end_makes_no_passage_without_end(kind: BlockKind, gap: str) -> None:
    text = f"The first.{gap * 50_000}The second. The third."
    chunks = _chunks(Parsed(text, blocks=(Block(kind, 0, len(text)),)))
    assert [text[piece.start : piece.end] for piece in chunks] == ["The first.", "The second. The third."]


def test_rows_that_stand_apart_from_their_header_are_found_under_it() -> None:
    writer = TextWriter()
    writer.add(BlockKind.HEADING, "Prices", level=1)
    write_table(writer, [["item", "price"], ["", "(yen)"], *([f"thing {number}", "1200"] for number in range(40))])
    parsed = Parsed(writer.text(), blocks=writer.blocks)
    first, *others = _chunks(parsed)
    assert parsed.text[first.start : first.end].startswith("Prices\n\nitem | price\n | (yen)\nthing 0")
    assert first.heading == ()
    assert others
    assert {piece.heading for piece in others} == {("Prices", "item | price (yen)")}
    assert all(parsed.text[piece.start : piece.end].startswith("thing ") for piece in others)
