"""Reads an uploaded file row by row into the stored form, and finds out on the way what a person should know of
it. One pass in a stream; knows nothing of names, ids or where data sets are kept.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from terakoya.data.encodings import ENCODING_NAMES, UTF16_MARKS, detect_encoding, name_binary, read_lines
from terakoya.data.examples import folded_prompt, to_line
from terakoya.data.formats import ACCEPTED, detect_format, parse_line, parse_row, unused_fields
from terakoya.domain.datasets import Example, Split
from terakoya.exceptions import InvalidDataset

if TYPE_CHECKING:
    import numpy as np

SHOWN_BAD_ROWS = 10
_SHOWN_FIELDS = 10
_FORMATS_ADVICE = f"each line must be one of {ACCEPTED}"


@dataclass
class Survey:
    """What is counted while rows pass: eight bytes a row and figure, so that millions of rows fit."""

    formats: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    rows: array[int] = field(default_factory=lambda: array("q"))
    train_prompts: array[int] = field(default_factory=lambda: array("q"))
    heldout_prompts: array[int] = field(default_factory=lambda: array("q"))
    prompt_characters: array[int] = field(default_factory=lambda: array("q"))
    answer_characters: array[int] = field(default_factory=lambda: array("q"))
    answers: int = 0

    def add(self, row: dict[str, Any], example: Example) -> None:
        format = detect_format(row)
        self.formats[format] += 1
        self.unused.update(unused_fields(row, format))
        self.rows.append(hash(example.messages))
        prompts = self.heldout_prompts if example.split is Split.HELDOUT else self.train_prompts
        prompts.append(hash(folded_prompt(example)))
        self.prompt_characters.append(sum(len(message.content) for message in example.prompt))
        self.answer_characters.append(len(example.answer))
        self.answers += sum(message.role == "assistant" for message in example.messages)

    @property
    def format(self) -> str:
        """The format of all rows, or those found, commonest first."""
        return " + ".join(name for name, _ in self.formats.most_common())

    @property
    def unused_fields(self) -> list[tuple[str, int]]:
        """Each with its number of rows, commonest first."""
        return sorted(self.unused.items(), key=lambda entry: (-entry[1], entry[0]))

    def statistics(self) -> dict[str, Any]:
        """Return JSON: duplicates, overlap, and lengths in characters."""
        import numpy as np  # only when rows were read: the web process starts without it

        heldout, train = _numbers(self.heldout_prompts), _numbers(self.train_prompts)
        return {
            "duplicate_rows": len(self.rows) - len(np.unique(_numbers(self.rows))),
            "heldout_prompts_in_training": int(np.isin(heldout, train).sum()),
            "answers": self.answers,
            "prompt_characters": _lengths(_numbers(self.prompt_characters)),
            "answer_characters": _lengths(_numbers(self.answer_characters)),
            "unused_fields": dict(self.unused_fields[:_SHOWN_FIELDS]),
        }


@dataclass(frozen=True, slots=True)
class ImportedRows:
    """What came out: the file written, and what is known of it."""

    rows: int
    heldout_rows: int
    format: str
    encoding: str
    size_bytes: int
    sha256: str
    notices: tuple[str, ...]
    statistics: dict[str, Any]


def import_rows(source: Path, target: IO[bytes], *, filename: str | None = None) -> ImportedRows:
    """Write every row of ``source`` to ``target`` in the stored form.

    Raises: InvalidDataset naming what the file is if it is not JSONL, or its first bad rows with their reasons
    and their number.
    """
    _refuse_other_kinds(source, filename)
    encoding = detect_encoding(source)
    survey = Survey()
    bad: list[str] = []
    bad_rows = size = 0
    sha256 = hashlib.sha256()
    for number, line in _rows(source, encoding):
        try:
            row = parse_line(line)
            example = parse_row(row, number)
        except InvalidDataset as error:
            bad_rows += 1
            if bad_rows <= SHOWN_BAD_ROWS:
                bad.append(f"line {number}: {error}")
            continue
        survey.add(row, example)
        if not bad_rows:
            stored = to_line(example)
            target.write(stored)
            sha256.update(stored)
            size += len(stored)
    if bad_rows:
        raise InvalidDataset(_name_bad_rows(bad, bad_rows, bad_rows + len(survey.rows)))
    if not survey.rows:
        held = "only blank lines" if source.stat().st_size else "nothing"
        raise InvalidDataset(f"the file has no rows, it holds {held}; {_FORMATS_ADVICE}")
    statistics = survey.statistics()
    return ImportedRows(
        rows=len(survey.rows),
        heldout_rows=len(survey.heldout_prompts),
        format=survey.format,
        encoding=encoding,
        size_bytes=size,
        sha256=sha256.hexdigest(),
        notices=tuple(_notices(encoding, survey, statistics)),
        statistics=statistics,
    )


def _refuse_other_kinds(source: Path, filename: str | None) -> None:
    with source.open("rb") as file:
        head = file.read(4096)
    if (kind := name_binary(head)) is not None:
        raise InvalidDataset(f"this is not JSONL but {kind}; {_FORMATS_ADVICE}")
    if head.startswith(UTF16_MARKS):
        head = head.decode("utf-16", errors="ignore").encode(errors="ignore")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start:
        return  # empty, as the rows will show
    if start.startswith(b"["):
        raise InvalidDataset(
            "this is not JSONL but begins like one JSON array; turn it into one object a line, "
            "as with `jq -c '.[]' rows.json > rows.jsonl`"
        )
    if start.startswith(b"<"):
        raise InvalidDataset(f"this is not JSONL but looks like HTML or XML; {_FORMATS_ADVICE}")
    if filename is not None and filename.lower().endswith((".csv", ".tsv")) and not start.startswith(b"{"):
        raise InvalidDataset(f"CSV is not read, JSONL is; {_FORMATS_ADVICE}")
    first, newline, _ = start.partition(b"\n")
    if newline and first.strip() == b"{":
        raise InvalidDataset(
            "this is not JSONL but JSON spread over several lines; put each object on one line, "
            "as with `jq -c . rows.json > rows.jsonl`"
        )


def _rows(source: Path, encoding: str) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in read_lines(source, encoding) if line.strip())


def _name_bad_rows(reasons: list[str], bad: int, total: int) -> str:
    count = "1 row" if bad == 1 else f"{bad:,} rows"
    shown = "" if bad <= len(reasons) else f" (the first {len(reasons)} are shown)"
    return f"{count} of {total:,} cannot be used{shown}; {_FORMATS_ADVICE}\n" + "\n".join(reasons)


def _notices(encoding: str, survey: Survey, statistics: dict[str, Any]) -> Iterator[str]:
    if encoding not in ("utf-8", "utf-8-sig"):
        yield f"The file was in {ENCODING_NAMES[encoding]}; it was converted to UTF-8."
    if len(survey.formats) > 1:
        found = ", ".join(f"{count:,} {name}" for name, count in survey.formats.most_common())
        yield f"Rows of several formats were found: {found}."
    if survey.unused:
        fields = ", ".join(f"{name!r} ({count:,} rows)" for name, count in survey.unused_fields[:_SHOWN_FIELDS])
        more = len(survey.unused) - _SHOWN_FIELDS
        yield f"Fields that were not used: {fields}" + (f" and {more:,} more." if more > 0 else ".")
    if duplicates := statistics["duplicate_rows"]:
        yield f"{duplicates:,} of {len(survey.rows):,} rows repeat an earlier row exactly; they were kept."
    if overlap := statistics["heldout_prompts_in_training"]:
        yield (
            f"{overlap:,} of {len(survey.heldout_prompts):,} held-out rows have a prompt that training rows have too; "
            "their score will look better than it is."
        )


def _numbers(values: array[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    import numpy as np

    return np.frombuffer(values, dtype=np.int64) if values else np.empty(0, dtype=np.int64)


def _lengths(values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> dict[str, float]:
    import numpy as np

    middle, high = np.quantile(values, (0.5, 0.99), method="inverted_cdf")
    return {"mean": round(float(values.mean()), 1), "p50": int(middle), "p99": int(high), "max": int(values.max())}
