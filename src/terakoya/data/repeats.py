"""Finds rows that are the same, and prompts on both sides of a split, among more rows than fit in memory: each leaves
sixteen bytes in a file, which is gone through in parts. Knows rows only by their keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[tuple[int], np.dtype[np.uint64]]

_PART_RECORDS = 2**20
"""About 60 MB while a part is sorted."""
_WAITING = 2**14
_RECORD_BYTES = 16


@dataclass(frozen=True, slots=True)
class Pairs:
    """Rows that have an earlier or other counterpart."""

    count: int
    shown: tuple[tuple[int, int], ...]
    """The first of them as (row, its counterpart), by row."""


class KeyFile:
    """Pairs of a 64-bit key and a row number below 2**62, in the order of the rows."""

    def __init__(self, file: IO[bytes]) -> None:
        """``file`` is empty, open for writing and reading, and nobody else's."""
        self._file = file
        self._waiting = bytearray()
        self._records = 0

    def add(self, key: bytes, row: int, *, mark: bool = False) -> None:
        """Note a row. ``key``: 8 bytes; ``mark``: which of two sides it is on."""
        self._waiting += key
        self._waiting += (row << 1 | mark).to_bytes(8, "little")
        self._records += 1
        if len(self._waiting) >= _RECORD_BYTES * _WAITING:
            self._flush()

    def repeated(self, show: int) -> Pairs:
        """Return rows with a key that an earlier row has, with the first such row."""
        import numpy as np

        count = 0
        shown: list[tuple[int, int]] = []
        for keys, rows in self._parts():
            order = np.argsort(keys, kind="stable")
            keys, rows = keys[order], rows[order] >> np.uint64(1)
            is_first = np.concatenate(([True], keys[1:] != keys[:-1]))
            firsts = rows[is_first][np.cumsum(is_first) - 1]
            later = ~is_first
            count += int(later.sum())
            shown = _earliest(shown, rows[later], firsts[later], show)
        return Pairs(count, tuple(shown))

    def on_both_sides(self, show: int) -> Pairs:
        """Return marked rows with a key that an unmarked row has, with the first such row."""
        import numpy as np

        count = 0
        shown: list[tuple[int, int]] = []
        for keys, rows in self._parts():
            is_marked = (rows & np.uint64(1)).astype(bool)
            rows = rows >> np.uint64(1)
            known, positions = np.unique(keys[~is_marked], return_index=True)
            if not len(known):
                continue
            marked = keys[is_marked]
            places = np.minimum(np.searchsorted(known, marked), len(known) - 1)
            found = known[places] == marked
            count += int(found.sum())
            others = rows[~is_marked][positions][places[found]]
            shown = _earliest(shown, rows[is_marked][found], others, show)
        return Pairs(count, tuple(shown))

    def _parts(self) -> Iterator[tuple[Numbers, Numbers]]:
        """Yield (keys, rows) so that all records with one key are in one part, rows in their order."""
        import numpy as np

        self._flush()
        bits = max(0, (self._records - 1).bit_length() - _PART_RECORDS.bit_length() + 1)
        for part in range(1 << bits):
            keys, rows = [], []
            self._file.seek(0)
            while piece := self._file.read(_RECORD_BYTES * 2**18):
                records = np.frombuffer(piece, dtype="<u8").reshape(-1, 2)
                if bits:
                    records = records[records[:, 0] >> np.uint64(64 - bits) == part]
                keys.append(records[:, 0].copy())
                rows.append(records[:, 1].copy())
            if any(map(len, keys)):
                yield np.concatenate(keys), np.concatenate(rows)
        self._file.seek(0, 2)

    def _flush(self) -> None:
        self._file.write(self._waiting)
        self._waiting = bytearray()


def _earliest(shown: list[tuple[int, int]], rows: Any, others: Any, limit: int) -> list[tuple[int, int]]:
    """Return the pairs of least row among those shown so far and these."""
    import numpy as np

    least = np.argsort(rows, kind="stable")[:limit]
    pairs = zip(rows[least].tolist(), others[least].tolist(), strict=True)
    return sorted([*shown, *pairs])[:limit]
