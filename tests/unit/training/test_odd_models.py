"""Models that lack something, or do not fit their tokenizer, and runs that go wrong on the way."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract.training_method import Workshop, some_rows
from tests.tiny_model import build_tiny_model, tiny_artifact

from terakoya.domain.datasets import DatasetKind, Example, Message
from terakoya.domain.events import EventType
from terakoya.domain.tasks import TaskState
from terakoya.exceptions import InvalidDataset, ModelLoadError, TrainingError


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    from terakoya.models import probe

    monkeypatch.setattr(probe, "_gflops", lambda device, dtype, *_: 2.0 if dtype is torch.float32 else 1.0)


def workshop(folder: Path, model: Path) -> Workshop:
    return Workshop(folder, tiny_artifact(model), {"max_steps": 3}, some_rows(DatasetKind.CONVERSATION))


def changed(model: Path, folder: Path, file: str, **fields: Any) -> Path:
    """A copy of the model with other fields in one of its JSON files; None takes one out."""
    copy = shutil.copytree(model, folder / "changed")
    content = json.loads((copy / file).read_text(encoding="utf-8")) | fields
    kept = {name: value for name, value in content.items() if value is not None}
    (copy / file).write_text(json.dumps(kept), encoding="utf-8")
    return copy


def test_a_model_without_a_chat_template_is_trained_in_plain_form(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "base", chat_template=None)
    assert workshop(tmp_path, model).run().status is TaskState.SUCCEEDED


def test_a_model_without_a_padding_token_is_trained(tmp_path: Path, tiny_folder: Path) -> None:
    model = changed(tiny_folder, tmp_path, "tokenizer_config.json", pad_token=None)
    assert workshop(tmp_path, model).run().status is TaskState.SUCCEEDED


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused_with_row_and_token(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "base")
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 300, "content": "blue", "special": False})
    (model / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    bench = workshop(tmp_path, model)
    with pytest.raises(ModelLoadError, match=r"row 2 has the token 'blue' with number 259, and the model knows 259"):
        bench.run()
    assert not bench.heard.of(EventType.STEP)


def test_a_template_that_drops_every_answer_trains_nothing(tmp_path: Path, tiny_folder: Path) -> None:
    model = shutil.copytree(tiny_folder, tmp_path / "masked")
    template = model / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    dropped = text.replace("message['content']", "(message['content'] if message['role'] == 'user' else '')")
    template.write_text(dropped, encoding="utf-8")
    with pytest.raises(InvalidDataset, match=r"18 of 18 examples cannot be used.*\n.*no token of its answer"):
        workshop(tmp_path, model).run()


def test_a_prompt_without_an_answer_is_refused_by_number(tmp_path: Path, tiny_folder: Path) -> None:
    bench = workshop(tmp_path, tiny_folder)
    bench.rows[3] = Example(4, (Message("user", "and?"),))
    with pytest.raises(InvalidDataset, match="row 4: it has no answer to learn"):
        bench.run()


def test_a_loss_that_turns_into_no_number_keeps_the_last_checkpoint_and_names_the_rows(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from terakoya.training.objectives.supervised import SupervisedObjective

    steps = iter(range(1, 100))
    real = SupervisedObjective.share

    def share(self: Any, forward: Any, batch: Any, size: Any) -> Any:
        found = real(self, forward, batch, size)
        return type(found)(found.loss * (math.nan if next(steps) > 7 else 1.0))

    monkeypatch.setattr(SupervisedObjective, "share", share)
    bench = workshop(tmp_path, tiny_folder)
    with pytest.raises(TrainingError, match=r"step 8 the loss was nan.*checkpoint of step 5 is kept.*rows are \d+, "):
        bench.run(max_steps=20)
    assert [event["step"] for event in bench.heard.of(EventType.CHECKPOINT)] == [5]
    assert (tmp_path / "task" / "checkpoints" / "step-5" / "trained.safetensors").is_file()

    monkeypatch.setattr(SupervisedObjective, "share", real)
    assert bench.run(attempt=2, max_steps=20).status is TaskState.SUCCEEDED
