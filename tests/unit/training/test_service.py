"""Against real SQLite and real files; only the supervisor is left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from terakoya.data.examples import to_line
from terakoya.domain.datasets import DatasetInfo, Example, Message
from terakoya.domain.models import ModelInfo
from terakoya.domain.tasks import NewModel, TaskKind, TaskLimits, TaskState
from terakoya.exceptions import (
    Conflict,
    DatasetNotFound,
    InvalidConfig,
    ModelLoadError,
    ModelNotFound,
    TaskNotFound,
)
from terakoya.storage.database import open_database
from terakoya.storage.dataset_repository import SqlDatasetRepository
from terakoya.storage.event_log import FileEventLog
from terakoya.storage.files import DataDir, new_id
from terakoya.storage.model_repository import SqlModelRepository
from terakoya.storage.task_repository import SqlTaskRepository
from terakoya.tasks.service import TaskService
from terakoya.training.request import TrainingRequest
from terakoya.training.service import TrainingService
from terakoya.training.spec import RunSpec


class House:
    """The parts of a container that training touches."""

    def __init__(self, root: Path) -> None:
        self.data_dir = DataDir(root / "data").create()
        self.root = root
        self.engine = open_database(self.data_dir)
        self.models = SqlModelRepository(self.engine, self.data_dir)
        self.datasets = SqlDatasetRepository(self.engine, self.data_dir)
        self.tasks = SqlTaskRepository(self.engine, self.data_dir)
        self.queue = TaskService(self.tasks, FileEventLog(self.data_dir), self.data_dir)
        self.training = TrainingService(
            queue=self.queue,
            tasks=self.tasks,
            models=self.models,
            datasets=self.datasets,
            folders=self.data_dir,
            threads=1,
            limits=TaskLimits(max_hours=24, no_progress_minutes=30, max_restarts=5),
        )
        self.base = self.add_model("starter", "base", None)
        self.add_dataset("inbox", 200)

    def add_model(self, name: str, kind: str, parent: str | None) -> ModelInfo:
        folder = self.root / f"made-{name}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(name.encode())
        (folder / "config.json").write_text("{}")
        made = NewModel(name, kind, folder, parent, "llama", 134_515_008, "apache-2.0", "folder:made")
        return self.models.save_model(made)

    def add_dataset(self, name: str, rows: int) -> None:
        content = b"".join(
            to_line(Example(row, (Message("user", f"question {row}"), Message("assistant", "answer"))))
            for row in range(1, rows + 1)
        )
        path = self.root / f"{name}.jsonl"
        path.write_bytes(content)
        info = DatasetInfo(
            id=new_id("data"),
            name=name,
            rows=rows,
            heldout_rows=0,
            format="messages",
            encoding="utf-8",
            size_bytes=len(content),
            content_sha256=hashlib.sha256(content).hexdigest(),
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
        self.datasets.save(info, path, {})


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.engine.dispose()


def request(**fields: Any) -> TrainingRequest:
    return TrainingRequest.model_validate({"model": "starter", "dataset": "inbox"} | fields)


def test_a_start_queues_what_was_asked_beside_what_it_means(house: House) -> None:
    task = house.training.start(request(learning_rate=5e-4))
    assert task.state is TaskState.QUEUED
    assert task.name == "inbox-lora"
    assert task.request == {"model": "starter", "dataset": "inbox", "learning_rate": 5e-4}
    assert task.resolved["model"] == house.base.id
    assert task.resolved["learning_rate"] == 5e-4
    assert task.resolved["adapter"]["rank"] == 16


def test_limits_are_the_servers_unless_a_run_asks_for_less(house: House) -> None:
    task = house.training.start(request(priority=7, limits={"max_hours": 1.5, "max_restarts": 0}))
    assert TaskLimits.of(task.resolved) == TaskLimits(max_hours=1.5, no_progress_minutes=30, max_restarts=0)
    assert task.priority == 7
    assert TaskLimits.of(house.training.start(request()).resolved).max_hours == 24
    with pytest.raises(InvalidConfig, match="at most 24 hours"):
        house.training.check(request(limits={"max_hours": 25}))


def test_default_epochs_count_the_rows_that_are_left_to_train_on(house: House) -> None:
    assert house.training.start(request()).resolved["epochs"] == 10  # 180 rows in batches of 8: 23 steps an epoch


def test_made_names_are_numbered_and_asked_ones_must_be_free(house: House) -> None:
    assert [house.training.start(request()).name for _ in range(3)] == ["inbox-lora", "inbox-lora-2", "inbox-lora-3"]
    assert house.training.start(request(strategy="full")).name == "inbox-full"
    with pytest.raises(Conflict, match="'Inbox-Lora' is taken"):
        house.training.start(request(name="Inbox-Lora"))
    with pytest.raises(Conflict, match="'starter' is taken"):
        house.training.start(request(name="starter"))
    with pytest.raises(InvalidConfig, match="cannot be used"):
        house.training.start(request(name="../../x"))


def test_what_is_not_there_is_named_and_nothing_is_queued(house: House) -> None:
    with pytest.raises(ModelNotFound):
        house.training.start(request(model="startr"))
    with pytest.raises(DatasetNotFound):
        house.training.start(request(dataset="outbox"))
    assert house.training.list() == []


def test_an_objective_that_the_rows_are_not_for_is_refused_before_it_is_queued(house: House) -> None:
    with pytest.raises(InvalidConfig, match="'dpo' learns from preference rows, and the dataset's are conversation"):
        house.training.start(request(objective="dpo"))
    with pytest.raises(InvalidConfig, match="'supervised' has no setting 'beta'; it takes none"):
        house.training.start(request(objective_settings={"beta": 0.1}))
    assert house.training.list() == []


def test_a_run_cannot_start_from_an_adapter_yet(house: House) -> None:
    house.add_model("tuned", "adapter", house.base.id)
    with pytest.raises(InvalidConfig, match=r"'tuned' is an adapter.*such as 'starter'"):
        house.training.start(request(model="tuned"))


def test_an_embedder_is_not_trained(house: House) -> None:
    house.add_model("finder", "embedder", None)
    with pytest.raises(InvalidConfig, match="'finder' is an embedder"):
        house.training.start(request(model="finder"))
    assert house.training.list() == []


def test_a_plan_holds_all_a_process_needs_and_survives_being_written(house: House, tmp_path: Path) -> None:
    task = house.training.start(request())
    launch = house.training.plan(task, tmp_path)
    assert launch.module == "terakoya.processes.train"
    written = json.loads(json.dumps(launch.spec)) | {"task_id": task.id, "attempt": 1}
    spec = RunSpec.from_json(written)
    assert spec.to_json() == launch.spec
    assert spec.model.info == house.base
    assert spec.model.path.is_dir()
    assert spec.rows_path.is_file()
    assert spec.threads == 1


def test_a_plan_fails_when_the_model_was_changed_on_disk(house: House, tmp_path: Path) -> None:
    task = house.training.start(request())
    (house.models.load_model("starter").path / "config.json").write_text("{ }")
    with pytest.raises(ModelLoadError, match="was changed"):
        house.training.plan(task, tmp_path)


def test_the_report_is_there_once_the_process_has_written_it(house: House) -> None:
    task = house.training.start(request())
    assert house.training.report(task.id) is None
    folder = house.data_dir.task(task.id)
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text('{"version": 1}')
    assert house.training.report(task.id) == {"version": 1}


def test_a_task_of_another_kind_is_no_training_run(house: House) -> None:
    pull = house.queue.submit(TaskKind.PULL, name="pull", request={}, resolved={})
    with pytest.raises(TaskNotFound, match="is a pull task"):
        house.training.get(pull.id)
    with pytest.raises(TaskNotFound):
        house.training.report(new_id("task"))
