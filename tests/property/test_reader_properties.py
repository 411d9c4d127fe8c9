from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terakoya.data import sources
from terakoya.data.importing import ImportOptions, RowFiles, import_rows
from terakoya.data.problems import Problem
from terakoya.data.readers import open_file
from terakoya.data.sources import Source
from terakoya.exceptions import InvalidDataset

patiently = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    max_examples=60,
)
cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)
table = st.lists(st.tuples(cell, cell), min_size=1, max_size=6)
fragments = st.lists(st.sampled_from(["{", "}", "[", "]", ",", ":", '"', "\\", "1", "a", "\n", '{"a":1}', "あ"]))


def read(path: Path, name: str) -> list[Any]:
    with tempfile.TemporaryFile() as unpacked:
        return [row for _, row in open_file(Source(path), filename=name, wanted=(), unpacked=unpacked).rows]


@pytest.fixture(params=[1, 7, 2**20], autouse=True)
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file in pieces of so many bytes."""
    monkeypatch.setattr(sources, "_CHUNK_BYTES", request.param)


@patiently
@given(table, st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), st.sampled_from([",", "\t"]))
def test_any_table_is_read_back_as_it_was_written(
    tmp_path: Path, rows: list[tuple[str, str]], encoding: str, delimiter: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *rows])
    path = tmp_path / "table"
    path.write_bytes(text.getvalue().encode(encoding))

    assert read(path, "t.csv" if delimiter == "," else "t.tsv") == [{"a": a, "b": b} for a, b in rows]


@patiently
@given(table, st.sampled_from([None, 2]), st.booleans())
def test_any_array_is_read_back_as_it_was_written(
    tmp_path: Path, rows: list[tuple[str, str]], indent: int | None, ascii: bool
) -> None:
    objects = [{"a": a, "b": [b, {"c": 1.5}]} for a, b in rows]
    path = tmp_path / "array"
    path.write_text(json.dumps(objects, indent=indent, ensure_ascii=ascii))

    assert read(path, "t.json") == objects


@patiently
@given(fragments.map("".join))
def test_an_array_is_read_as_a_parser_of_the_whole_would_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "array"
    path.write_text("[" + text)
    try:
        expected = json.loads("[" + text)
    except ValueError:
        with pytest.raises(InvalidDataset):
            read(path, "t.json")
        return
    found = read(path, "t.json")
    assert [row for row in found if not isinstance(row, Problem)] == [row for row in expected if isinstance(row, dict)]
    assert len(found) == len(expected)


@patiently
@given(
    st.binary(max_size=120) | fragments.map(lambda parts: "".join(parts).encode()),
    st.sampled_from(["t.csv", "t.tsv", "t.json", "t.jsonl", "t.txt", "t.parquet", "t"]),
    st.sampled_from([b"", b"PAR1", b"\x1f\x8b", b"prompt,completion\n", b"[", b"\xff\xfe"]),
    st.booleans(),
)
def test_any_bytes_under_any_name_are_imported_or_refused(
    tmp_path: Path, content: bytes, name: str, start: bytes, packed: bool
) -> None:
    path = tmp_path / "upload"
    path.write_bytes(gzip.compress(start + content) if packed else start + content)
    with contextlib.suppress(InvalidDataset), RowFiles(io.BytesIO()) as files:
        import_rows(path, files, ImportOptions(name, skip_bad_rows=True, limit_bytes=10_000))
