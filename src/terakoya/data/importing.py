"""Reads an uploaded file row by row into the stored form, the doctor looking on. In a stream; knows nothing of names,
ids or where data sets are kept.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Self, cast

from terakoya.data.doctor import SHOWN_FIELDS, Doctor
from terakoya.data.encodings import ENCODING_NAMES
from terakoya.data.examples import stored_row
from terakoya.data.formats import KNOWN_FIELDS, detect_shape, parse_row
from terakoya.data.mapping import shape_of
from terakoya.data.problems import BadRow, Problem
from terakoya.data.readers import OpenedFile, open_file
from terakoya.data.readers.detection import FORMATS_ADVICE
from terakoya.data.shapes import Shape
from terakoya.data.sources import Source
from terakoya.domain.datasets import DatasetKind
from terakoya.exceptions import InvalidDataset

REPORT_VERSION = 1
MOST_GROWTH = 4
"""How many times the limit of an upload its rows may take as they are stored: Parquet can hold more than its size."""
NAMED_BAD_ROWS = 10
"""In the message; the report has more of them."""
_MOST_COLUMNS = 100
_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class ImportOptions:
    filename: str | None = None
    """The client's name for the file; decides where content can be several formats."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Meaning -> column; empty: the shape of each row is found out."""
    skip_bad_rows: bool = False
    """Leave bad rows out instead of refusing the file."""
    limit_bytes: int | None = None
    """What a compressed file may unpack to, and what the stored rows may take."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class ImportedRows:
    """What came out: the file written, and what is known of it."""

    rows: int
    heldout_rows: int
    kind: DatasetKind
    format: str
    encoding: str
    size_bytes: int
    sha256: str
    notices: tuple[str, ...]
    statistics: dict[str, Any]
    report: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Raises: KeyError, TypeError, ValueError if it is not what ``to_json`` gave."""
        notices = tuple(str(notice) for notice in fields["notices"])
        return cls(**dict(fields) | {"kind": DatasetKind(fields["kind"]), "notices": notices})


