"""A model is opened and closed, in a real browser and on the command line, over a real server and a tiny real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect
from tests.tiny_model import build_tiny_model

from integration.servers import Server, run_cli, running_server
from terakoya.domain.tasks import NewModel
from terakoya.storage.database import open_database
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    data_dir = DataDir(tmp_path / "data").create()
    engine = open_database(data_dir)
    model = NewModel("base", "base", build_tiny_model(tmp_path / "base"), None, "llama", 1, "MIT", "folder:base")
    SqlModelRepository(engine, data_dir).save_model(model)
    engine.dispose()
    with running_server(data_dir.root) as running:
        yield running


def open_models(server: Server) -> list[str]:
    return [model["engine"] for model in httpx.get(f"{server.url}/api/system").json()["model_server"]["models"]]


def test_a_model_is_opened_and_closed_by_button_and_command(server: Server, page: Page, complaints: list[str]) -> None:
    page.goto(f"{server.url}/models")
    button = page.locator('[data-name="base"] [data-load]')
    expect(button).to_have_text("Load model")
    button.click()
    expect(button).to_have_text("Unload model", timeout=100_000)
    assert open_models(server) == ["llama.cpp q8_0"]
    button.click()
    expect(button).to_have_text("Load model", timeout=20_000)
    assert open_models(server) == []

    loaded = run_cli(server.data_dir, "models", "load", "base", "--json")
    assert json.loads(loaded.stdout)["engine"] == "llama.cpp"
    page.reload()
    expect(button).to_have_text("Unload model")
    assert "is closed" in run_cli(server.data_dir, "models", "unload", "base").stderr
    assert open_models(server) == []
    assert run_cli(server.data_dir, "models", "load", "nothing").returncode != 0
    assert complaints == []
