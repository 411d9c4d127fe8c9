"""How long rows are, and what a limit on their length would cost. Works on numbers of any unit: characters when a
file is imported, tokens when a model is known. Knows neither rows nor tokenizers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

_BINS = 24


@dataclass(frozen=True, slots=True)
class Bin:
    start: int
    end: int
    """Past the last length in it."""
    rows: int


class Lengths:
    """Counts rows by length: as many numbers as there are different lengths."""

    def __init__(self, lengths: Iterable[int] = ()) -> None:
        self._counts = Counter(lengths)

    def add(self, length: int) -> None:
        self._counts[length] += 1

    def __len__(self) -> int:
        return self._counts.total()

    def quantile(self, share: float) -> int:
        """Return the shortest length that at least ``share`` of the rows do not exceed; 0 without rows."""
        wanted, seen = share * len(self), 0
        for length, rows in sorted(self._counts.items()):
            seen += rows
            if seen >= wanted:
                return length
        return 0

    def histogram(self) -> list[Bin]:
        """Return at most 24 bins of equal, round width from the shortest to the longest row."""
        if not self._counts:
            return []
        first, last = min(self._counts), max(self._counts)
        width = _round_width(last - first + 1)
        origin = first // width * width
        rows = Counter[int]()
        for length, count in self._counts.items():
            rows[(length - origin) // width] += count
        return [Bin(origin + n * width, origin + (n + 1) * width, rows[n]) for n in range(max(rows) + 1)]

    def to_json(self) -> dict[str, Any]:
        total = sum(length * rows for length, rows in self._counts.items())
        return {
            "mean": round(total / max(1, len(self)), 1),
            "p50": self.quantile(0.5),
            "p90": self.quantile(0.9),
            "p99": self.quantile(0.99),
            "max": max(self._counts, default=0),
            "histogram": [asdict(bin) for bin in self.histogram()],
        }


@dataclass(frozen=True, slots=True)
class TruncationBudget:
    """What would become of rows whose prompt and answer together exceed ``limit``, by what is done with them."""

    limit: int
    rows: int
    long_rows: int
    answer_length: int
    """Of all rows."""
    cut_answer_length: int
    """What of the answers lies beyond the limit: lost if long rows were cut there."""
    dropped_answer_length: int
    """The answers of long rows: lost if those rows are dropped."""
    pieces: int
    """Into how many rows the long ones would have to be split; 0 if a prompt alone leaves no room."""
    longest: int
    """The limit that would take every row."""

    @property
    def cut_share(self) -> float:
        return self.cut_answer_length / max(1, self.answer_length)

    @property
    def dropped_share(self) -> float:
        return self.dropped_answer_length / max(1, self.answer_length)

    def sentence(self, unit: str = "tokens") -> str:
        """Return such as "37 rows lose 4.1% of answer tokens at 1,024"."""
        if not self.long_rows:
            return f"no row is longer than {self.limit:,} {unit}"
        rows = "1 row loses" if self.long_rows == 1 else f"{self.long_rows:,} rows lose"
        return f"{rows} {self.cut_share:.1%} of answer {unit} at {self.limit:,}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"cut_share": self.cut_share, "dropped_share": self.dropped_share}


def truncation_budget(rows: Iterable[tuple[int, int]], limit: int) -> TruncationBudget:
    """Return what ``limit`` (at least 1) means for rows given as (length of the prompt, length of the answer)."""
    count = long_rows = answers = cut = dropped = pieces = longest = 0
    is_splittable = True
    for prompt, answer in rows:
        count += 1
        answers += answer
        whole = prompt + answer
        longest = max(longest, whole)
        if whole <= limit:
            continue
        long_rows += 1
        cut += min(answer, whole - limit)
        dropped += answer
        if prompt >= limit:
            is_splittable = False
        else:
            pieces += -(-answer // (limit - prompt))
    return TruncationBudget(limit, count, long_rows, answers, cut, dropped, pieces if is_splittable else 0, longest)


def _round_width(span: int) -> int:
    """Return the least of 1, 2, 5, 10, 20, ... of which fewer than ``_BINS`` cover the span."""
    width, steps = 1, (2, 2.5, 2)
    step = 0
    while span / width > _BINS - 1:
        width = int(width * steps[step % 3])
        step += 1
    return width
