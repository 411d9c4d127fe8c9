from __future__ import annotations

from pathlib import Path

import pytest

from terakoya.domain.tasks import Outcome, TaskState
from terakoya.exceptions import ModelLoadError
from terakoya.storage.control import Action, request_action, requested_action, withdraw_action
from terakoya.storage.worker_io import model_of, read_outcome, read_spec, write_outcome, write_spec

MODEL = {
    "name": "tuned",
    "kind": "adapter",
    "directory": "result",
    "parent_id": None,
    "architecture": "llama",
    "parameters": 7,
    "license": "mit",
    "source": "task:x",
    "card": {"loss": 1.5},
}


def test_an_outcome_comes_back_for_its_attempt_only(tmp_path: Path) -> None:
    outcome = Outcome(TaskState.SUCCEEDED, 2, model=MODEL, result={"日本": [1.5]})
    assert read_outcome(tmp_path, 2) is None
    write_outcome(tmp_path, outcome)
    assert read_outcome(tmp_path, 2) == outcome
    assert read_outcome(tmp_path, 3) is None


def test_a_model_outside_its_task_is_refused(tmp_path: Path) -> None:
    model = model_of(Outcome(TaskState.SUCCEEDED, 1, model=MODEL), tmp_path)
    assert model is not None
    assert model.directory == tmp_path / "result"
    for directory in ("../other/result", "/etc", "."):
        with pytest.raises(ModelLoadError, match="outside its task"):
            model_of(Outcome(TaskState.SUCCEEDED, 1, model=MODEL | {"directory": directory}), tmp_path)


def test_a_request_is_seen_until_it_is_withdrawn(tmp_path: Path) -> None:
    assert requested_action(tmp_path) is None
    request_action(tmp_path, Action.FINISH)
    request_action(tmp_path, Action.CANCEL)
    assert requested_action(tmp_path) is Action.CANCEL
    withdraw_action(tmp_path)
    withdraw_action(tmp_path)
    assert requested_action(tmp_path) is None


def test_a_specification_comes_back(tmp_path: Path) -> None:
    write_spec(tmp_path, {"task_id": "t", "path": tmp_path, "rate": 1e-3})
    assert read_spec(tmp_path) == {"task_id": "t", "path": str(tmp_path), "rate": 1e-3}
