"""The routes of documents over a whole application; nothing works in the background, so documents stay queued."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from fastapi.testclient import TestClient

from terakoya.domain.tasks import NewModel
from terakoya.storage.files import DataDir
from web_app import web_client

EMBEDDER = "multilingual-e5-small-q4"
TEXT = b"Lamps may be returned within 21 days."


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with web_client(tmp_path_factory.mktemp("empty") / "data") as client:
        yield client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    root = tmp_path_factory.mktemp("web")
    folder = root / "embedder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with (
        web_client(root / "data", document_limit_bytes=1000, archive_limit_bytes=1_000_000) as client,
        start_blocking_portal() as portal,  # one loop for all requests: the server of parsers lives on it
    ):
        client.portal = portal
        model = NewModel(EMBEDDER, "embedder", folder, None, "bert", 7, "mit", "folder:made", {"dimension": 384})
        client.app.state.container.documents._models.save_model(model)  # type: ignore[attr-defined]
        yield client
        portal.call(client.app.state.container.parse_children.stop)  # type: ignore[attr-defined]


def add(client: TestClient, content: bytes = TEXT, filename: str = "returns.txt", **fields: str) -> Any:
    return client.post("/rag/documents", files={"file": (filename, content)}, data=fields)


def test_a_document_is_acknowledged_with_its_task_and_listed(client: TestClient) -> None:
    answer = add(client, title="Returns")
    assert answer.status_code == 202
    accepted = answer.json()
    assert accepted["duplicate"] is False
    document = client.get(f"/rag/documents/{accepted['document_id']}").json()
    expected = {
        "title": "Returns",
        "filename": "returns.txt",
        "collection": "default",
        "status": "queued",
        "parser": "plain",
        "task_id": accepted["task_id"],
        "size_bytes": len(TEXT),
        "passages": 0,
        "error": None,
    }
    assert document.items() >= expected.items()
    assert client.get("/rag/documents", params={"collection": "default"}).json()["documents"] == [document]
    assert client.get(f"/api/tasks/{accepted['task_id']}").json()["kind"] == "ingest"
    again = add(client, filename="copy.txt")
    assert (again.status_code, again.json()) == (200, accepted | {"duplicate": True})


def test_other_content_from_the_same_path_is_the_next_version(client: TestClient) -> None:
    first = add(client, b"version one", path="rules/a.txt").json()
    second = add(client, b"version two", path="rules/a.txt").json()
    assert (second["version"], second["replaces"]) == (2, first["document_id"])
    third = add(client, b"version three", "b.txt", replaces=second["document_id"]).json()
    listed = client.get(f"/rag/documents/{first['document_id']}/versions").json()["documents"]
    assert [(info["id"], info["version"], info["source"]) for info in listed] == [
        (third["document_id"], 3, "rules/a.txt"),
        (second["document_id"], 2, "rules/a.txt"),
        (first["document_id"], 1, "rules/a.txt"),
    ]
    outdated = add(client, b"version four", replaces=first["document_id"])
    assert (outdated.status_code, outdated.json()["code"]) == (409, "conflict")


def test_unchanged_files_of_a_folder_need_not_be_sent(client: TestClient) -> None:
    accepted = add(client, b"as it was", path="folder/same.txt").json()
    add(client, b"as it is", path="folder/other.txt")
    digests = [hashlib.sha256(text).hexdigest() for text in (b"as it was", b"as it will be", b"as it is")]
    paths = ("folder/same.txt", "folder/other.txt", "copy.txt")
    body = {"files": [{"path": path, "sha256": sha} for path, sha in zip(paths, digests, strict=True)]}
    found = client.post("/rag/documents/unchanged", json=body).json()["document_ids"]
    assert found[:2] == [accepted["document_id"], None]
    assert found[2] is not None
    assert client.post("/rag/documents/unchanged", json={"files": [{"path": "../x", "sha256": "0" * 64}]}).is_error


def test_the_original_comes_back_as_an_attachment_and_the_text_in_slices(client: TestClient) -> None:
    document_id = add(client, b"<html><script>alert(1)</script>", "x.html").json()["document_id"]
    file = client.get(f"/rag/documents/{document_id}/file")
    assert file.content == b"<html><script>alert(1)</script>"
    assert file.headers["content-disposition"].startswith('attachment; filename="x.html"')
    assert file.headers["content-type"] == "application/octet-stream"
    assert file.headers["x-content-type-options"] == "nosniff"
    text = client.get(f"/rag/documents/{document_id}/text", params={"start": 3, "end": 9}).json()
    assert text == {"text": "", "start": 0, "end": 0, "characters": 0}


def test_a_deleted_document_is_gone_everywhere(client: TestClient) -> None:
    accepted = add(client, b"to be deleted").json()
    path = f"/rag/documents/{accepted['document_id']}"
    receipt = client.delete(path)
    assert receipt.status_code == 200
    assert receipt.json() == {
        "document_id": accepted["document_id"],
        "title": "returns",
        "versions": [1],
        "files": 1,
        "file_bytes": 13,
        "characters": 0,
        "passages": 0,
        "vectors": 0,
        "index_cleared": True,
    }
    for gone in (path, f"{path}/text", f"{path}/file"):
        assert client.get(gone).json()["code"] == "document_not_found"
    assert client.delete(path).status_code == 404
    assert client.get(f"/api/tasks/{accepted['task_id']}").json()["state"] == "cancelled"


def test_collections_are_made_listed_and_deleted_with_their_documents(client: TestClient) -> None:
    made = client.post("/rag/collections", json={"name": "人事"})
    assert made.status_code == 201
    assert made.json().items() >= {"name": "人事", "dimension": 384, "documents": 0, "passages": 0}.items()
    document_id = add(client, b"in it", collection="人事").json()["document_id"]
    assert client.get("/rag/collections/人事").json()["documents"] == 1
    assert client.post("/rag/collections", json={"name": "人事"}).status_code == 409
    assert client.post("/rag/collections/人事/rebuild").status_code == 202
    assert client.delete("/rag/collections/人事").status_code == 204
    assert "人事" not in [info["name"] for info in client.get("/rag/collections").json()["collections"]]
    assert client.get(f"/rag/documents/{document_id}").status_code == 404


@pytest.mark.parametrize(
    ("filename", "label"),
    [
        ("../../etc/passwd.txt", "passwd.txt"),
        ("..\\..\\windows\\a.txt", "a.txt"),
        ("/abs/olute.txt", "olute.txt"),
        ("a\u202etxt.exe.txt", "atxt.exe.txt"),
        ("長い" * 200 + ".txt", ("長い" * 58) + ".txt"),
    ],
)
def test_a_file_name_is_a_label_and_never_a_path(client: TestClient, filename: str, label: str) -> None:
    accepted = add(client, filename[:50].encode(), filename).json()
    document = client.get(f"/rag/documents/{accepted['document_id']}").json()
    assert document["filename"] == label
    data_dir = DataDir(client.app.state.container.settings.data_dir)  # type: ignore[attr-defined]
    assert [path.name for path in data_dir.document(document["id"]).iterdir()] == ["original"]


@pytest.mark.parametrize(
    ("content", "filename", "fields", "status", "code"),
    [
        (b"", "a.txt", {}, 422, "unreadable_document"),
        (TEXT, "a.docx", {}, 422, "unreadable_document"),
        (TEXT, "a.pdf", {}, 422, "unreadable_document"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "a.txt", {}, 422, "unreadable_document"),
        (b"x" * 1001, "a.txt", {}, 413, "too_large"),
        (TEXT, "a.txt", {"collection": "nowhere"}, 404, "collection_not_found"),
        (TEXT, "a.txt", {"collection": "../x"}, 404, "collection_not_found"),
        (TEXT, "a.txt", {"collection": "x" * 201}, 422, "invalid_config"),
        (TEXT, "a.txt", {"title": "x" * 201}, 422, "invalid_config"),
        (TEXT, "a.txt", {"tilte": "x"}, 422, "invalid_config"),
        (TEXT, "a.txt", {"title": "x" * 5000}, 413, "too_large"),
        (TEXT, "a.txt", {"path": "../../etc/passwd"}, 422, "invalid_config"),
        (TEXT, "a.txt", {"path": "/etc/passwd"}, 422, "invalid_config"),
        (TEXT, "a.txt", {"path": "a/./b.txt"}, 422, "invalid_config"),
        (TEXT, "a.txt", {"path": "a\x00b.txt"}, 422, "invalid_config"),
        (TEXT, "a.txt", {"path": "C:\\x.txt"}, 422, "invalid_config"),
        (TEXT, "a.txt", {"path": "x" * 1001}, 422, "invalid_config"),
        (TEXT, "a.txt", {"replaces": "doc_x"}, 404, "document_not_found"),
    ],
)
def test_bad_uploads_are_refused_and_leave_nothing(
    client: TestClient, content: bytes, filename: str, fields: dict[str, str], status: int, code: str
) -> None:
    data_dir = DataDir(client.app.state.container.settings.data_dir)  # type: ignore[attr-defined]
    before = {path.name for path in data_dir.documents.iterdir()}
    answer = add(client, content, filename, **fields)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert {path.name for path in data_dir.documents.iterdir()} == before
    assert list(data_dir.uploads.iterdir()) == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/rag/documents/doc_x", 404),
        ("GET", "/rag/documents/..%2F..%2Fetc%2Fpasswd", 404),
        ("GET", "/rag/documents/..%2F..%2Fetc%2Fpasswd/file", 404),
        ("DELETE", "/rag/collections/nowhere", 404),
        ("POST", "/rag/collections/nowhere/rebuild", 404),
        ("GET", "/rag/documents?collection=nowhere", 404),
        ("GET", "/rag/documents?limit=0", 422),
        ("GET", f"/rag/documents?collection={'x' * 201}", 422),
        ("GET", "/rag/documents/doc_x/text?start=-1", 422),
    ],
)
def test_bad_addresses_are_answered_in_the_envelope(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert {"error", "code", "request_id"} <= set(answer.json())


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "a/b"}, {"name": "x" * 101}, {"name": "a", "size": 1}])
def test_bad_collections_are_refused(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post("/rag/collections", json=body).json()["code"] == "validation_error"


def test_before_the_first_use_the_default_collection_is_empty_and_the_missing_embedder_is_named(
    empty: TestClient,
) -> None:
    assert empty.get("/rag/documents", params={"collection": "default"}).json() == {"documents": []}
    assert empty.get("/rag/collections").json() == {"collections": []}
    for answer in (add(empty), empty.post("/rag/collections", json={"name": "x"})):
        assert answer.json()["code"] == "model_not_found"
        assert f"terakoya models pull {EMBEDDER}" in answer.json()["error"]
    assert empty.post("/rag/search", json={"query": "lamps"}).json()["code"] == "collection_not_found"
    assert list(Path(empty.app.state.container.data_dir.documents).iterdir()) == []  # type: ignore[attr-defined]


def test_the_same_file_sent_many_times_at_once_is_one_document_with_one_task(client: TestClient) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = [answer.json() for answer in pool.map(lambda _: add(client, b"At once, eight times."), range(8))]
    assert len({(answer["document_id"], answer["task_id"]) for answer in answers}) == 1
    assert answers[0]["task_id"]
    assert sorted(answer["duplicate"] for answer in answers) == [False] + [True] * 7


def _zip(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def _send_archive(client: TestClient, content: bytes, name: str = "papers.zip", **fields: str) -> Any:
    return client.post("/rag/archives", files={"file": (name, content)}, data=fields)


def test_an_archive_is_added_file_by_file_and_again_only_what_changed(client: TestClient) -> None:
    files = {
        "休暇/規程.md": "# 休暇".encode(),
        "a.txt": b"archive a",
        "x.png": b"x",
        ".hidden.txt": b"x",
        "b.zip": b"x",
    }
    answer = _send_archive(client, _zip(**files))
    assert answer.status_code == 202
    entries = {entry["path"]: entry for entry in answer.json()["entries"]}
    assert {path: entry["status"] for path, entry in entries.items()} == {
        "休暇/規程.md": "added",
        "a.txt": "added",
        "x.png": "other_type",
        "b.zip": "refused",
    }
    document = client.get(f"/rag/documents/{entries['休暇/規程.md']['document_id']}").json()
    assert (document["source"], document["filename"]) == ("papers/休暇/規程.md", "規程.md")
    again = _send_archive(client, _zip(**files | {"a.txt": b"archive a, changed"})).json()["entries"]
    assert {entry["path"]: entry["status"] for entry in again} == {
        "休暇/規程.md": "unchanged",
        "a.txt": "replaced",
        "x.png": "other_type",
        "b.zip": "refused",
    }


def _tar(*members: tuple[str, bytes | str]) -> bytes:
    """Text as content of a member: the target of a link."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def test_links_in_an_archive_are_refused_and_nothing_goes_through_them(client: TestClient) -> None:
    evil = _tar(("docs/out", "/tmp"), ("docs/out/x.txt", b"through the link"), ("docs/ok.txt", b"an honest file"))
    entries = _send_archive(client, evil, "docs.tar.gz").json()["entries"]
    assert [(entry["path"], entry["status"]) for entry in entries] == [
        ("docs/out", "refused"),
        ("docs/out/x.txt", "added"),
        ("docs/ok.txt", "added"),
    ]
    assert not Path("/tmp/x.txt").exists()