class RowFiles:
    """The files that an import needs besides its source; opened before the process gives up opening any."""

    def __init__(self, target: IO[bytes], folder: Path | None = None) -> None:
        """``target`` takes the stored rows; ``folder``: where files without a name lie while they are needed."""
        self.target = target
        self._stack = ExitStack()
        self.contents, self.prompts, self.unpacked = (
            self._stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  closed with the stack
            for _ in range(3)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def import_file(source: Path, target: Path, options: ImportOptions) -> ImportedRows:
    """Import into a new file, in this process, so that it survives a power cut."""
    with target.open("xb") as rows, RowFiles(rows, target.parent) as files:
        imported = import_rows(source, files, options)
        rows.flush()
        os.fsync(rows.fileno())
    return imported


def import_rows(source: Path, files: RowFiles, options: ImportOptions) -> ImportedRows:
    """Write every row of ``source`` in the stored form.

    Raises: InvalidDataset naming what the file is if it is of no format that is read, or, unless they are to be
    skipped, its first bad rows with their number; the report is in its details. InvalidConfig for a bad mapping.
    """
    shape = shape_of(options.mapping) if options.mapping else None
    wanted = KNOWN_FIELDS | frozenset(options.mapping.values())
    opened = open_file(
        Source(source, limit_bytes=options.limit_bytes),
        filename=options.filename,
        wanted=wanted,
        unpacked=cast(Any, files.unpacked),
    )
    doctor = Doctor(contents=files.contents, prompts=files.prompts)
    writer = _Writer(files.target, options.limit_bytes)
    columns = _Columns()
    for number, fields in opened.rows:
        if isinstance(fields, Problem):
            doctor.refuse(number, fields)
            continue
        columns.add(tuple(fields))
        try:
            found = shape or detect_shape(fields)
            example = parse_row(fields, number, found)
            _check_kind(found, doctor)
        except BadRow as error:
            doctor.refuse(number, error.problem)
            continue
        line, key = stored_row(example)
        doctor.accept(example, fields, found, key)
        if options.skip_bad_rows or not doctor.bad_rows:
            writer.write(line)
    report = _report(opened, doctor, options, source.stat().st_size, columns.names())
    _refuse_unusable(doctor, opened, options, report, source)
    return ImportedRows(
        rows=doctor.rows,
        heldout_rows=doctor.heldout_rows,
        kind=doctor.kind or DatasetKind.CONVERSATION,
        format=_format_name(doctor),
        encoding=opened.encoding,
        size_bytes=writer.size,
        sha256=writer.sha256.hexdigest(),
        notices=tuple(_notices(opened, doctor)),
        statistics=_statistics(doctor, report["characters"]),
        report=report,
    )


class _Columns:
    """The names of fields that were seen, in their order."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._last: tuple[str, ...] = ()

    def add(self, names: tuple[str, ...]) -> None:
        if names != self._last and len(self._names) < _MOST_COLUMNS:
            self._last = names
            self._names.update(dict.fromkeys(name[:_MOST_CHARACTERS] for name in names[:_MOST_COLUMNS]))

    def names(self) -> list[str]:
        return list(self._names)[:_MOST_COLUMNS]


class _Writer:
    def __init__(self, target: IO[bytes], limit_bytes: int | None) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._target = target
        self._limit = limit_bytes

    def write(self, line: bytes) -> None:
        self._target.write(line)
        self.sha256.update(line)
        self.size += len(line)
        if self._limit is not None and self.size > MOST_GROWTH * self._limit:
            raise InvalidDataset(
                f"the rows take more than {MOST_GROWTH * self._limit:,} bytes, {MOST_GROWTH} times what an upload may "
                "have; "
                "cut the data into several files"
            )


def _check_kind(shape: Shape, doctor: Doctor) -> None:
    """All rows are of the kind of the first: what one could learn from it differs. Raises: BadRow."""
    if doctor.kind is not None and shape.kind is not doctor.kind:
        raise BadRow("other_kind", found=str(shape.kind), expected=str(doctor.kind), first=doctor.first_row)


def _refuse_unusable(
    doctor: Doctor, opened: OpenedFile, options: ImportOptions, report: dict[str, Any], source: Path
) -> None:
    details = {"report": report}
    if doctor.bad_rows and not (options.skip_bad_rows and doctor.rows):
        raise InvalidDataset(_name_bad_rows(doctor, opened, options), details=details)
    if not doctor.rows:
        held = "no row that can be used" if doctor.bad_rows else "only blank lines or a header"
        if not source.stat().st_size:
            held = "nothing"
        raise InvalidDataset(f"the file has no rows, it holds {held}; {FORMATS_ADVICE}", details=details)


def _name_bad_rows(doctor: Doctor, opened: OpenedFile, options: ImportOptions) -> str:
    place = "line" if opened.numbers_lines else "row"
    count = "1 row" if doctor.bad_rows == 1 else f"{doctor.bad_rows:,} rows"
    named = doctor.bad[:NAMED_BAD_ROWS]
    more = "" if doctor.bad_rows <= len(named) else f" (the first {len(named)} are named)"
    advice = "" if options.skip_bad_rows or not doctor.rows else "; correct them, or import with skip_bad_rows"
    reasons = "\n".join(f"{place} {note.row}: {note.problem.reason}" for note in named)
    if {note.problem.code for note in named} & {"no_known_fields", "missing_field", "not_json", "not_object"}:
        advice += f"; {FORMATS_ADVICE}"
    return f"{count} of {doctor.rows + doctor.bad_rows:,} cannot be used{more}{advice}\n{reasons}"


def _report(
    opened: OpenedFile, doctor: Doctor, options: ImportOptions, size_bytes: int, columns: list[str]
) -> dict[str, Any]:
    return {
        "version": REPORT_VERSION,
        "file": {
            "name": options.filename,
            "format": opened.format,
            "compression": opened.compression,
            "encoding": opened.encoding,
            "size_bytes": size_bytes,
            "columns": columns,
        },
        "place": "line" if opened.numbers_lines else "row",
        "mapping": dict(options.mapping),
        "skipped_bad_rows": options.skip_bad_rows,
        "kind": doctor.kind,
        **doctor.report(),
    }


def _format_name(doctor: Doctor) -> str:
    """Return the shape of all rows, or the commonest of those found."""
    names = [name for name, _ in doctor.shapes.most_common()]
    return " + ".join(names[:2]) + (" + ..." if len(names) > 2 else "")


def _statistics(doctor: Doctor, characters: Mapping[str, Any]) -> dict[str, Any]:
    lengths = {
        f"{name}_characters": {key: each[key] for key in ("mean", "p50", "p99", "max")}
        for name, each in characters.items()
    }
    return {
        "bad_rows_left_out": doctor.bad_rows,
        "duplicate_rows": doctor.repeats().count,
        "heldout_prompts_in_training": doctor.overlap().count,
        "answers": doctor.answers,
        **lengths,
        "unused_fields": dict(doctor.unused_fields()[:SHOWN_FIELDS]),
    }


def _notices(opened: OpenedFile, doctor: Doctor) -> Iterator[str]:
    if opened.encoding not in ("utf-8", "utf-8-sig"):
        yield f"The file was in {ENCODING_NAMES[opened.encoding]}; it was converted to UTF-8."
    if doctor.bad_rows:
        yield f"{doctor.bad_rows:,} of {doctor.rows + doctor.bad_rows:,} rows cannot be used and were left out."
    if len(doctor.shapes) > 1:
        found = ", ".join(f"{count:,} {name}" for name, count in doctor.shapes.most_common())
        yield f"Rows of several formats were found: {found}."
    if doctor.unused:
        unused = doctor.unused_fields()
        fields = ", ".join(f"{name!r} ({count:,} rows)" for name, count in unused[:SHOWN_FIELDS])
        more = len(unused) - SHOWN_FIELDS
        yield f"Fields that were not used: {fields}" + (f" and {more:,} more." if more > 0 else ".")
    if repeats := doctor.repeats().count:
        yield f"{repeats:,} of {doctor.rows:,} rows repeat an earlier row exactly; they were kept."
    if overlap := doctor.overlap().count:
        yield (
            f"{overlap:,} of {doctor.heldout_rows:,} held-out rows have a prompt that training rows have too; "
            "their score will look better than it is."
        )
