"""What every way to train must do: strategy, adapter kind and objective alike. A test inherits
``TrainingMethodContract`` and says which request it is about; rows of the kind its objective learns from are made here.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny_model import build_tiny_model, tiny_artifact
from transformers import AutoTokenizer

from terakoya.data.examples import to_line
from terakoya.domain.datasets import DatasetKind, Example, Message, Split
from terakoya.domain.events import EventType, Phase
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.domain.tasks import Outcome, TaskState
from terakoya.exceptions import InvalidConfig, InvalidDataset
from terakoya.models.factory import create_model_loader, loader_type
from terakoya.models.label_forward import LabelForward
from terakoya.models.row_likelihood import log_likelihoods
from terakoya.training.defaults import resolve
from terakoya.training.objectives.methods import OBJECTIVES
from terakoya.training.request import TrainingRequest
from terakoya.training.run import TrainingRun
from terakoya.training.spec import RunSpec

COLOURS = ("red", "green", "blue", "grey")


def some_rows(kind: DatasetKind) -> list[Example]:
    """Twenty-four rows that can be learned, the last six of them held out."""
    rows = []
    for number in range(1, 25):
        colour, other = COLOURS[number % 4], COLOURS[(number + 1) % 4]
        split = Split.HELDOUT if number > 18 else Split.TRAIN
        if kind is DatasetKind.TEXT:
            rows.append(Example(number, (), split, text=f"Box {number} is {colour}. " * (1 + number % 5)))
            continue
        turns = (Message("user", f"{'Tell me. ' * (number % 3)}Box {number}?"), Message("assistant", colour))
        rejected = other if kind is DatasetKind.PREFERENCE else None
        rows.append(Example(number, turns, split, rejected=rejected))
    return rows


@dataclass
class Heard:
    events: list[tuple[EventType, dict[str, Any]]] = field(default_factory=list)

    def notify(self, type: EventType, /, **fields: Any) -> None:
        self.events.append((type, fields))

    def of(self, type: EventType) -> list[dict[str, Any]]:
        return [fields for each, fields in self.events if each is type]


@dataclass
class Workshop:
    """Runs one request over one data set, in a folder."""

    folder: Path
    model: ModelArtifact
    fields: dict[str, Any]
    rows: list[Example]
    heard: Heard = field(default_factory=Heard)

    def run(
        self, task: str = "task", *, attempt: int = 1, asked: Callable[[], str | None] = lambda: None, **fields: Any
    ) -> Outcome:
        request = TrainingRequest.model_validate(
            {"model": "m", "dataset": "d", "max_steps": 12, "batch_size": 4, "learning_rate": 0.01}
            | {"schedule": {"kind": "constant", "warmup": 0.0}}
            | self.fields
            | fields
        )
        rows_path = self.folder / "rows.jsonl"
        rows_path.write_bytes(b"".join(map(to_line, self.rows)))
        spec = RunSpec(
            name="tuned",
            request=request.model_dump(mode="json", exclude_unset=True),
            resolved=resolve(request, parameters=100_000, rows=18, kind=self.kind),
            model=self.model,
            dataset_id="data_x",
            dataset_name="boxes",
            dataset_sha256=hashlib.sha256(rows_path.read_bytes()).hexdigest(),
            rows_path=rows_path,
            evaluation_cache=self.folder / "cache",
            threads=1,
        )
        (self.folder / task).mkdir(exist_ok=True)
        return TrainingRun(
            RunSpec.from_json(json.loads(json.dumps(spec.to_json()))),
            task_id="task_x",
            task_dir=self.folder / task,
            attempt=attempt,
            observer=self.heard,
            requested_action=asked,
        ).execute()

    @property
    def kind(self) -> DatasetKind:
        """Of a data set that the request's objective learns from, whatever its rows turn out to be."""
        return OBJECTIVES.load(self.fields.get("objective", "supervised")).learns_from[0]

    def report(self, task: str = "task") -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.folder / task / "report.json").read_bytes())
        return report

    def registered(self, outcome: Outcome, task: str = "task") -> ModelArtifact:
        """What the registry makes of an outcome."""
        assert outcome.model is not None
        given = {key: value for key, value in outcome.model.items() if key != "directory"}
        info = ModelInfo(
            **{**given, "id": "model_tuned", "kind": ModelKind(given["kind"]), "size_bytes": 0},
            content_sha256="0" * 64,
            created_at=self.model.info.created_at,
        )
        path = self.folder / task / outcome.model["directory"]
        return ModelArtifact(info, path, self.model if info.kind is ModelKind.ADAPTER else None)

    def weights(self, task: str) -> dict[str, torch.Tensor]:
        [file] = (self.folder / task / "result").glob("*.safetensors")
        return load_file(file)


