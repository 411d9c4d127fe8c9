"""What may be asked of the slider: against real SQLite and real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.training.test_chains import ChainHouse

from terakoya.domain.models import ModelInfo
from terakoya.domain.tasks import NewModel, TaskKind
from terakoya.exceptions import Conflict, InvalidConfig, ModelNotFound
from terakoya.training.chains import CHAIN
from terakoya.training.slider import SHARES, SliderService


class SliderHouse(ChainHouse):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.slider = SliderService(models=self.models, datasets=self.datasets, queue=self.queue, threads=1)

    def add_adapter(self, name: str, *, after: ModelInfo | None = None, **config: Any) -> ModelInfo:
        folder = self.root / f"adapter-{name}"
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"r": 4} | config))
        inbox = self.datasets.find("inbox")
        names = ("objective", "heldout_fraction", "max_evaluation_examples", "max_length", "seed")
        link = {"number": 2, "after": {"id": after.id, "name": after.name}} if after else {"number": 1, "after": None}
        card = {
            "configuration": dict.fromkeys(names),
            "dataset": {"id": inbox.id, "name": inbox.name},
            CHAIN: link,
        }
        return self.models.save_model(
            NewModel(*(name, "adapter", folder, self.base.id, "llama", 4, "apache-2.0", "task:x"), card=card)
        )


@pytest.fixture
def house(tmp_path: Path) -> SliderHouse:
    return SliderHouse(tmp_path)


def test_points_are_asked_for_between_the_model_and_what_it_went_on_from(house: SliderHouse, tmp_path: Path) -> None:
    first = house.add_adapter("first")
    second = house.add_adapter("second", after=first)
    task = house.slider.start("second", keep=0.4)
    assert (task.kind, task.name) == (TaskKind.INTERPOLATE, "second-0.4")
    assert task.resolved["shares"] == sorted({*SHARES, 0.4})
    spec = house.slider.plan(task, tmp_path).spec
    assert (spec["after"]["info"]["id"], spec["before"]["info"]["id"]) == (second.id, first.id)
    assert [each["name"] for each in spec["tasks"]] == ["inbox", "inbox"]  # of both runs
    alone = house.slider.start("first", shares=[1.0, 0.0])
    assert house.slider.plan(alone, tmp_path).spec["before"] is None  # the base, without an adapter


def test_a_deleted_data_set_is_said_to_be_missing(house: SliderHouse, tmp_path: Path) -> None:
    house.add_adapter("first")
    house.datasets.delete("inbox")
    spec = house.slider.plan(house.slider.start("first"), tmp_path).spec
    assert (spec["tasks"], spec["missing"]) == ([], ["inbox"])


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"shares": []}, "1 to 11 different points"),
        ({"shares": [0.5, 0.5]}, "different points"),
        ({"shares": [1.5]}, "from 0"),
        ({"shares": [float("nan")]}, "from 0"),
        ({"keep": 0.0}, "lies between"),
        ({"keep": 1.0}, "lies between"),
        ({"keep": float("nan")}, "lies between"),
        ({"rows": 0}, "rows of a task"),
        ({"name": "x"}, "give 'keep'"),
    ],
)
def test_what_is_no_point_is_refused(house: SliderHouse, asked: dict[str, Any], reason: str) -> None:
    house.add_adapter("first")
    with pytest.raises(InvalidConfig, match=reason):
        house.slider.start("first", **asked)
    assert not house.queue.list(kind=TaskKind.INTERPOLATE)


def test_a_model_on_no_line_is_refused(house: SliderHouse) -> None:
    with pytest.raises(InvalidConfig, match="no 'before'"):
        house.slider.start("starter")
    house.add_adapter("dora", use_dora=True)
    with pytest.raises(InvalidConfig, match="use_dora"):
        house.slider.start("dora")
    with pytest.raises(ModelNotFound):
        house.slider.start("nobody")
    first = house.add_adapter("first")
    house.add_adapter("second", after=first)
    house.models.delete(first.id)
    with pytest.raises(InvalidConfig, match="began with is deleted"):
        house.slider.start("second")


def test_a_name_that_is_taken_is_refused_before_anything_is_computed(house: SliderHouse) -> None:
    house.add_adapter("first")
    with pytest.raises(Conflict, match="starter"):
        house.slider.start("first", keep=0.5, name="Starter")
