"""Tokenised rows on disk, written one after the other and read as a sequence: however many there are, memory holds
those that a step asks for. Knows nothing of where rows come from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, overload

import numpy as np
from numpy.typing import NDArray

from terakoya.data.tokenization import EncodedExample

_ROW = np.dtype(
    [
        ("row", np.int64),
        ("ids", np.int64),
        ("length", np.int64),
        ("spans", np.int64),
        ("span_count", np.int64),
        ("prompt", np.int64),
        ("answer", np.int64),
        ("texts_end", np.int64),
    ]
)
"""Of each row where its tokens, label spans and texts begin, in items of their files; texts in bytes."""
_WRITTEN_ROWS = 4096
_COUNTS = "counts.json"


class TokenWriter:
    """Writes a store into an empty folder. Without ``finish`` there is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows, self._ids, self._spans, self._texts = (
            (folder / name).open("wb") for name in ("rows", "ids", "spans", "texts")
        )
        self._records: list[tuple[int, ...]] = []
        self._done = [0, 0, 0, 0]

    def append(self, row: EncodedExample) -> None:
        prompt, answer = row.prompt.encode("utf-8", "surrogatepass"), row.answer.encode("utf-8", "surrogatepass")
        rows, ids, spans, texts = self._done
        middle, end = texts + len(prompt), texts + len(prompt) + len(answer)
        self._records.append((row.row, ids, len(row.input_ids), spans, len(row.label_spans), texts, middle, end))
        self._ids.write(np.asarray(row.input_ids, np.uint32).data)
        self._spans.write(np.asarray(row.label_spans, np.uint32).data)
        self._texts.write(prompt + answer)
        self._done = [rows + 1, ids + len(row.input_ids), spans + len(row.label_spans), end]
        if len(self._records) == _WRITTEN_ROWS:
            self._write_records()

    def extend(self, rows: Iterable[EncodedExample]) -> None:
        for row in rows:
            self.append(row)

    def finish(self, **facts: int) -> None:
        """``facts``: whatever else is to be known of the rows."""
        self._write_records()
        self._close()
        (self._folder / _COUNTS).write_text(json.dumps({"counts": self._done, "facts": facts}))

    def _write_records(self) -> None:
        self._rows.write(np.array(self._records, _ROW).tobytes())
        self._records.clear()

    def _close(self) -> None:
        for file in (self._rows, self._ids, self._spans, self._texts):
            file.close()

    def __len__(self) -> int:
        return self._done[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


class TokenStore(Sequence[EncodedExample]):
    """What a writer finished. Raises: ValueError if files are missing or shorter than was written."""

    def __init__(self, folder: Path) -> None:
        try:
            told = json.loads((folder / _COUNTS).read_bytes())
            rows, ids, spans, texts = told["counts"]
            self.facts: dict[str, int] = told["facts"]
            self._rows = _mapped(folder / "rows", _ROW, rows)
            self._ids = _mapped(folder / "ids", np.dtype(np.uint32), ids)
            self._spans = _mapped(folder / "spans", np.dtype((np.uint32, 2)), spans)
            self._texts = _mapped(folder / "texts", np.dtype(np.uint8), texts)
        except (OSError, KeyError) as error:
            raise ValueError(f"{folder.name} is no whole store of tokens: {error}") from error

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[rows], in tokens."""
        return self._rows["length"]

    @property
    def largest_token(self) -> int:
        return int(self._ids.max(initial=0))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> EncodedExample: ...
    @overload
    def __getitem__(self, place: slice) -> list[EncodedExample]: ...
    def __getitem__(self, place: int | slice) -> EncodedExample | list[EncodedExample]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        row, ids, length, spans, span_count, prompt, answer, end = self._rows[place].tolist()
        return EncodedExample(
            row,
            self._ids[ids : ids + length].tolist(),
            tuple((start, stop) for start, stop in self._spans[spans : spans + span_count].tolist()),
            self._texts[prompt:answer].tobytes().decode("utf-8", "surrogatepass"),
            self._texts[answer:end].tobytes().decode("utf-8", "surrogatepass"),
        )

    def __iter__(self) -> Iterator[EncodedExample]:
        return (self[place] for place in range(len(self)))


class HasTokens(Protocol):
    @property
    def input_ids(self) -> Sequence[int]: ...


def largest_token(rows: Sequence[HasTokens]) -> int:
    """Return the largest token number of any row; of a store without making rows of it."""
    known = getattr(rows, "largest_token", None)
    return max((max(row.input_ids) for row in rows), default=0) if known is None else known


def lengths_of(rows: Sequence[HasTokens]) -> NDArray[np.int64]:
    """Return how many tokens each row has, [rows]; of a store without reading them."""
    known = getattr(rows, "lengths", None)
    return np.array([len(row.input_ids) for row in rows], np.int64) if known is None else known


def _mapped(path: Path, kind: np.dtype[Any], count: int) -> NDArray[Any]:
    size = kind.itemsize * count
    if path.stat().st_size != size:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes and {size:,} were written")
    shape = (count, *kind.shape)
    return np.memmap(path, kind.base, "r", shape=shape) if count else np.empty(shape, kind.base)
