from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terakoya.data import importing
from terakoya.data.examples import read_examples
from terakoya.data.service import SAMPLE_NAME, DatasetService
from terakoya.exceptions import Conflict, DatasetNotFound, InvalidConfig, InvalidDataset, StorageFull
from terakoya.storage.database import open_database
from terakoya.storage.dataset_repository import SqlDatasetRepository
from terakoya.storage.files import DataDir, new_id


@pytest.fixture
def data_dir(tmp_path: Path) -> DataDir:
    return DataDir(tmp_path / "data").create()


@pytest.fixture
def repository(data_dir: DataDir) -> Iterator[SqlDatasetRepository]:
    engine = open_database(data_dir)
    yield SqlDatasetRepository(engine, data_dir)
    engine.dispose()


@pytest.fixture
def service(repository: SqlDatasetRepository, data_dir: DataDir) -> DatasetService:
    return DatasetService(repository, data_dir.uploads, new_id=new_id)


def write(folder: Path, *rows: Any, encoding: str = "utf-8") -> Path:
    path = folder / "upload.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_bytes("".join(line + "\n" for line in lines).encode(encoding))
    return path


def row(prompt: str, completion: str = "ok", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, **more}


def files_under(data_dir: DataDir) -> list[Path]:
    return [path for folder in (data_dir.datasets, data_dir.uploads) for path in folder.rglob("*")]


def test_an_upload_becomes_a_data_set_with_its_facts(
    service: DatasetService, repository: SqlDatasetRepository, tmp_path: Path
) -> None:
    upload = write(tmp_path, row("a"), "", row("bb", "long answer", split="test"))

    info = service.import_file(upload, name="Requests")

    stored = repository.rows_path(info.id)
    assert (info.rows, info.heldout_rows, info.format, info.encoding) == (2, 1, "prompt-completion", "utf-8")
    assert info.notices == ()
    assert info.size_bytes == stored.stat().st_size
    assert info.content_sha256 == hashlib.sha256(stored.read_bytes()).hexdigest()
    assert info.statistics["answer_characters"] == {"mean": 6.5, "p50": 2, "p99": 11, "max": 11}
    assert [example.row for example in read_examples(stored)] == [1, 3]
    assert service.get("requests") == service.list()[0] == info
    assert upload.exists()


def test_cp932_is_converted_and_said_so(service: DatasetService, tmp_path: Path) -> None:
    info = service.import_file(write(tmp_path, row("いつ届きますか？", "配送"), encoding="cp932"), name="n")

    assert info.encoding == "cp932"
    assert "CP932" in info.notices[0]
    assert service.preview(info.id)[0]["messages"][0]["content"] == "いつ届きますか？"


def test_what_a_person_should_know_is_noticed(service: DatasetService, tmp_path: Path) -> None:
    upload = write(
        tmp_path,
        row("a", source="x", id=1),
        row("a", source="y", id=2),
        row("A ", "other", split="heldout"),
        {"question": "q", "answer": "a"},
    )

    info = service.import_file(upload, name="n")

    assert info.format == "prompt-completion + question-answer"
    assert info.notices == (
        "Rows of several formats were found: 3 prompt-completion, 1 question-answer.",
        "Fields that were not used: 'id' (2 rows), 'source' (2 rows).",
        "1 of 4 rows repeat an earlier row exactly; they were kept.",
        "1 of 1 held-out rows have a prompt that training rows have too; their score will look better than it is.",
    )


def test_bad_rows_are_listed_by_line_with_their_number_and_nothing_is_left(
    service: DatasetService, data_dir: DataDir, tmp_path: Path
) -> None:
    bad = [row("p", "")] * 12
    upload = write(tmp_path, row("fine"), "", "not json", *bad)

    with pytest.raises(InvalidDataset) as caught:
        service.import_file(upload, name="n")

    first, *reasons = str(caught.value).splitlines()
    assert first.startswith("13 rows of 14 cannot be used (the first 10 are named); correct them, or import with")
    assert len(reasons) == importing.NAMED_BAD_ROWS
    assert reasons[0] == "line 3: not JSON: Expecting value at character 1"
    assert reasons[1] == "line 4: 'completion' is empty"
    report = (caught.value.details or {})["report"]
    assert report["rows"] == {"read": 14, "good": 1, "bad": 13}
    assert [note["row"] for note in report["bad_rows"]] == list(range(3, 16))
    assert report["bad_rows"][1]["fix"] == "fill it in, or remove the row"
    assert report["reasons"][0] == {"code": "empty", "rows": 12, "first_row": 4}
    assert files_under(data_dir) == []
    assert service.list() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows, it holds nothing"),
        (b"\n \r\n\n", "has no rows, it holds only blank lines"),
        (b"\xef\xbb\xbf", "has no rows"),
        (b"[]", "has no rows"),
        (b"just some words\n", "the format of the file is not recognised; it begins 'just some words'"),
        (b"<!DOCTYPE html>", "HTML or XML"),
        (b"PAR1\x00\x00", "the Parquet file is damaged"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"%PDF-1.4\n", "a PDF"),
        (b"\x80\x02}q\x00.", "binary data"),
        ("{}".encode("utf-16-le"), "binary data"),
        (b"\xff\xfe{\x00}", "not valid UTF-16"),
    ],
)
def test_what_is_not_read_is_named_and_leaves_nothing(
    service: DatasetService, data_dir: DataDir, tmp_path: Path, content: bytes, message: str
) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(content)

    with pytest.raises(InvalidDataset, match=f"(?s){message}"):
        service.import_file(upload, name="n")

    assert files_under(data_dir) == []


def test_a_taken_name_is_refused_before_the_file_is_read(service: DatasetService, tmp_path: Path) -> None:
    service.import_file(write(tmp_path, row("a")), name="Requests")

    with pytest.raises(Conflict, match="already a data set 'Requests'"):
        service.import_file(tmp_path / "no such file", name="ＲＥＱＵＥＳＴＳ")


@pytest.mark.parametrize("name", ["", "../../x", "a/b", ".hidden", "x" * 200])
def test_a_name_that_could_not_stand_in_a_url_is_refused(service: DatasetService, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidConfig):
        service.import_file(write(tmp_path, row("a")), name=name)


def test_a_full_disk_is_named_and_leaves_nothing(
    service: DatasetService, data_dir: DataDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    upload = write(tmp_path, row("a"))
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StorageFull, match="no room"):
        service.import_file(upload, name="n")

    assert files_under(data_dir) == []


def test_preview_shows_the_first_rows_and_no_more_than_it_has(service: DatasetService, tmp_path: Path) -> None:
    info = service.import_file(write(tmp_path, row("a", split="heldout"), row("b"), row("c")), name="n")

    assert service.preview(info.id, 1) == [
        {
            "row": 1,
            "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "ok"}],
            "split": "heldout",
        }
    ]
    assert len(service.preview(info.id, 10**9)) == 3
    assert service.preview(info.id, -1) == []


def test_the_sample_is_installed_once(service: DatasetService) -> None:
    first = service.install_sample()

    assert service.install_sample() == first
    assert first.name == SAMPLE_NAME
    assert first.heldout_rows > 0
    assert first.notices == ()


def test_a_deleted_data_set_is_gone(service: DatasetService, data_dir: DataDir, tmp_path: Path) -> None:
    info = service.import_file(write(tmp_path, row("a")), name="n")

    service.delete("n")

    with pytest.raises(DatasetNotFound):
        service.get(info.id)
    assert files_under(data_dir) == []
