"""Documents with a real server, the real embedder and real parser processes."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.servers import run_cli, running_server

from terakoya import Client
from terakoya.storage.files import DataDir
from terakoya.storage.server_lock import running_server as lock_holder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
READY_SECONDS = 300.0


def section(number: int) -> str:
    return (
        f"# Rule {number}\n\nBicycle number {number} is kept in shed {number * 7}. " + "It is washed on Fridays. " * 30
    )


def until_ready(client: Client) -> list[dict[str, Any]]:
    deadline = time.monotonic() + READY_SECONDS
    while any(document["status"] in ("queued", "indexing") for document in client.documents.list()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return client.documents.list()


def test_a_server_killed_again_and_again_loses_no_acknowledged_document(
    folder_with_embedder: Callable[[Path], Path], tmp_path: Path
) -> None:
    data_dir = folder_with_embedder(tmp_path / "data")
    chance = random.Random(7)
    acknowledged: dict[str, str] = {}
    for life in range(4):
        with running_server(data_dir) as server, Client(server.url) as client:
            for number in range(3):
                file = tmp_path / f"{life}-{number}.md"
                sections = 90 if number == 0 else 2
                file.write_text("\n\n".join(section(1000 * life + 100 * number + n) for n in range(sections)))
                acknowledged[client.documents.add(file)["document_id"]] = file.name
            time.sleep(chance.uniform(0.5, 8.0))
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
    assert lock_holder(data_dir / "server.lock") is None
    with running_server(data_dir) as server, Client(server.url) as client:
        documents = until_ready(client)
        assert {document["id"]: document["filename"] for document in documents} == acknowledged
        assert Counter(document["status"] for document in documents) == {"ready": len(acknowledged)}
        collection = client.collections.get("default")
        assert collection["passages"] == sum(document["passages"] for document in documents)
        task_id = client.collections.rebuild("default")
        list(client.watch(task_id))
        assert client.tasks.get(task_id)["result"] == {"points": collection["passages"]}
        hits = client.search("Where is bicycle number 2001 kept?", top_k=5)["hits"]
        assert any("shed 14007" in hit["text"] for hit in hits)
        assert len({hit["passage_id"] for hit in hits}) == len(hits)
        assert [task["kind"] for task in client.tasks.list()].count("ingest") == len(acknowledged)
    assert list(DataDir(data_dir).uploads.iterdir()) == []


def test_the_command_line_adds_lists_rebuilds_and_deletes(
    folder_with_embedder: Callable[[Path], Path], tmp_path: Path
) -> None:
    data_dir = folder_with_embedder(tmp_path / "data")
    folder = tmp_path / "papers"
    (folder / "deeper").mkdir(parents=True)
    (folder / "rules.md").write_text(section(3))
    (folder / "deeper" / "休暇.txt").write_text("有給休暇は入社から六か月後に十日付与されます。")
    (folder / "empty.html").write_text("<html><body><script>x()</script></body></html>")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    with running_server(data_dir):
        added = run_cli(data_dir, "documents", "add", str(folder), "--json")
        assert added.returncode == 1, added.stderr
        by_name = {Path(one["file"]).name: one for one in json.loads(added.stdout)["documents"]}
        assert {name: one["status"] for name, one in by_name.items()} == {
            "rules.md": "ready",
            "休暇.txt": "ready",
            "empty.html": "failed",
        }
        assert by_name["empty.html"]["error_code"] == "unreadable_document"
        again = run_cli(data_dir, "documents", "add", str(folder / "rules.md"))
        assert again.returncode == 0
        assert "there already" in again.stderr
        listed = run_cli(data_dir, "documents", "list")
        assert "休暇" in listed.stdout
        assert run_cli(data_dir, "documents", "rebuild", "--json").returncode == 0
        document_id = by_name["rules.md"]["document_id"]
        assert json.loads(run_cli(data_dir, "documents", "show", document_id, "--json").stdout)["passages"] >= 1
        assert run_cli(data_dir, "documents", "delete", document_id, "--yes").returncode == 0
        gone = run_cli(data_dir, "documents", "show", document_id, "--json")
        assert json.loads(gone.stdout)["code"] == "document_not_found"
        collections = json.loads(run_cli(data_dir, "documents", "collections", "--json").stdout)["collections"]
        assert [(info["name"], info["documents"]) for info in collections] == [("default", 2)]
