from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from terakoya.cli import connection
from terakoya.cli.documents import _files
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
        self.document = DOCUMENT

    def add(self, path: Path, *, collection: str, title: str | None) -> dict[str, Any]:
        if collection != "default":
            raise CollectionNotFound(f"no collection {collection!r}")
        if path.suffix == ".pdf":
            raise UnreadableDocument(f"{path.name!r} is not a PDF")
        self.added.append((path.name, title))
        return {"document_id": "doc_1", "task_id": "task_1", "duplicate": False}

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
    assert [path.name for path in _files([folder])] == ["a.TXT", "b.md", "c.pdf"]
    assert [path.name for path in _files([folder / "picture.png"])] == ["picture.png"]
    with pytest.raises(UnreadableDocument, match=r"holds no file of these types: \.txt"):
        list(_files([folder / "deeper" / "empty"]))
    with pytest.raises(UnreadableDocument, match="no file or folder"):
        list(_files([folder / "nowhere"]))


def test_one_refused_file_does_not_keep_the_others_and_the_status_says_so(server: GivenServer, folder: Path) -> None:
    result = CliRunner().invoke(app, ["documents", "add", str(folder)])
    assert result.exit_code == 1
    assert server.documents.added == [("a.TXT", None), ("b.md", None)]
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
