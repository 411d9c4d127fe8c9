"""Chains as things of their own: against real SQLite, real links and real files; nothing is trained."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.chain_links import flip_a_byte, leave_link
from tests.unit.training.test_chains import CHAIN_ID, ChainHouse, request

from terakoya.domain.models import ModelInfo
from terakoya.domain.tasks import NewModel
from terakoya.exceptions import AppException, Conflict, InvalidConfig, NotFound
from terakoya.storage.garbage import collect_garbage
from terakoya.training.chain_service import ChainNotFound, ChainService
from terakoya.training.chains import CHAIN


class Chained(ChainHouse):
    """A chain of two tasks and a branch beside the second."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.chains = ChainService(
            folders=self.data_dir,
            models=self.models,
            tasks=self.tasks,
            datasets=self.datasets,
            training=self.training,
        )
        self.first = self.add_chained("mail")
        self.second = self.add_chained("parts", after=self.first)
        self.branch = self.add_chained("tools", after=self.first, data_sha256="e" * 64)
        self.folder = self.data_dir.chain(CHAIN_ID)

    def link(self, model: ModelInfo) -> str:
        return str(model.card[CHAIN]["link"])


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Chained]:
    house = Chained(tmp_path)
    yield house
    house.engine.dispose()


def test_a_chain_is_found_by_its_id_and_by_any_model_of_it(house: Chained) -> None:
    views = [house.chains.get(name) for name in (CHAIN_ID, "mail", house.branch.id)]
    assert {view.id for view in views} == {CHAIN_ID} == {view.id for view in house.chains.list()}
    view = views[0]
    assert (view.name, view.space, view.problem) == ("mail", "lora", None)
    assert view.base is not None
    assert view.base.name == "starter"
    assert [(link.number, link.model and link.model.name) for link in view.links] == [
        *((1, "mail"), (2, "parts"), (2, "tools"))
    ]
    assert view.links[0].children == tuple(map(house.link, (house.second, house.branch)))
    assert view.links[1].parent == house.link(house.first)
    assert set(view.heads) == {"parts", "tools"}
    kept = view.links[0].kept
    assert (kept.replay_rows, kept.soft_rows, kept.erased) == (3, 1, False)
    assert view.size_bytes == sum(file.stat().st_size for file in house.folder.rglob("*") if file.is_file())
    for name in ("starter", "nothing", "chain_01kb2x0000000000000000000b"):
        with pytest.raises(ChainNotFound):
            house.chains.get(name)


@pytest.mark.parametrize("file", ["fisher.safetensors", "replay.jsonl", "metrics.json", "manifest.json"])
def test_one_flipped_byte_is_named_by_link_and_file(house: Chained, file: str) -> None:
    assert all(each.intact for each in house.chains.verify("parts"))
    flip_a_byte(house.folder / house.link(house.second) / file)
    damaged = [each for each in house.chains.verify(CHAIN_ID) if not each.intact]
    assert [(each.link, [(one.file, one.problem) for one in each.damages]) for each in damaged] == [
        (house.link(house.second), [(file, "changed")])
    ]


def test_a_link_whose_model_is_deleted_is_still_checked_by_what_follows(house: Chained) -> None:
    house.models.delete("mail")
    assert all(each.intact for each in house.chains.verify(CHAIN_ID))
    flip_a_byte(house.folder / house.link(house.first) / "manifest.json")
    broken = {each.link: each.problem for each in house.chains.verify(CHAIN_ID) if not each.intact}
    assert "gone or was changed" in str(broken[house.link(house.second)])
    assert house.chains.get(CHAIN_ID).problem is not None


def test_the_next_task_goes_on_from_where_nothing_has_gone_on_yet(house: Chained) -> None:
    with pytest.raises(InvalidConfig, match="branches into 'parts', 'tools'"):
        house.chains.extend(CHAIN_ID, {"dataset": "inbox"})
    task = house.chains.extend("parts", {"dataset": "inbox", "epochs": 1})
    assert (task.resolved[CHAIN], task.resolved["model"]) == (CHAIN_ID, house.second.id)
    assert task.request["strategy"] == "ewc"
    assert house.chains.get(CHAIN_ID).running == (task.id,)


def test_the_second_of_two_tasks_from_one_model_is_refused_or_branches(house: Chained) -> None:
    with pytest.raises(Conflict, match=r"'parts', 'tools' already goes on from 'mail' as task 2"):
        house.chains.extend("mail", {"dataset": "inbox"})
    assert house.chains.extend("mail", {"dataset": "inbox"}, branch=True).resolved["model"] == house.first.id
    outcomes: list[str] = []

    def extend() -> None:
        try:
            outcomes.append(house.chains.extend("parts", {"dataset": "inbox"}).id)
        except Conflict as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=extend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    started = [each for each in outcomes if each.startswith("task_")]
    assert len(started) == 1
    assert all(started[0] in each and "branch=true" in each for each in outcomes if each != started[0])


