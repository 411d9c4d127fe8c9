from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from terakoya.exceptions import Conflict, InvalidConfig, NotFound, StorageFull
from terakoya.storage.files import DataDir, is_id, move_file_durably, new_id, read_tail, write_durably


def test_ids_sort_in_the_order_they_were_made() -> None:
    ids = [new_id("task") for _ in range(1000)]
    assert ids == sorted(set(ids))
    assert all(is_id(id) for id in ids)
    assert len(ids[0]) == len("task_") + 26


@pytest.mark.parametrize("name", ["../../x", "task_" + "a" * 25, "task_/" + "a" * 25, "", "task_" + "I" * 26])
def test_only_an_id_names_a_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        DataDir(tmp_path).task(name)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spec.json"
    write_durably(path, b"old")

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageFull, match=r"'spec\.json'"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_moves_between_file_systems_whole(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm as a second file system")
    source = elsewhere / new_id("test")
    source.write_bytes(b"rows")
    move_file_durably(source, tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.jsonl").read_bytes() == b"rows"
    assert not source.exists()


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    assert read_tail(log, lines=2) == ""
    log.write_bytes(b"one\ntwo\n\xff three\n")
    assert read_tail(log, lines=2) == "two\n\ufffd three"


def test_a_second_server_on_the_same_folder_is_refused_by_name(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    with data_dir.lock() as lock:
        lock.announce("http://127.0.0.1:8050")
        running = data_dir.running_server()
        assert running is not None
        assert (running.pid, running.url) == (os.getpid(), "http://127.0.0.1:8050")
        with pytest.raises(Conflict, match=rf"pid {os.getpid()}, http://127\.0\.0\.1:8050"):
            data_dir.lock()
    assert data_dir.running_server() is None
    data_dir.lock().release()


def test_a_killed_server_frees_its_folder(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from terakoya.storage.files import DataDir;"
        "lock = DataDir(Path(sys.argv[1])).lock('http://gone'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert DataDir(tmp_path).running_server() is None
    DataDir(tmp_path).lock().release()


def test_a_data_folder_that_cannot_be_made_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidConfig, match=r"Not a directory.*set TERAKOYA_DATA_DIR"):
        DataDir(tmp_path / "file" / "data").create()
