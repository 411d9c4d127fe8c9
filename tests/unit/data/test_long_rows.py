from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from terakoya.data.long_rows import Piece, label_tokens, pieces, report

ROW = (1, 100, ((10, 20), (60, 100)))


@st.composite
def long_rows(draw: st.DrawFn) -> tuple[int, tuple[tuple[int, int], ...], int]:
    """A length, sorted disjoint spans of labels after position 0, and a limit."""
    length = draw(st.integers(2, 300))
    bounds = sorted(draw(st.sets(st.integers(1, length), min_size=2, max_size=12)))
    spans = tuple(zip(bounds[::2], bounds[1::2], strict=False))
    return length, spans, draw(st.integers(8, 120))


def test_a_row_that_fits_is_left_alone() -> None:
    for policy in ("refuse", "drop", "truncate", "split"):
        assert pieces(100, ROW[2], 100, policy) == [Piece(0, 100, ROW[2])]  # type: ignore[arg-type]


def test_dropping_leaves_nothing_and_truncating_the_beginning() -> None:
    assert pieces(100, ROW[2], 70, "drop") == []
    assert pieces(100, ROW[2], 70, "truncate") == [Piece(0, 70, ((10, 20), (60, 70)))]
    assert pieces(100, ((90, 100),), 70, "truncate") == []


@given(long_rows())
def test_splitting_learns_every_label_once_and_after_some_context(
    row: tuple[int, tuple[tuple[int, int], ...], int],
) -> None:
    length, spans, limit = row
    found = pieces(length, spans, limit, "split")
    learned = [part.start + place for part in found for low, high in part.label_spans for place in range(low, high)]
    assert sorted(learned) == [place for low, high in spans for place in range(low, high)]
    assert len(set(learned)) == len(learned)
    for part in found:
        assert part.end - part.start <= limit or length <= limit
        assert part.label_spans[0][0] >= 1  # nothing predicts a first token
        assert part.start == 0 or part.label_spans[0][0] >= limit // 4


def test_what_is_lost_is_counted() -> None:
    rows = [ROW, (2, 50, ((40, 50),))]
    cut = report(rows, 70, "truncate")
    assert (cut.rows, cut.labels, cut.lost_labels, cut.dropped, cut.numbers) == (1, 60, 30, 0, (1,))
    assert cut.lost_share == 0.5
    assert report(rows, 70, "drop").lost_labels == 50
    assert report(rows, 70, "split").lost_labels == 0
    assert report(rows, 70, "refuse").lost_labels == 30  # as if they were cut
    assert report(rows, 100, "refuse").rows == 0
    assert label_tokens(ROW[2]) == 50
