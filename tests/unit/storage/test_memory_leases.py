from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from terakoya.storage.memory_leases import give_back, hold, outstanding

GIB = 2**30


def test_what_is_held_already_is_not_going_to_be_taken(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    assert outstanding(folder) == []
    hold(folder, "task_1", 100 * GIB)
    ((holder, left),) = outstanding(folder)
    assert holder == "task_1"
    assert left == pytest.approx(100 * GIB - psutil.Process().memory_info().rss, abs=2**26)
    hold(folder, "task_1", 1)
    assert outstanding(folder) == [("task_1", 0)]
    give_back(folder, "task_1")
    give_back(folder, "task_1")
    assert outstanding(folder) == []
    assert list(folder.iterdir()) == []


def test_a_process_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    lease = f"hold(Path({str(tmp_path)!r}), 't', 9)"
    code = f"from pathlib import Path; from terakoya.storage.memory_leases import hold; {lease}"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(list(tmp_path.iterdir())) == 1
    assert outstanding(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_another_process_of_the_same_id_is_not_taken_for_it(tmp_path: Path) -> None:
    hold(tmp_path, "t", GIB)
    (path,) = tmp_path.iterdir()
    fields = json.loads(path.read_text())
    assert fields["pid"] == os.getpid()
    path.write_text(json.dumps(fields | {"started": fields["started"] - 100}))
    assert outstanding(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_what_is_no_lease_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    assert outstanding(tmp_path) == []


def test_a_lease_survives_a_clock_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(tmp_path, "task_1", 100 * GIB)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: 1.0)  # as psutil tells it after a correction
    assert [holder for holder, _ in outstanding(tmp_path)] == ["task_1"]
