from __future__ import annotations

import errno
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from terakoya.data.examples import read_examples
from terakoya.data.import_child import ChildImporter
from terakoya.data.importing import ImportOptions, import_file
from terakoya.domain.datasets import DatasetKind
from terakoya.exceptions import InvalidConfig, InvalidDataset
from terakoya.processes import import_rows
from terakoya.security.confinement import confinement

LIMITS: dict[str, Any] = {"timeout_seconds": 60.0, "memory_bytes": 2**29}
ROW = b'{"prompt": "a", "completion": "b"}\n'


@pytest.fixture
def importer() -> ChildImporter:
    return ChildImporter(**LIMITS)


def test_a_child_imports_what_this_process_would(importer: ChildImporter, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(gzip.compress('{"text": "あ"}\n{"text": ""}\n{"text": "あ"}\n'.encode("cp932")))
    options = ImportOptions("本.jsonl.gz", skip_bad_rows=True, limit_bytes=10_000)

    imported = importer(upload, tmp_path / "rows", options)

    assert imported == import_file(upload, tmp_path / "same", options)
    assert (imported.rows, imported.kind, imported.encoding) == (2, DatasetKind.TEXT, "cp932")
    assert [example.text for example in read_examples(tmp_path / "rows")] == ["あ", "あ"]
    assert imported.report["repeats"] == {"rows": 1, "shown": [{"row": 3, "other": 1}]}


def test_a_child_reads_parquet_packed_or_not(importer: ChildImporter, tmp_path: Path) -> None:
    parquet.write_table(arrow.table({"Frage": ["q"] * 500, "Antwort": ["a"] * 500}), tmp_path / "plain")
    (tmp_path / "packed").write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))
    options = ImportOptions(mapping={"prompt": "Frage", "answer": "Antwort"})

    for name in ("plain", "packed"):
        imported = importer(tmp_path / name, tmp_path / f"{name} rows", options)
        assert (imported.rows, imported.format) == (500, "mapped prompt-answer")


def test_what_the_child_refuses_arrives_as_it_was_raised(importer: ChildImporter, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(ROW + b'{"prompt": "\\ud83d", "completion": "b"}\n')

    with pytest.raises(InvalidDataset, match="line 2: 'prompt' holds half of a surrogate pair") as caught:
        importer(upload, tmp_path / "rows", ImportOptions())
    assert (caught.value.details or {})["report"]["bad_rows"][0]["row"] == 2

    with pytest.raises(InvalidConfig, match="a mapping names"):
        importer(upload, tmp_path / "more rows", ImportOptions(mapping={"prompt": "a"}))


def test_a_child_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(ROW * 400_000)

    with pytest.raises(InvalidDataset, match=r"stopped after 0\.5 s"):
        ChildImporter(**LIMITS | {"timeout_seconds": 0.5})(upload, tmp_path / "rows", ImportOptions())


def test_a_parquet_file_that_decodes_to_more_than_there_is_memory_is_refused(
    importer: ChildImporter, tmp_path: Path
) -> None:
    value = "x" * 2**20
    table = arrow.table({"text": arrow.DictionaryArray.from_arrays([0] * 256, [value])})
    parquet.write_table(table, tmp_path / "upload", row_group_size=256)
    assert (tmp_path / "upload").stat().st_size < 2**20

    with pytest.raises(InvalidDataset, match="memory"):
        ChildImporter(**LIMITS | {"memory_bytes": 2**27})(tmp_path / "upload", tmp_path / "rows", ImportOptions())


def test_a_result_that_contradicts_itself_is_refused(
    importer: ChildImporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(ROW)
    for answer in ({}, [], {"error": "x"}, {"rows": 1}, "not json"):
        fake = tmp_path / "liar.py"
        fake.write_text(f"import sys; sys.stdin.read(); print({json.dumps(answer)!r})")
        monkeypatch.setattr("terakoya.data.import_child._COMMAND", ("-P", str(fake)))
        with pytest.raises(InvalidDataset, match="contradicts itself"):
            importer(upload, tmp_path / "rows", ImportOptions())


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (OSError(errno.ENOSPC, "full"), "storage_full", "no room"),
        (OSError(errno.EFBIG, "limit"), "storage_full", "no room"),
        (OSError(errno.EIO, "broken"), "invalid_dataset", "the import failed: OSError"),
        (MemoryError(), "invalid_dataset", "more than the 512 MiB"),
        (RuntimeError("surprise"), "invalid_dataset", "the import failed: RuntimeError: surprise"),
    ],
)
def test_however_the_reading_ends_the_child_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, code: str, message: str
) -> None:
    def fail(*_: object) -> Any:
        raise failure

    monkeypatch.setattr(import_rows, "_import", fail)
    answer = import_rows._answer({"target": str(tmp_path / "rows"), "memory_bytes": 2**29})

    assert answer["code"] == code
    assert message in answer["error"]


def test_the_child_can_open_nothing_but_its_source(importer: ChildImporter, tmp_path: Path) -> None:
    """A reader that was taken over could do no more than read what it was given."""
    if not confinement()["files"]:
        pytest.skip("this kernel has no Landlock")
    secret, upload = tmp_path / "secret", tmp_path / "upload"
    secret.write_text("key")
    upload.write_bytes(ROW)
    taken_over = tmp_path / "taken_over.py"
    taken_over.write_text(
        "from terakoya.data import importing\n"
        "def read(*_):\n"
        f"    open({str(secret)!r}).read()\n"
        "importing.import_rows = read\n"
        "from terakoya.processes.import_rows import main\n"
        "main()\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("terakoya.data.import_child._COMMAND", ("-P", str(taken_over)))
        with pytest.raises(InvalidDataset, match="the import failed: PermissionError"):
            importer(upload, tmp_path / "rows", ImportOptions())
