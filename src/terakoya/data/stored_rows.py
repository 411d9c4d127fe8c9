"""The rows of a data set on disk as a sequence: eight bytes a row are held, the rest is read when it is asked for.
Knows nothing of splits or tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from terakoya.data.examples import read_line
from terakoya.domain.datasets import Example

_CHUNK_BYTES = 8 << 20
_READ_BYTES = 1 << 20


class StoredRows(Sequence[Example]):
    """Rows of one file, in an order of their own. Raises while reading: InvalidDataset for a damaged line."""

    def __init__(self, path: Path, lines: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        """``lines``: [n], of each row its line in the file, from 1; ``starts``: [n], the byte where that begins."""
        self.path = path
        self.lines = lines
        self._starts = starts

    @classmethod
    def of(cls, path: Path) -> StoredRows:
        """All rows of the file, whose lines are counted but not yet read."""
        starts = _line_starts(path)
        return cls(path, np.arange(1, len(starts) + 1), starts)

    def at(self, places: NDArray[np.int64]) -> StoredRows:
        """Return the rows at so many places of this sequence, in the order of the places."""
        return StoredRows(self.path, self.lines[places], self._starts[places])

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> StoredRows: ...
    def __getitem__(self, place: int | slice) -> Example | StoredRows:
        if isinstance(place, slice):
            return StoredRows(self.path, self.lines[place], self._starts[place])
        return next(iter(StoredRows(self.path, self.lines[[place]], self._starts[[place]])))

    def __iter__(self) -> Iterator[Example]:
        with self.path.open("rb", buffering=_READ_BYTES) as file:
            for line, start in zip(self.lines.tolist(), self._starts.tolist(), strict=True):
                file.seek(start)  # within what is buffered this reads nothing anew
                yield read_line(file.readline(), line, self.path.name)


def _line_starts(path: Path) -> NDArray[np.int64]:
    """[bytes] -> [lines]: where each line begins."""
    ends: list[NDArray[np.int64]] = []
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            ends.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + done)
            done += len(chunk)
    starts = np.concatenate([np.zeros(1, np.int64), *(end + 1 for end in ends)])
    return starts[:-1] if starts[-1] == done else starts
