"""What becomes of rows that are longer than a run takes: left out, cut at the end, or split into pieces that each
see some of what came before. Knows positions only, neither tokens nor tokenizers; what is lost is always counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

LongRows = Literal["refuse", "drop", "truncate", "split"]
Span = tuple[int, int]
_CONTEXT_SHARE = 4
"""A later piece of a split row begins with up to a quarter of the limit of what came before, which is not learned
again."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a row that is trained on: its tokens ``start`` to ``end``, labels counted from ``start``."""

    start: int
    end: int
    label_spans: tuple[Span, ...]


def label_tokens(spans: Sequence[Span]) -> int:
    return sum(end - start for start, end in spans)


def pieces(length: int, spans: Sequence[Span], limit: int, policy: LongRows) -> list[Piece]:
    """Return what is trained on of a row with so many tokens; all of it if it is not longer than ``limit``.

    "truncate" keeps the first ``limit`` tokens, so an answer that is cut there has no end to learn; "split" makes
    every label part of exactly one piece. Nothing is left of a row that keeps no label.
    """
    if length <= limit:
        return [Piece(0, length, tuple(spans))]
    if policy == "truncate":
        return [piece for piece in [_piece(0, limit, spans, 0)] if piece.label_spans]
    if policy == "split":
        return _split(length, spans, limit)
    return []


def _split(length: int, spans: Sequence[Span], limit: int) -> list[Piece]:
    found: list[Piece] = []
    done = 0  # labels before here are in a piece
    while (first := _first_label(spans, done)) is not None:
        start = 0 if first < limit - limit // _CONTEXT_SHARE else first - limit // _CONTEXT_SHARE
        end = min(length, start + limit)
        found.append(_piece(start, end, spans, max(first, start + 1)))
        done = end
    return found


def _first_label(spans: Sequence[Span], after: int) -> int | None:
    return next((max(start, after) for start, end in spans if end > after), None)


def _piece(start: int, end: int, spans: Sequence[Span], first_label: int) -> Piece:
    inside = [(max(low, first_label), min(high, end)) for low, high in spans]
    return Piece(start, end, tuple((low - start, high - start) for low, high in inside if low < high))


@dataclass(frozen=True, slots=True)
class LongRowReport:
    """What a limit and a policy do to some rows."""

    limit: int
    policy: LongRows
    rows: int = 0
    """Longer than the limit."""
    longest: int = 0
    dropped: int = 0
    """Of which nothing is trained on."""
    pieces: int = 0
    """What the others became."""
    labels: int = 0
    """Of all rows, long or not."""
    lost_labels: int = 0
    numbers: tuple[int, ...] = field(default=())
    """Line numbers of the first ones."""

    @property
    def lost_share(self) -> float:
        return self.lost_labels / max(self.labels, 1)


SHOWN_ROWS = 10


def report(rows: Iterable[tuple[int, int, Sequence[Span]]], limit: int, policy: LongRows) -> LongRowReport:
    """Count over rows of (number, length, label spans). For "refuse", labels are lost as if such rows were cut."""
    long: list[tuple[int, int, Sequence[Span]]] = []
    longest = labels = 0
    for row in rows:
        longest = max(longest, row[1])
        labels += label_tokens(row[2])
        if row[1] > limit:
            long.append(row)
    acting: LongRows = "truncate" if policy == "refuse" else policy
    kept = [pieces(length, spans, limit, acting) for _, length, spans in long]
    before = sum(label_tokens(spans) for _, _, spans in long)
    after = sum(label_tokens(piece.label_spans) for row in kept for piece in row)
    return LongRowReport(
        limit=limit,
        policy=policy,
        rows=len(long),
        longest=longest,
        dropped=sum(not row for row in kept),
        pieces=sum(map(len, kept)),
        labels=labels,
        lost_labels=before - after,
        numbers=tuple(number for number, _, _ in long[:SHOWN_ROWS]),
    )
