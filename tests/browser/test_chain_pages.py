"""Chains in a real browser over a real server: seen, checked, gone on from, erased, deleted. No model is trained: the
links are made, and a run that is started waits in the queue.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from browser.pictures import picture
from chain_links import add_chained_model, flip_a_byte, made_metrics
from integration.servers import Server, running_server
from terakoya.domain.tasks import NewModel
from terakoya.storage.database import open_database
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository
from web_app import ROWS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
CHAIN_ID = "chain_01kb2x0000000000000000000a"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    data_dir = DataDir(tmp_path / "data").create()
    engine = open_database(data_dir)
    models = SqlModelRepository(engine, data_dir)
    folder = tmp_path / "starter"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"starter")
    base = models.save_model(
        NewModel("starter", "base", folder, None, "llama", 134_515_008, "apache-2.0", "folder:made")
    )
    mail = made_metrics("mail-abc", 1, [], wrong=[1])
    parts = made_metrics("parts-abc", 2, [mail], wrong=[4, 2])
    tools = made_metrics("tools-abc", 3, [mail, parts], wrong=[6, 4, 1])
    after = None
    for name, metrics in (("mail", mail), ("parts", parts), ("tools", tools)):
        after = add_chained_model(
            *(models, data_dir, tmp_path / name, name),
            chain_id=CHAIN_ID,
            base=base,
            after=after,
            metrics=metrics,
        )
    engine.dispose()
    with running_server(data_dir.root, TERAKOYA_TRAINING_DEVICES="cpu", TERAKOYA_TRAINING_SLOTS="1") as server:
        yield server


def test_a_chain_is_looked_at_checked_and_deleted(server: Server, page: Page, complaints: list[str]) -> None:
    page.goto(f"{server.url}/chains")
    expect(page.locator("nav [aria-current]")).to_have_text("Chains")
    picture(page, "chains-light")
    page.get_by_role("link", name=re.compile("mail")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("mail")
    matrix = page.locator("[data-matrix=tools] table.matrix").first
    expect(matrix.locator("tbody tr")).to_have_count(4)
    expect(matrix.locator("tbody tr").nth(3).locator("td")).to_contain_text(["70.0%", "80.0%", "95.0%"])
    expect(matrix.locator("tbody tr").nth(1).locator("td").nth(2)).to_contain_text("this task was not there yet")
    figures = page.locator("[data-matrix=tools] dl.matrix-figures").first
    expect(figures).to_contain_text("-17.5")  # BWT: (70 - 95 + 80 - 90) / 2
    picture(page, "chain-light")
    page.set_viewport_size({"width": 390, "height": 844})
    picture(page, "chain-narrow")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_role("button", name="Switch between light and dark").click()
    picture(page, "chain-dark")
    page.get_by_role("button", name="日本語").click()
    expect(page.get_by_role("heading", name="どれだけ保たれたか（tools まで）")).to_be_visible()
    picture(page, "chain-ja")
    page.get_by_role("button", name="English").click()

    page.get_by_role("button", name="Check every byte").click()
    expect(page.locator("#verdict")).to_have_text("Every byte is as it was written.")
    flip_a_byte(server.data_dir / "chains" / CHAIN_ID / "002-parts-abc" / "fisher.safetensors")
    page.get_by_role("button", name="Check every byte").click()
    expect(page.locator("[data-link='002-parts-abc'] [data-damages]")).to_have_text("fisher.safetensors: changed")

    page.get_by_role("button", name="Erase kept rows").click()
    expect(page.locator("#confirm-text")).to_contain_text("fixed lambda")
    page.locator("#confirm-yes").click()
    expect(page.locator("[data-link='001-mail-abc']")).to_contain_text("erased")
    expect(page.get_by_role("button", name="Erase kept rows")).to_have_count(0)

    page.get_by_role("button", name="Delete chain").click()
    expect(page.locator("#confirm-text")).to_contain_text("Its models are deleted with it")
    page.locator("#confirm-yes").click()
    expect(page.get_by_role("heading", name="No chains yet")).to_be_visible()
    picture(page, "chains-empty")
    assert not list((server.data_dir / "chains").iterdir())
    assert complaints == []


def test_the_next_task_is_started_from_a_chain(server: Server, page: Page, complaints: list[str]) -> None:
    dataset = page.request.put(f"{server.url}/api/datasets/rows", data=ROWS).json()["id"]
    page.goto(f"{server.url}/chains/{CHAIN_ID}")
    page.get_by_role("link", name="Next task after tools").click()
    expect(page.get_by_label("Goes on from")).to_have_value(re.compile("model_"))
    expect(page.locator("#after option:checked")).to_have_text("tools, task 3")
    expect(page.locator("[name=strategy]:checked")).to_have_value("ewc")
    page.get_by_label("Forgetting budget").fill("0.02")
    picture(page, "train-chain")
    page.get_by_label("Goes on from").select_option(label="mail, task 1")
    expect(page.locator("#after-branches")).to_contain_text("parts already goes on from it")
    page.get_by_label("Goes on from").select_option(label="tools, task 3")
    page.locator("#dataset").select_option(dataset)
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url(re.compile("/train/task_"))
    task = page.request.get(f"{server.url}/api/train/{page.url.rsplit('/', 1)[1]}").json()
    assert task["request"]["retention"] == {"budget": 0.02}
    assert task["resolved"]["chain"] == CHAIN_ID
    assert "adapter" not in task["request"]
    assert complaints == []
