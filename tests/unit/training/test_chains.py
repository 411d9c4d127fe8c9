"""Which model a run goes on from: against real SQLite and real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.chain_links import add_chained_model, flip_a_byte
from tests.unit.training.test_service import House

from terakoya.domain.models import ModelInfo
from terakoya.exceptions import InvalidConfig, ModelNotFound
from terakoya.training.chains import CHAIN
from terakoya.training.continual.errors import DamagedChain
from terakoya.training.request import TrainingRequest
from terakoya.training.spec import RunSpec

CHAIN_ID = "chain_01kb2x0000000000000000000a"


class ChainHouse(House):
    def add_chained(self, name: str, *, space: str = "lora", after: ModelInfo | None = None, **more: Any) -> ModelInfo:
        return add_chained_model(
            *(self.models, self.data_dir, self.root / f"made-{name}", name),
            chain_id=CHAIN_ID,
            base=self.base,
            after=after,
            space=space,
            adapter={"rank": 7} if space == "lora" else None,
            **more,
        )


@pytest.fixture
def house(tmp_path: Path) -> ChainHouse:
    return ChainHouse(tmp_path)


def request(**fields: Any) -> TrainingRequest:
    return TrainingRequest.model_validate({"model": "starter", "dataset": "inbox", "strategy": "ewc"} | fields)


@pytest.mark.parametrize("model", ["starter", "mail"])
def test_a_run_after_a_model_starts_from_it_with_its_adapter(house: ChainHouse, model: str, tmp_path: Path) -> None:
    before = house.add_chained("mail")
    link = before.card[CHAIN]
    task = house.training.start(request(model=model, after="mail"))
    assert task.resolved["model"] == before.id
    assert task.resolved["adapter"]["rank"] == 7
    assert task.resolved[CHAIN] == CHAIN_ID
    spec = RunSpec.from_json(house.training.plan(task, tmp_path).spec)
    assert spec.chain is not None
    assert (spec.chain.number, spec.chain.parent, spec.chain.parent_sha256) == (2, link["link"], link["sha256"])
    assert spec.chain.directory == house.data_dir.chains / CHAIN_ID
    assert spec.chain.base_sha256 == house.base.content_sha256
    assert spec.model.root.info.id == house.base.id


def test_a_run_without_after_begins_a_chain_of_its_own(house: ChainHouse, tmp_path: Path) -> None:
    first, second = house.training.start(request()), house.training.start(request())
    assert first.resolved[CHAIN] != second.resolved[CHAIN]
    spec = RunSpec.from_json(house.training.plan(first, tmp_path).spec)
    assert spec.chain is not None
    assert (spec.chain.number, spec.chain.parent) == (1, None)
    assert spec.chain.base_sha256 == house.base.content_sha256
    plain = house.training.start(request(strategy="lora"))
    assert plain.resolved[CHAIN] is None


def test_what_cannot_go_on_is_refused_with_what_would_work(house: ChainHouse) -> None:
    house.add_chained("mail")
    house.add_model("other", "base", None)
    house.add_model("tuned", "adapter", house.base.id)
    refused = {
        "was not made by strategy 'ewc'": {"after": "tuned"},
        "'mail' is of 'starter', not of 'other'": {"model": "other", "after": "mail"},
        "has base 'lora'; it cannot go on as 'full'": {"after": "mail", "base": "full"},
        "goes on as it is": {"after": "mail", "adapter": {"rank": 4}},
    }
    for message, fields in refused.items():
        with pytest.raises(InvalidConfig, match=message):
            house.training.start(request(**fields))
    with pytest.raises(ModelNotFound):
        house.training.start(request(after="nothing"))
    assert house.training.list() == []


def test_a_full_chain_goes_on_from_the_whole_model(house: ChainHouse) -> None:
    before = house.add_chained("mail", space="full")
    task = house.training.start(request(model="mail", after="mail"))
    assert task.resolved["model"] == before.id
    assert (task.resolved["base"], task.resolved["adapter"]) == ("full", None)


def test_what_is_wrong_behind_a_model_is_said_before_anything_is_queued(house: ChainHouse) -> None:
    dataset = house.datasets.find("inbox")
    first = house.add_chained("mail", data_sha256=dataset.content_sha256)
    second = house.add_chained("parts", after=first)
    with pytest.raises(InvalidConfig, match=r"task 1 .* has learned this dataset already"):
        house.training.start(request(after="parts"))
    flip_a_byte(house.data_dir.chain(CHAIN_ID) / first.card[CHAIN]["link"] / "manifest.json")
    with pytest.raises(DamagedChain, match=f"the task before {second.card[CHAIN]['link']!r}"):
        house.training.start(request(after="parts"))
    assert house.training.list() == []
