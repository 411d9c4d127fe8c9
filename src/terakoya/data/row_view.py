"""Rows of a sequence in an order of their own, some of them cut, and sequences behind one another. Holds positions,
never rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from terakoya.data.long_rows import Piece
from terakoya.data.token_store import lengths_of
from terakoya.data.tokenization import EncodedExample


class RowView(Sequence[EncodedExample]):
    def __init__(
        self, rows: Sequence[EncodedExample], places: NDArray[np.int64], cut: Mapping[int, Piece] | None = None
    ) -> None:
        """``places``: [n], of each row here its place in ``rows``; ``cut``: what is kept of it, by its place here."""
        self._rows = rows
        self._places = places
        self._cut = cut or {}
        self.lengths = lengths_of(rows)[places]
        """[n], in tokens."""
        for here, piece in self._cut.items():
            self.lengths[here] = piece.end - piece.start

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> EncodedExample: ...
    @overload
    def __getitem__(self, place: slice) -> list[EncodedExample]: ...
    def __getitem__(self, place: int | slice) -> EncodedExample | list[EncodedExample]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        here = range(len(self))[place]
        row = self._rows[int(self._places[here])]
        piece = self._cut.get(here)
        if piece is None:
            return row
        return replace(row, input_ids=row.input_ids[piece.start : piece.end], label_spans=piece.label_spans)


class JoinedRows(Sequence[EncodedExample]):
    """One sequence behind another; copies neither."""

    def __init__(self, first: Sequence[EncodedExample], second: Sequence[EncodedExample]) -> None:
        self._first, self._second = first, second
        self.lengths = np.concatenate([lengths_of(first), lengths_of(second)])
        """[n], in tokens."""

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, place: int) -> EncodedExample: ...
    @overload
    def __getitem__(self, place: slice) -> list[EncodedExample]: ...
    def __getitem__(self, place: int | slice) -> EncodedExample | list[EncodedExample]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        here, own = range(len(self))[place], len(self._first)
        return self._first[here] if here < own else self._second[here - own]
