"""The model service over a real repository; only the model server is replaced, by one that answers from a list."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_model import build_tiny_model

from terakoya.domain.datasets import Message
from terakoya.domain.models import ModelArtifact, ModelInfo
from terakoya.domain.tasks import NewModel, Task, TaskKind
from terakoya.exceptions import Conflict, InvalidConfig, ModelLoadError, ModelNotFound
from terakoya.models.client import AnswerPart
from terakoya.models.hub import HUB_TOKEN, HubAccess
from terakoya.models.service import ModelService
from terakoya.storage.database import open_database
from terakoya.storage.event_log import FileEventLog
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository
from terakoya.storage.task_repository import SqlTaskRepository
from terakoya.tasks.service import TaskService


class Scripted:
    """Answers "<model name>: <last message>" in two pieces; the model called "broken" fails after the first."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[Message], dict[str, Any]]] = []

    async def stream(
        self, artifact: ModelArtifact, messages: Sequence[Message], **options: Any
    ) -> AsyncGenerator[AnswerPart, None]:
        self.asked.append((artifact.info.name, list(messages), options))
        yield AnswerPart(delta=artifact.info.name)
        if artifact.info.name == "broken":
            raise ModelLoadError("it broke")
        yield AnswerPart(delta=f": {messages[-1].content}")
        yield AnswerPart(tokens=2, reason="stop")


class House:
    def __init__(self, root: Path) -> None:
        data_dir = DataDir(root).create()
        engine = open_database(data_dir)
        self.repository = SqlModelRepository(engine, data_dir)
        self.task_rows = SqlTaskRepository(engine, data_dir)
        self.client = Scripted()
        self.imports = root / "imports"
        tasks = TaskService(self.task_rows, FileEventLog(data_dir), data_dir)
        self.hub = HubAccess("https://hub.example", "hf_secret")
        self.service = ModelService(
            self.repository, tasks, self.client, import_dir=self.imports, hub=self.hub, downloads=data_dir.downloads
        )
        self._root = root

    def add(self, name: str, *, parent: ModelInfo | None = None) -> ModelInfo:
        folder = self._root / f"new-{name}"
        folder.mkdir()
        (folder / "config.json").write_text(f'{{"name": "{name}"}}')
        kind = "base" if parent is None else "adapter"
        parent_id = None if parent is None else parent.id
        return self.repository.save_model(NewModel(name, kind, folder, parent_id, "llama", 1, "Apache-2.0", "folder:x"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "data")


async def events(house: House, prompt: str, models: list[str], **options: Any) -> list[dict[str, Any]]:
    return [event async for event in house.service.compare(prompt, models, **options)]


async def test_the_models_answer_side_by_side_and_each_says_when_it_is_done(house: House) -> None:
    base = house.add("base")
    tuned = house.add("tuned", parent=base)
    got = await events(house, "hello", ["base", tuned.id], max_new_tokens=9, system="Be kind.", seed=4)
    assert got[:2] == [{"model": base.id, "delta": ""}, {"model": tuned.id, "delta": ""}]
    of_base = [event for event in got if event["model"] == base.id]
    assert "".join(event.get("delta", "") for event in of_base) == "base: hello"
    assert of_base[3].keys() == {"model", "finished", "tokens", "seconds", "reason"}
    assert of_base[3]["tokens"] == 2
    name, messages, options = house.client.asked[1]
    assert name == "tuned"
    assert messages == [Message("system", "Be kind."), Message("user", "hello")]
    assert options == {"max_new_tokens": 9, "temperature": 0.0, "seed": 4}


async def test_one_model_that_fails_does_not_end_the_others(house: House) -> None:
    broken, good = house.add("broken"), house.add("good")
    got = await events(house, "hello", ["broken", "good"])
    assert {"model": broken.id, "error": "it broke", "code": "model_load_error"} in got
    assert {event["model"] for event in got if event.get("finished")} == {good.id}
    with pytest.raises(InvalidConfig, match="two are the same"):
        await events(house, "hello", ["good", good.id])


async def test_an_unknown_model_is_an_error_before_anyone_answers(house: House) -> None:
    house.add("base")
    with pytest.raises(ModelNotFound, match="nobody"):
        await events(house, "hello", ["base", "nobody"])
    assert house.client.asked == []


@pytest.mark.parametrize(
    ("prompt", "models", "options", "match"),
    [
        ("", ["base"], {}, "1 to 32000 characters"),
        ("  \n", ["base"], {}, "1 to 32000 characters"),
        ("x" * 32_001, ["base"], {}, "got 32001"),
        ("x" * 32_000, ["base"], {"system": "y"}, "got 32001"),
        ("x", [], {}, "1 to 4 different models"),
        ("x", ["a", "b", "c", "d", "e"], {}, "1 to 4 different models"),
        ("x", ["base", "base"], {}, "different"),
        ("x", ["base"], {"max_new_tokens": 0}, "max_tokens must be 1 to 2048; got 0"),
        ("x", ["base"], {"max_new_tokens": 10**9}, "max_tokens"),
        ("x", ["base"], {"temperature": -0.1}, "temperature"),
        ("x", ["base"], {"temperature": float("nan")}, "temperature"),
    ],
)
async def test_each_bound_is_named(
    house: House, prompt: str, models: list[str], options: dict[str, Any], match: str
) -> None:
    house.add("base")
    with pytest.raises(InvalidConfig, match=match):
        await events(house, prompt, models, **options)


def test_a_pull_is_a_task_whose_plan_names_the_pinned_source(house: House, tmp_path: Path) -> None:
    task = house.service.pull("starter")
    assert (task.kind, task.name) == (TaskKind.PULL, "smollm2-135m-instruct-q4_1")
    launch = house.service.plan_pull(task, tmp_path)
    assert launch.module == "terakoya.processes.pull"
    assert launch.spec == {
        "name": "smollm2-135m-instruct-q4_1",
        "parent": None,
        "starter": "smollm2-135m-instruct-q4_1",
    }


def test_the_hub_and_its_token_are_the_administrators_and_the_token_is_written_nowhere(
    house: House, tmp_path: Path
) -> None:
    task = house.service.pull("hf:org/Model@v1")
    launch = house.service.plan_pull(task, tmp_path)
    assert task.name == "Model"
    assert launch.spec["hub"]["source"] == "hf:org/Model@v1"
    assert launch.spec["hub"]["endpoint"] == "https://hub.example"
    assert launch.secrets == {HUB_TOKEN: "hf_secret"}
    assert "hf_secret" not in f"{launch!r} {launch.spec} {house.task_rows.find(task.id)!r}"
    assert house.service.plan_pull(house.service.pull("starter"), tmp_path).secrets == {}


def test_an_adapter_that_names_its_base_needs_no_other_word_and_takes_no_other_base(house: House) -> None:
    base, other = house.add("base"), house.add("other")
    folder = house.imports / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base.id}))
    assert house.service.pull("folder:adapter").resolved["parent_id"] == base.id
    with pytest.raises(InvalidConfig, match="made for 'base', not for 'other'"):
        house.service.pull("folder:adapter", base=other.id)