def _bomb() -> bytes:
    return _zip(**{f"{number}.txt": b" " * 900 for number in range(1200)})


@pytest.mark.parametrize(
    ("content", "name", "status"),
    [
        (_zip(**{"ok.txt": b"never added", "../../evil.txt": b"x"}), "a.zip", 422),
        (_zip(**{"ok.txt": b"never added", "/etc/evil.txt": b"x"}), "a.zip", 422),
        (_zip(**{"ok.txt": b"never added", "C:\\evil.txt": b"x"}), "a.zip", 422),
        (_tar(("ok.txt", b"never added"), ("../evil.txt", b"x")), "a.tar.gz", 422),
        (_bomb(), "a.zip", 422),
        (b"no archive at all", "a.zip", 422),
        (_zip(**{"ok.txt": b"never added"})[:60], "a.zip", 422),
        (_tar(("ok.txt", b"never added"))[:40], "a.tgz", 422),
        (_zip(**{"ok.txt": b"never added"}), "a.rar", 422),
        (b"x" * 1_000_001, "a.zip", 413),
    ],
)
def test_hostile_archives_are_refused_whole(client: TestClient, content: bytes, name: str, status: int) -> None:
    before = client.get("/rag/documents").json()
    answer = _send_archive(client, content, name)
    assert answer.status_code == status, answer.text
    assert client.get("/rag/documents").json() == before
    data_dir = DataDir(client.app.state.container.settings.data_dir)  # type: ignore[attr-defined]
    assert [path.name for path in data_dir.uploads.iterdir()] == []