def test_another_model_dataset_or_budget_is_a_clear_refusal(house: Chained) -> None:
    house.add_model("other", "base", None)
    inbox = house.datasets.find("inbox").content_sha256
    house.add_chained("learned", after=house.second, data_sha256=inbox)
    for fields, message in (
        ({"model": "other"}, "stays with its model"),
        ({"after": "starter"}, "is not in this chain"),
        ({"base": "full"}, "cannot go on as 'full'"),
        ({}, "has learned this dataset already"),
        ({"retention": {"budget": 0}}, "greater than 0"),
    ):
        with pytest.raises((AppException, ValueError), match=message):
            house.chains.extend("learned", {"dataset": "inbox", **fields})
    assert house.training.list() == []


def test_kept_rows_go_for_good_and_the_price_is_said(house: Chained) -> None:
    link = house.link(house.first)
    erased = house.chains.erase(CHAIN_ID, link=link)
    assert (erased.links, erased.rows) == ((link,), 3)
    assert erased.freed_bytes > 0
    assert any("fixed lambda" in cost.message for cost in erased.costs)
    assert not list((house.folder / link).glob("replay*"))
    assert all(each.intact for each in house.chains.verify(CHAIN_ID))
    assert house.chains.erase(CHAIN_ID).rows == 6  # of the two others
    assert house.chains.erase(CHAIN_ID).costs == ()
    with pytest.raises(NotFound, match="did you mean"):
        house.chains.erase(CHAIN_ID, link=link + "x")


def test_nothing_is_taken_from_under_an_unfinished_run(house: Chained) -> None:
    task = house.chains.extend("parts", {"dataset": "inbox"})
    attempts: list[Callable[[], object]] = [
        lambda: house.chains.erase(CHAIN_ID),
        lambda: house.chains.delete(CHAIN_ID, with_models=True),
        lambda: house.chains.delete_link(CHAIN_ID, house.link(house.second)),
    ]
    for attempt in attempts:
        with pytest.raises(Conflict, match=task.id):
            attempt()
    assert len(house.chains.get(CHAIN_ID).links) == 3


def test_a_chain_goes_with_all_its_folders_once_nothing_stands_on_it(house: Chained) -> None:
    with pytest.raises(Conflict, match="models=true"):
        house.chains.delete(CHAIN_ID)
    with pytest.raises(Conflict, match="'tools' stands on the link"):
        house.chains.delete_link(CHAIN_ID, house.link(house.branch))
    house.models.delete("tools")
    house.chains.erase(CHAIN_ID, link=house.link(house.branch))
    house.chains.delete_link(CHAIN_ID, house.link(house.branch))
    assert sorted(path.name for path in house.folder.iterdir()) == sorted(map(house.link, (house.first, house.second)))
    with pytest.raises(Conflict, match="is built on"):
        house.chains.delete_link(CHAIN_ID, house.link(house.first))
    house.chains.delete(CHAIN_ID, with_models=True)
    assert not list(house.data_dir.chains.iterdir())
    assert [model.name for model in house.models.list_models()] == ["starter"]


def test_a_model_built_on_one_of_the_chain_keeps_all_of_them(house: Chained) -> None:
    folder = house.root / "merged"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"merged")
    house.models.save_model(
        NewModel("merged", "merged", folder, house.branch.id, "llama", 1, "apache-2.0", "folder:made")
    )
    with pytest.raises(Conflict, match="'merged' is built on one of this chain"):
        house.chains.delete(CHAIN_ID, with_models=True)
    assert len(house.models.list_models()) == 5


def test_chains_that_nothing_can_go_on_from_are_garbage(house: Chained) -> None:
    orphan = house.data_dir.chain("chain_01kb2x0000000000000000000b")
    leave_link(orphan, "left-behind")
    waiting = house.training.start(request()).resolved[CHAIN]
    house.data_dir.chain(waiting).mkdir()
    (house.data_dir.chains / ".removed-1").mkdir()
    assert sorted(collect_garbage(house.engine, house.data_dir)) == ["chains/.removed-1", f"chains/{orphan.name}"]
    assert house.folder.is_dir()
    assert house.data_dir.chain(waiting).is_dir()


def test_a_chain_is_there_from_the_start_of_its_first_run(house: Chained) -> None:
    task = house.chains.begin(request(name="brand-new"))
    chain = str(task.resolved[CHAIN])
    assert [view.id for view in house.chains.list()] == [chain, CHAIN_ID]
    view = house.chains.get(chain)
    assert (view.name, view.links, view.running) == ("brand-new", (), (task.id,))
    with pytest.raises(Conflict, match=task.id):
        house.chains.delete(chain)
    with pytest.raises(InvalidConfig, match="no model of it is left"):
        house.chains.extend(chain, {"dataset": "inbox"})
    house.queue.cancel(task.id)
    assert [view.id for view in house.chains.list()] == [CHAIN_ID]