def test_a_taken_name_and_a_bad_one_are_refused_at_once(house: House) -> None:
    house.add("mine")
    with pytest.raises(Conflict, match="mine"):
        house.service.pull("starter", name="MINE")
    with pytest.raises(InvalidConfig):
        house.service.pull("starter", name="../x")
    assert house.task_rows.list_tasks() == []


def test_an_adapter_folder_is_pulled_onto_its_base(house: House, tmp_path: Path) -> None:
    base = house.add("base")
    (house.imports / "adapter").mkdir(parents=True)
    task: Task = house.service.pull("folder:adapter", base="base")
    launch = house.service.plan_pull(task, tmp_path)
    assert task.resolved["parent_id"] == base.id
    assert launch.spec["parent"]["info"]["id"] == base.id
    assert launch.spec["folder"] == str(house.imports / "adapter")
    with pytest.raises(InvalidConfig, match="takes no base"):
        house.service.pull("starter", base="base")


def test_lineage_runs_from_the_first_model_to_this_one(house: House) -> None:
    base = house.add("base")
    tuned = house.add("tuned", parent=base)
    assert list(house.service.lineage(tuned)) == [base.id, tuned.id]
    assert list(house.service.lineage(base)) == [base.id]


def test_a_real_model_folder_can_be_stored_and_verified(house: House, tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "tiny")
    house.repository.save_model(NewModel("tiny", "base", folder, None, "llama", 1, "Apache-2.0", "folder:tiny"))
    assert (house.repository.load_model("tiny").path / "model.safetensors").is_file()