class TrainingMethodContract:
    fields: dict[str, Any]
    """Of the training request."""

    @pytest.fixture(autouse=True)
    def settled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One thread and float32, whatever the machine would choose."""
        from terakoya.models import probe

        torch.set_num_threads(1)
        monkeypatch.setattr(probe, "_gflops", lambda device, dtype, *_: 2.0 if dtype is torch.float32 else 1.0)

    @pytest.fixture(scope="class")
    @classmethod
    def model_folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return build_tiny_model(tmp_path_factory.mktemp("contract") / "model")

    @pytest.fixture
    def workshop(self, tmp_path: Path, model_folder: Path) -> Workshop:
        return Workshop(tmp_path, tiny_artifact(model_folder), self.fields, some_rows(self.kinds[0]))

    @property
    def kinds(self) -> tuple[DatasetKind, ...]:
        return OBJECTIVES.load(self.fields.get("objective", "supervised")).learns_from

    def test_it_learns_and_what_is_kept_answers_as_it_was_judged(self, workshop: Workshop) -> None:
        outcome = workshop.run()

        assert outcome.status is TaskState.SUCCEEDED
        losses = [event["loss"] for event in workshop.heard.of(EventType.STEP)]
        assert sum(losses[-3:]) < sum(losses[:3]) or len(losses) < 6
        told = next(event["effective"] for event in workshop.heard.of(EventType.LOG) if "effective" in event)
        assert told["rows"] >= 18
        judged = workshop.report()["heldout"]["loss"]
        assert judged["after"]["value"] != judged["before"]["value"]

        artifact = workshop.registered(outcome)
        loaded = create_model_loader(loader_type(artifact)).load(artifact)
        assert self.heldout_loss(workshop, loaded.module) == pytest.approx(judged["after"]["value"], rel=1e-5)
        card = (artifact.path / "README.md").read_text(encoding="utf-8")
        assert self.fields.get("objective", "supervised") in card
        assert self.fields.get("adapter", {}).get("kind", "") in card

    def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(self, workshop: Workshop) -> None:
        workshop.run("whole", max_steps=5)
        before = workshop.heard.of(EventType.PHASE).count({"phase": Phase.TRAINING})
        batches = itertools.count()

        def after_two_steps() -> str | None:
            is_training = workshop.heard.of(EventType.PHASE).count({"phase": Phase.TRAINING}) > before
            return "cancel" if is_training and next(batches) > 2 else None

        assert workshop.run(max_steps=5, asked=after_two_steps).status is TaskState.CANCELLED
        assert 0 < workshop.heard.of(EventType.CHECKPOINT)[-1]["step"] < 5
        assert workshop.run(max_steps=5, attempt=2).status is TaskState.SUCCEEDED
        whole, resumed = workshop.weights("whole"), workshop.weights("task")
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(each, resumed[name]) for name, each in whole.items())

    def test_rows_of_another_kind_are_refused_by_number(self, workshop: Workshop) -> None:
        [strange, *_] = [kind for kind in DatasetKind if kind not in self.kinds]
        workshop.rows = [*some_rows(self.kinds[0])[:3], *some_rows(strange)[3:]]
        with pytest.raises(InvalidDataset, match="row 4: it "):
            workshop.run()
        assert not workshop.heard.of(EventType.STEP)

    def test_settings_it_does_not_have_are_refused_by_name(self, workshop: Workshop) -> None:
        with pytest.raises(InvalidConfig, match="'gravity'; it takes"):
            workshop.run(objective_settings={"gravity": 1.0})

    def test_settings_out_of_bounds_are_refused_with_the_bounds(self, workshop: Workshop) -> None:
        method = OBJECTIVES.load(self.fields.get("objective", "supervised"))
        for setting in method.settings:
            with pytest.raises(
                InvalidConfig, match=f"{setting.name} of objective .* must be .* got {2 * setting.most:g}"
            ):
                workshop.run(objective_settings={setting.name: 2 * setting.most})

    def heldout_loss(self, workshop: Workshop, module: torch.nn.Module) -> float:
        """Per label of the held-out rows, as an independent reader of the kept files finds it."""
        encoding = OBJECTIVES.load(self.fields.get("objective", "supervised")).encoding
        tokenizer = AutoTokenizer.from_pretrained(workshop.model.path)
        heldout = [row for row in workshop.rows if row.split is Split.HELDOUT]
        rows = encoding.heldout(heldout, tokenizer, length=1024).complete()
        better = rows[:: encoding.rows_per_example]
        with torch.inference_mode():
            found = log_likelihoods(LabelForward.choose(module, better[:2]), better)
        return -sum(found) / sum(end - start for row in better for start, end in row.label_spans)
