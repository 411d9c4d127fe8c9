"""Looks at every row that passes and keeps what a person should know of the file: bad rows with reasons, repeats,
overlap, lengths, fields that were not read. Bounded in memory however long the file is.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from terakoya.data.examples import prompt_key
from terakoya.data.formats import unused_fields
from terakoya.data.lengths import Lengths
from terakoya.data.problems import Problem
from terakoya.data.repeats import KeyFile, Pairs
from terakoya.data.shapes import Shape
from terakoya.domain.datasets import DatasetKind, Example, Split

SHOWN_BAD_ROWS = 100
SHOWN_PAIRS = 20
SHOWN_LONG_ROWS = 10
LONG_ANSWER_CHARACTERS = 8000
"""About 2,000 tokens of English, more of Japanese: longer than the maximal length of most runs."""
_MOST_FIELDS = 1000
"""Different names of unused fields that are told apart; rows with ever new names are no table."""
SHOWN_FIELDS = 10


@dataclass(frozen=True, slots=True)
class BadRowNote:
    row: int
    problem: Problem

    def to_json(self) -> dict[str, Any]:
        problem = self.problem
        return {
            "row": self.row,
            "code": problem.code,
            "values": dict(problem.values),
            "reason": problem.reason,
            "fix": problem.remedy,
        }


class Doctor:
    """Hears of every row once, in order."""

    def __init__(self, *, contents: IO[bytes], prompts: IO[bytes]) -> None:
        """Both files are empty, open for writing and reading, and used by nobody else."""
        self.kind: DatasetKind | None = None
        self.first_row = 0
        self.rows = 0
        self.heldout_rows = 0
        self.bad_rows = 0
        self.answers = 0
        self.bad: list[BadRowNote] = []
        self.shapes: Counter[str] = Counter()
        self.unused: Counter[str] = Counter()
        self.prompts, self.targets, self.rejected = Lengths(), Lengths(), Lengths()
        self._reasons: dict[str, list[int]] = {}
        self._longest: list[tuple[int, int]] = []
        self._long = 0
        self._contents = KeyFile(contents)
        self._prompt_keys = KeyFile(prompts)
        self._found: tuple[Pairs, Pairs] | None = None

    def refuse(self, row: int, problem: Problem) -> None:
        """Note a row that cannot be used."""
        self.bad_rows += 1
        counted = self._reasons.setdefault(problem.code, [0, row])
        counted[0] += 1
        if len(self.bad) < SHOWN_BAD_ROWS:
            self.bad.append(BadRowNote(row, problem))

    def accept(self, example: Example, fields: dict[str, Any], shape: Shape, content_key: bytes) -> None:
        """Note a row that can be used, with the fields it was read from."""
        if self.kind is None:
            self.kind, self.first_row = shape.kind, example.row
        self.rows += 1
        self.shapes[shape.name] += 1
        for name in unused_fields(fields, shape):
            if name in self.unused or len(self.unused) < _MOST_FIELDS:
                self.unused[name] += 1
        is_heldout = example.split is Split.HELDOUT
        self.heldout_rows += is_heldout
        self._contents.add(content_key, example.row)
        self._prompt_keys.add(prompt_key(example), example.row, mark=is_heldout)
        self._measure(example)

    def repeats(self) -> Pairs:
        """Rows that repeat an earlier one exactly."""
        return self._pairs()[0]

    def overlap(self) -> Pairs:
        """Held-out rows whose prompt a training row has too."""
        return self._pairs()[1]

    def unused_fields(self) -> list[tuple[str, int]]:
        """Each with its number of rows, commonest first."""
        return sorted(self.unused.items(), key=lambda entry: (-entry[1], entry[0]))

    def report(self) -> dict[str, Any]:
        """Return what was found, as JSON."""
        repeats, overlap = self.repeats(), self.overlap()
        return {
            "rows": {"read": self.rows + self.bad_rows, "good": self.rows, "bad": self.bad_rows},
            "heldout_rows": self.heldout_rows,
            "shapes": dict(self.shapes.most_common()),
            "bad_rows": [note.to_json() for note in self.bad],
            "reasons": [
                {"code": code, "rows": rows, "first_row": first} for code, (rows, first) in self._by_frequency()
            ],
            "repeats": _pairs_json(repeats),
            "overlap": _pairs_json(overlap),
            "long_answers": {
                "characters": LONG_ANSWER_CHARACTERS,
                "rows": self._long,
                "longest": [{"row": row, "characters": size} for size, row in sorted(self._longest, reverse=True)],
            },
            "characters": dict(self._lengths()),
            "unused_fields": dict(self.unused_fields()[:SHOWN_FIELDS]),
        }

    def _measure(self, example: Example) -> None:
        if example.text is not None:
            size = len(example.text)
        else:
            sizes = [len(message.content) for message in example.messages]
            self.answers += [message.role for message in example.messages].count("assistant")
            self.prompts.add(sum(sizes[:-1]))
            size = sizes[-1]
            if example.rejected is not None:
                self.rejected.add(len(example.rejected))
                size = max(size, len(example.rejected))
        self.targets.add(len(example.answer) if example.text is None else size)
        self._long += size > LONG_ANSWER_CHARACTERS
        entry = (size, example.row)
        if len(self._longest) < SHOWN_LONG_ROWS:
            heapq.heappush(self._longest, entry)
        elif size > self._longest[0][0]:
            heapq.heapreplace(self._longest, entry)

    def _pairs(self) -> tuple[Pairs, Pairs]:
        if self._found is None:
            overlap = self._prompt_keys.on_both_sides(SHOWN_PAIRS) if self.heldout_rows else Pairs(0, ())
            self._found = self._contents.repeated(SHOWN_PAIRS), overlap
        return self._found

    def _by_frequency(self) -> list[tuple[str, list[int]]]:
        return sorted(self._reasons.items(), key=lambda entry: (-entry[1][0], entry[1][1]))

    def _lengths(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if self.kind is DatasetKind.TEXT:
            yield "text", self.targets.to_json()
        elif self.kind is not None:
            yield "prompt", self.prompts.to_json()
            yield "answer", self.targets.to_json()
        if self.kind is DatasetKind.PREFERENCE:
            yield "rejected", self.rejected.to_json()


def _pairs_json(pairs: Pairs) -> dict[str, Any]:
    return {"rows": pairs.count, "shown": [{"row": row, "other": other} for row, other in pairs.shown]}
