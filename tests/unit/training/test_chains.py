"""Which model a run goes on from: against real SQLite and real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.training.test_service import House

from terakoya.domain.models import ModelInfo
from terakoya.domain.tasks import NewModel
from terakoya.exceptions import InvalidConfig, ModelNotFound
from terakoya.training.chains import CHAIN
from terakoya.training.defaults import resolve
from terakoya.training.request import TrainingRequest
from terakoya.training.spec import RunSpec

LINK = {"id": "chain_01kb2x0000000000000000000a", "number": 3, "link": "003-mail-abc", "sha256": "e" * 64}


class ChainHouse(House):
    def add_chained(self, name: str, *, space: str = "lora") -> ModelInfo:
        request = TrainingRequest.model_validate(
            {"model": "starter", "dataset": "inbox", "strategy": "ewc", "base": space}
            | ({"adapter": {"rank": 7}} if space == "lora" else {})
        )
        configuration = resolve(request, parameters=1000, rows=10).to_json()
        folder = self.root / f"made-{name}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(name.encode())
        kind = "adapter" if space == "lora" else "full"
        chain = {**LINK, "space": space, "base_sha256": "b" * 64}
        return self.models.save_model(
            NewModel(
                *(name, kind, folder, self.base.id, "llama", 4000, "apache-2.0", "task:x"),
                card={CHAIN: chain, "configuration": configuration},
            )
        )


@pytest.fixture
def house(tmp_path: Path) -> ChainHouse:
    return ChainHouse(tmp_path)


def request(**fields: Any) -> TrainingRequest:
    return TrainingRequest.model_validate({"model": "starter", "dataset": "inbox", "strategy": "ewc"} | fields)


@pytest.mark.parametrize("model", ["starter", "mail"])
def test_a_run_after_a_model_starts_from_it_with_its_adapter(house: ChainHouse, model: str, tmp_path: Path) -> None:
    before = house.add_chained("mail")
    task = house.training.start(request(model=model, after="mail"))
    assert task.resolved["model"] == before.id
    assert task.resolved["adapter"]["rank"] == 7
    assert task.resolved[CHAIN] == LINK["id"]
    spec = RunSpec.from_json(house.training.plan(task, tmp_path).spec)
    assert spec.chain is not None
    assert (spec.chain.number, spec.chain.parent, spec.chain.parent_sha256) == (4, LINK["link"], LINK["sha256"])
    assert spec.chain.directory == house.data_dir.chains / str(LINK["id"])
    assert spec.chain.base_sha256 == "b" * 64
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
