"""The training process as the supervisor starts it: killed and started again, and on the real starter model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_model import build_tiny_model, tiny_artifact

from terakoya.data.examples import to_line
from terakoya.domain.datasets import Example, Message, Split
from terakoya.domain.models import ModelArtifact
from terakoya.domain.tasks import Outcome, TaskState
from terakoya.storage.control import Action, request_action
from terakoya.storage.memory_leases import outstanding
from terakoya.storage.worker_io import read_outcome, write_spec
from terakoya.training.defaults import resolve
from terakoya.training.request import TrainingRequest
from terakoya.training.spec import RunSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ASKED = (("Please cancel order", "cancellation"), ("Where is parcel", "delivery"), ("The lamp is broken:", "damage"))


class TrainingTask:
    """A task directory and the process that works in it."""

    def __init__(self, root: Path, model: ModelArtifact, **fields: Any) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.folder = root
        rows = root / "rows.jsonl"
        rows.write_bytes(b"".join(map(to_line, self._examples())))
        request = TrainingRequest.model_validate({"model": "base", "dataset": "mail", "batch_size": 4} | fields)
        self.spec = RunSpec(
            name="tuned",
            request=request.model_dump(mode="json", exclude_unset=True),
            resolved=resolve(request, parameters=model.info.parameters, rows=24),
            model=model,
            dataset_id="data_x",
            dataset_name="mail",
            dataset_sha256=hashlib.sha256(rows.read_bytes()).hexdigest(),
            rows_path=rows,
            evaluation_cache=root / "cache",
            threads=1,
        )

    @staticmethod
    def _examples() -> list[Example]:
        return [
            Example(
                row,
                (Message("user", f"{ASKED[row % 3][0]} {row}"), Message("assistant", ASKED[row % 3][1])),
                Split.HELDOUT if row % 5 == 0 else Split.TRAIN,
            )
            for row in range(1, 31)
        ]

    def start(self, attempt: int = 1) -> subprocess.Popen[bytes]:
        fields = {"task_id": "task_x", "kind": "training", "attempt": attempt, "fencing_token": attempt}
        write_spec(self.folder, self.spec.to_json() | fields)
        with (self.folder / "output.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "terakoya.processes.train", str(self.folder)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def finish(self, attempt: int = 1) -> Outcome:
        process = self.start(attempt)
        process.wait(500)
        outcome = read_outcome(self.folder, attempt)
        assert outcome is not None, self.log()
        return outcome

    def events(self) -> list[dict[str, Any]]:
        path = self.folder / "events.jsonl"
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

    def of(self, type: str) -> list[dict[str, Any]]:
        return [event for event in self.events() if event["type"] == type]

    def log(self) -> str:
        return (self.folder / "output.log").read_text()

    def wait_for(self, type: str, process: subprocess.Popen[bytes]) -> None:
        while not self.of(type):
            assert process.poll() is None, self.log()
            time.sleep(0.01)

    def wait_for_checkpoint_of(self, attempt: int, process: subprocess.Popen[bytes]) -> None:
        while not any(event["attempt"] == attempt for event in self.of("checkpoint")):
            assert process.poll() is None, self.log()
            time.sleep(0.005)

    def weights(self) -> str:
        (file,) = (self.folder / "result").glob("*model.safetensors")
        return hashlib.sha256(file.read_bytes()).hexdigest()

    def flip_a_byte(self) -> str:
        """Damage the newest checkpoint; return its name."""
        newest = max((self.folder / "checkpoints").iterdir(), key=lambda path: int(path.name.partition("-")[2]))
        weights = newest / "trained.safetensors"
        content = bytearray(weights.read_bytes())
        content[-3] ^= 0x10
        weights.write_bytes(content)
        return newest.name


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelArtifact:
    return tiny_artifact(build_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(
    tmp_path: Path, tiny: ModelArtifact, strategy: str
) -> None:
    fields: dict[str, Any] = {"epochs": 40, "learning_rate": 0.01, "strategy": strategy}
    whole = TrainingTask(tmp_path / "whole", tiny, **fields)
    assert whole.finish().status is TaskState.SUCCEEDED

    killed = TrainingTask(tmp_path / "killed", tiny, **fields)
    shutil.copy(whole.folder / "decisions.json", killed.folder)  # two probes of so small a model may differ
    for attempt in (2, 3):
        process = killed.start(attempt)
        killed.wait_for_checkpoint_of(attempt, process)
        time.sleep(random.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert read_outcome(killed.folder, attempt) is None
    for torn in (killed.folder / "checkpoints").glob("*.tmp"):
        shutil.rmtree(torn)
    damaged = killed.flip_a_byte()
    outcome = killed.finish(attempt=4)
    assert outcome.status is TaskState.SUCCEEDED
    assert "going on after step" in str(killed.of("log"))
    [skipped] = [event for event in killed.of("warning") if event["code"] == "checkpoint_skipped"]
    assert damaged in skipped["message"]
    assert killed.weights() == whole.weights()
    assert killed.of("eval")[-1]["loss"] == whole.of("eval")[-1]["loss"]


def test_a_cancelled_process_leaves_a_checkpoint_and_says_so(tmp_path: Path, tiny: ModelArtifact) -> None:
    task = TrainingTask(tmp_path / "task", tiny, max_steps=100_000)
    process = task.start()
    task.wait_for("step", process)
    request_action(task.folder, Action.CANCEL)
    assert process.wait(30) == 0
    outcome = read_outcome(task.folder, 1)
    assert outcome is not None
    assert outcome.status is TaskState.CANCELLED
    assert task.of("checkpoint")
    assert not (task.folder / "result").exists()


def test_a_run_says_what_memory_it_is_going_to_hold_until_it_ends(tmp_path: Path, tiny: ModelArtifact) -> None:
    task = TrainingTask(tmp_path / "run", tiny, max_steps=100_000)
    process = task.start()
    promised = tmp_path / "run" / "memory" / f"task_x.{process.pid}.json"
    sizes = set()
    while not task.of("step"):
        assert process.poll() is None, task.log()
        with contextlib.suppress(FileNotFoundError):
            sizes.add(json.loads(promised.read_bytes())["size_bytes"])
        time.sleep(0.01)
    sizes.add(json.loads(promised.read_bytes())["size_bytes"])
    assert len(sizes) == 2  # by the model's size, then by the micro-batch
    assert [holder for holder, _ in outstanding(promised.parent)] == ["task_x"]
    request_action(task.folder, Action.CANCEL)
    process.wait(100)
    assert list(promised.parent.iterdir()) == []


def test_a_bad_request_fails_with_its_reason_and_code(tmp_path: Path, tiny: ModelArtifact) -> None:
    outcome = TrainingTask(tmp_path / "task", tiny, adapter={"rank": 500}).finish()
    assert outcome.status is TaskState.FAILED
    assert outcome.error_code == "invalid_config"
    assert outcome.error is not None
    assert "LoRA rank must be 1-" in outcome.error


def test_the_real_starter_model_takes_steps_and_is_judged(
    tmp_path: Path, folder_with_starter: Callable[[Path], Path]
) -> None:
    data = folder_with_starter(tmp_path / "data")
    (folder,) = (data / "models").iterdir()
    started = time.monotonic()
    task = TrainingTask(tmp_path / "task", tiny_artifact(folder, name="starter"), max_steps=3)
    process = task.start()
    task.wait_for("step", process)
    first_step = time.monotonic() - started
    process.wait(500)
    outcome = read_outcome(task.folder, 1)
    assert outcome is not None
    assert outcome.status is TaskState.SUCCEEDED, task.log()
    assert first_step < 60  # 20 s is what is promised on a quiet machine; benchmarks/startup.py measures that
    assert [event["step"] for event in task.of("step")] == [1, 2, 3]
    assert outcome.result["effective"]["forward"] == "fused"
    report = json.loads((task.folder / "report.json").read_bytes())
    assert report["heldout"]["examples"] == 6
    assert report["heldout"]["loss"]["after"]["value"] < report["heldout"]["loss"]["before"]["value"]
