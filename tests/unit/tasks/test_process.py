from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from terakoya.domain.tasks import ProcessIdentity
from terakoya.security.environment import child_environment
from terakoya.storage.worker_io import has_begun, write_spec
from terakoya.tasks import process
from terakoya.tasks.process import StartedWorker, group_is_empty, is_alive, signal_group, start_worker, wait_for_exit

WORKERS = Path(__file__).parents[2] / "workers"


def start(task_dir: Path, do: str) -> StartedWorker:
    write_spec(task_dir, {"task_id": "task_x", "attempt": 1, "fencing_token": 3, "do": do})
    environment = child_environment(dict(os.environ) | {"PYTHONPATH": str(WORKERS)})
    return start_worker("tiny_worker", task_dir, task_dir / "output.log", environment)


async def test_a_worker_whose_launch_was_never_recorded_leaves_without_having_begun(tmp_path: Path) -> None:
    worker = start(tmp_path, "succeed")
    assert is_alive(worker.identity)
    worker.dismiss()
    assert await wait_for_exit(worker.identity) == 75
    assert not has_begun(tmp_path, 3)
    assert not (tmp_path / "outcome.json").exists()


async def test_a_worker_leads_its_own_group_and_its_exit_is_seen(tmp_path: Path) -> None:
    worker = start(tmp_path, "obey")
    worker.release()
    assert os.getsid(worker.identity.pid) == worker.identity.pid
    waiting = asyncio.create_task(wait_for_exit(worker.identity))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    signal_group(worker.identity, signal.SIGKILL)
    assert await waiting == -signal.SIGKILL
    assert not is_alive(worker.identity)
    assert group_is_empty(worker.identity)


async def test_the_exit_is_seen_without_pidfd_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(process, "_POLL_SECONDS", 0.01)
    worker = start(tmp_path, "succeed")
    worker.release()
    assert await wait_for_exit(worker.identity) == 0
    assert has_begun(tmp_path, 3)


async def test_a_later_process_with_the_same_pid_is_another_one(tmp_path: Path) -> None:
    worker = start(tmp_path, "succeed")
    earlier = replace(worker.identity, started_at=worker.identity.started_at - 1)
    other_boot = replace(worker.identity, boot_id="an earlier boot")
    for stranger in (earlier, other_boot):
        assert not is_alive(stranger)
        assert group_is_empty(stranger)
        signal_group(stranger, signal.SIGKILL)
        assert await wait_for_exit(stranger) is None
    assert is_alive(worker.identity), "nobody signalled it"
    worker.dismiss()
    await wait_for_exit(worker.identity)


def test_a_group_is_empty_once_its_last_process_has_ended() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as leader:
        found = process._state_and_start(leader.pid)
        assert found is not None
        group = ProcessIdentity(process.boot_id(), leader.pid, found[1])
        assert not group_is_empty(group)
        leader.kill()
    assert group_is_empty(group)
