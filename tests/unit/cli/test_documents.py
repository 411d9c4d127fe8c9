from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from terakoya.cli import connection
from terakoya.cli.document_files import files_to_add
from terakoya.cli.main import app
from terakoya.exceptions import CollectionNotFound, UnreadableDocument

DOCUMENT: dict[str, Any] = {
    "id": "doc_1",
    "title": "Rules",
    "filename": "rules.md",
    "collection": "default",
    "status": "ready",
    "passages": 3,
    "size_bytes": 1200,
    "error": None,
    "error_code": None,
    "task_id": "task_1",
    "notices": ["menus were left out"],
}


class GivenDocuments:
    def __init__(self) -> None:
        self.added: list[tuple[str, str | None]] = []
        self.held: dict[str, str] = {}
        self.document = DOCUMENT
        self.archive: list[dict[str, Any]] = []

    def unchanged(self, files: list[tuple[str, str]], *, collection: str) -> list[str | None]:
        return [self.held.get(sha256) for _, sha256 in files]

    def add_archive(self, path: Path, *, collection: str) -> list[dict[str, Any]]:
        return self.archive

    def versions(self, document_id: str) -> list[dict[str, Any]]:
        return [self.document]

    def add(
        self, path: Path, *, collection: str, title: str | None, source: str | None, replaces: str | None
    ) -> dict[str, Any]:
        if collection != "default":
            raise CollectionNotFound(f"no collection {collection!r}")
        if path.suffix == ".pdf":
            raise UnreadableDocument(f"{path.name!r} is not a PDF")
        self.added.append((source or path.name, title))
        before = replaces or ("doc_0" if source == "papers/a.TXT" else None)
        return {"document_id": "doc_1", "task_id": "task_1", "duplicate": False, "version": 1, "replaces": before}

    def get(self, document_id: str) -> dict[str, Any]:
        return self.document

    def list(self, *, collection: str | None = None) -> list[dict[str, Any]]:
        return [self.document]


class GivenServer:
    def __init__(self) -> None:
        self.documents = GivenDocuments()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> GivenServer:
    given = GivenServer()

    @contextmanager
    def connect() -> Iterator[Any]:
        yield connection.Connection(given, is_temporary=False)  # type: ignore[arg-type]

    monkeypatch.setattr(connection, "connect", connect)
    return given


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.md", "a.TXT", "deeper/c.pdf", "picture.png", "deeper/empty/.keep"):
        path = tmp_path / "papers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return tmp_path / "papers"


def test_a_folder_is_every_file_in_it_that_can_be_read(folder: Path) -> None:
    found = files_to_add([folder])
    assert [file.source for file in found.files] == ["papers/a.TXT", "papers/b.md", "papers/deeper/c.pdf"]
    assert found.passed_over == 1
    assert [file.source for file in files_to_add([folder / "picture.png"]).files] == [None]
    with pytest.raises(UnreadableDocument, match=r"holds no file of these types: \.txt"):
        files_to_add([folder / "deeper" / "empty"])
    with pytest.raises(UnreadableDocument, match="no file or folder"):
        files_to_add([folder / "nowhere"])


def test_links_and_archives_in_a_folder_are_named_and_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.txt").write_text("secret")
    (folder / "linked").symlink_to(tmp_path / "secret")
    (folder / "deeper" / "link.txt").symlink_to(tmp_path / "secret" / "key.txt")
    (folder / "circle").symlink_to(folder)
    (folder / "more.tar.gz").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git" / "a.txt").write_text("x")
    found = files_to_add([folder])
    assert {file.path.name for file in found.files} == {"a.TXT", "b.md", "c.pdf"}
    assert {Path(path).name: kind for path, kind in found.refused.items()} == {
        "linked": "link",
        "link.txt": "link",
        "circle": "link",
        "more.tar.gz": "archive",
    }


def test_only_what_changed_is_sent_and_a_summary_tells_the_rest(server: GivenServer, folder: Path) -> None:
    (folder / "b.md").write_text("unchanged")
    server.documents.held[hashlib.sha256(b"unchanged").hexdigest()] = "doc_7"
    result = CliRunner().invoke(app, ["documents", "add", str(folder)])
    assert result.exit_code == 1
    assert server.documents.added == [("papers/a.TXT", None)]
    assert "1 replaced by new versions, 1 unchanged, 1 refused, 1 of other types passed over" in result.output


def test_what_an_archive_holds_is_told_entry_by_entry(server: GivenServer, tmp_path: Path) -> None:
    (tmp_path / "papers.zip").write_bytes(b"PK")
    ids = {"document_id": "doc_1", "task_id": "task_1", "error": None, "error_code": None}
    server.documents.archive = [
        {"path": "a.md", "status": "added"} | ids,
        {"path": "b.md", "status": "unchanged"} | ids,
        {"path": "c.png", "status": "other_type"} | ids,
        {"path": "d.zip", "status": "refused"} | ids | {"error": "an archive", "error_code": "unreadable_document"},
    ]
    result = CliRunner().invoke(app, ["documents", "add", str(tmp_path / "papers.zip"), "--json"])
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert [one["status"] for one in answer["documents"]] == ["ready", "unchanged", "other_type", "refused"]
    assert answer["summary"] == {"added": 1, "replaced": 0, "unchanged": 1, "failed": 0, "refused": 1, "other_type": 1}


def test_one_refused_file_does_not_keep_the_others_and_the_status_says_so(server: GivenServer, folder: Path) -> None:
    result = CliRunner().invoke(app, ["documents", "add", str(folder)])
    assert result.exit_code == 1
    assert server.documents.added == [("papers/a.TXT", None), ("papers/b.md", None)]
    assert "Rules: 3 passages, id doc_1" in result.output
    assert "is not a PDF" in result.output
    assert "menus were left out" in result.output


def test_under_json_what_became_of_each_file_is_one_object(server: GivenServer, folder: Path) -> None:
    result = CliRunner().invoke(app, ["documents", "add", str(folder), "--json"])
    documents = json.loads(result.stdout)["documents"]
    assert [(Path(one["file"]).name, one["status"]) for one in documents] == [
        ("a.TXT", "ready"),
        ("b.md", "ready"),
        ("c.pdf", "refused"),
    ]
    assert documents[2]["error_code"] == "unreadable_document"


def test_an_unknown_collection_ends_it_at_once(server: GivenServer, folder: Path) -> None:
    result = CliRunner().invoke(app, ["documents", "add", str(folder), "--collection", "nowhere"])
    assert isinstance(result.exception, CollectionNotFound)


def test_a_title_is_of_one_file(server: GivenServer, folder: Path) -> None:
    result = CliRunner().invoke(app, ["documents", "add", str(folder), "--title", "Rules"])
    assert "--title is of one file; got 3 files" in str(result.exception)
    assert server.documents.added == []


def test_the_list_shows_status_in_words(server: GivenServer) -> None:
    server.documents.document = DOCUMENT | {"status": "failed"}
    shown = CliRunner().invoke(app, ["documents", "list"]).output
    assert "doc_1" in shown
    assert "failed" in shown
