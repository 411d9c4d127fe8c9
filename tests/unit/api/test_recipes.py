from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from tests.unit.api.test_model_card import add_model

from web_app import ROWS, web_client


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    root = tmp_path_factory.mktemp("shop")
    with web_client(root / "data") as client:
        add_model(client, root / "model")
        rows = ROWS.replace(b'"}\n', b'", "split": "train"}\n')
        assert (answer := client.put("/api/datasets/inbox", content=rows)).status_code == 201, answer.text
        yield client


def start(client: TestClient, **fields: Any) -> str:
    answer = client.post("/api/train", json={"model": "starter", "dataset": "inbox", **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["task_id"])


def test_a_run_gives_its_recipe_and_the_recipe_the_run(shop: TestClient) -> None:
    task_id = start(shop, preset="little-data", learning_rate=0.001, name="first")
    recipe = shop.get(f"/api/train/{task_id}/recipe")
    assert recipe.headers["content-type"] == "application/yaml"
    assert recipe.headers["content-disposition"].startswith("attachment")
    assert f"# Recipe of: first, run {task_id}" in recipe.text
    fields = shop.get(f"/api/train/{task_id}/recipe?format=json").json()
    assert yaml.safe_load(recipe.text) == fields
    assert (fields["model"], fields["adapter"]["rank"], fields["early_stopping"]["patience"]) == ("starter", 8, 3)

    again = start(shop, **fields)

    runs = [shop.get(f"/api/train/{each}").json() for each in (task_id, again)]
    assert runs[0]["resolved"] == runs[1]["resolved"]
    assert runs[0]["request"]["preset"] == "little-data", "what was asked is stored as it was asked"


def test_a_run_whose_model_and_data_are_gone_still_has_a_recipe(shop: TestClient) -> None:
    task_id = start(shop, name="orphan")
    shop.post(f"/api/train/{task_id}/cancel")
    for other in shop.get("/api/train").json()["runs"]:
        shop.post(f"/api/train/{other['id']}/cancel")
    assert shop.delete("/api/datasets/inbox").status_code == 204
    assert "dataset: inbox" in shop.get(f"/api/train/{task_id}/recipe").text
    assert shop.put("/api/datasets/inbox", content=ROWS).status_code == 201


def test_options_list_the_presets_and_what_one_leads_to(shop: TestClient) -> None:
    options = shop.get("/api/train/options?model=starter&dataset=inbox&preset=full-small").json()
    presets = {preset["name"]: preset for preset in options["presets"]}
    assert presets["lora-small"]["fits"]
    assert not presets["lora-large"]["fits"]
    assert "Measured here" in presets["lora-small"]["reason"]
    assert options["resolved"]["strategy"] == "full"
    refused = shop.get("/api/train/options?model=starter&dataset=inbox&preset=magic")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_config")


@pytest.mark.parametrize(
    "fields",
    [
        {"evaluation": {"every_steps": 0}},
        {"evaluation": {"every_fraction": 0}},
        {"evaluation": {"every_steps": 1, "every_fraction": 0.5}},
        {"evaluation": {"sample_tokens": 10**9}},
        {"early_stopping": {"patience": 0}},
        {"early_stopping": {"patience": 1, "hope": 2}},
        {"early_stopping": {"min_delta": -1}},
        {"sample_prompts": []},
        {"sample_prompts": ["x"] * 6},
        {"sample_prompts": ["x" * 4001]},
        {"trackers": ["wandb"]},
        {"trackers": ["mlflow", "mlflow"]},
        {"trackers": ["mlflow"]},  # no store is named
        {"preset": "x" * 101},
        {"preset": "lora-largest"},
    ],
)
def test_values_out_of_bounds_are_refused(shop: TestClient, fields: dict[str, Any]) -> None:
    answer = shop.post("/api/train", json={"model": "starter", "dataset": "inbox", **fields})
    assert answer.status_code == 422, answer.text
    assert shop.get("/api/train/nothing/recipe").json()["code"] == "task_not_found"
