"""A real training process whose address space is limited while it works: it stops with a checkpoint, not with a crash,
and the next attempt goes on with half the micro-batch.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import psutil
import pytest
from tests.integration.test_training_process import TrainingTask
from tests.tiny_model import build_tiny_model, tiny_artifact

from terakoya.domain.tasks import TaskState
from terakoya.storage.control import Action, request_action
from terakoya.storage.worker_io import read_outcome

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="Linux alone can limit a running process"),
]


@pytest.mark.parametrize("room_bytes", [120 << 20, 8 << 20])
def test_a_process_that_runs_out_of_memory_says_so_and_comes_back_smaller(tmp_path: Path, room_bytes: int) -> None:
    model = tiny_artifact(build_tiny_model(tmp_path / "model"))
    task = TrainingTask(tmp_path / "task", model, max_steps=200_000)
    process = task.start()
    task.wait_for("step", process)
    limit = psutil.Process(process.pid).memory_info().vms + room_bytes
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    assert process.wait(30) == 1, task.log()
    outcome = read_outcome(task.folder, 1)
    assert outcome is not None
    assert (outcome.status, outcome.error_code) == (TaskState.FAILED, "out_of_memory")

    process = task.start(attempt=2)
    while not any(event["attempt"] == 2 for event in task.of("step")):
        assert process.poll() is None, task.log()
    request_action(task.folder, Action.CANCEL)
    process.wait(60)
    assert "smaller_micro_batch" in [event["code"] for event in task.of("warning")]
