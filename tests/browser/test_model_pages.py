"""Models in a real browser over a real server: one comes from a hub on loopback, is marked, and two endpoints elsewhere
answer side by side until somebody presses Stop.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from tests.hub_server import HubServer, repository_of
from tests.openai_server import OpenAIServer
from tests.tiny_model import build_tiny_model

from integration.servers import Server, running_server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]
TOKEN = "hf_secret"


@pytest.fixture(scope="module")
def endpoints() -> Iterator[tuple[OpenAIServer, OpenAIServer]]:
    with OpenAIServer() as near, OpenAIServer() as far:
        yield near, far


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, endpoints: tuple[OpenAIServer, OpenAIServer]) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("models")
    entries = [
        f'[[endpoints]]\nname = "{name}"\nurl = "{endpoint.url}"\nmodel = "m"\n'
        for name, endpoint in zip(("near", "far"), endpoints, strict=True)
    ]
    (root / "endpoints.toml").write_text("\n".join(entries))
    with HubServer({"org/tiny": repository_of(build_tiny_model(root / "tiny"), is_gated=True)}, token=TOKEN) as hub:
        settings = {"TERAKOYA_ENDPOINTS": str(root / "endpoints.toml"), "HF_ENDPOINT": hub.endpoint}
        with running_server(root / "data", **settings, HF_TOKEN=TOKEN, HF_HUB_OFFLINE="0") as running:
            yield running


def test_a_model_comes_from_a_hub_and_is_marked(server: Server, page: Page, complaints: list[str]) -> None:
    page.goto(f"{server.url}/models")
    page.get_by_text("Get another model").first.click()
    page.get_by_label("Source").fill("hf:org/tiny")
    form = page.locator("[data-pull-form]")
    form.get_by_role("button", name="Get it").click()
    card = page.locator('[data-model][data-name="tiny"]')
    expect(card).to_be_visible(timeout=200_000)
    expect(card).to_contain_text("apache-2.0")

    card.get_by_text("Details").click()
    expect(card).to_contain_text("hf:org/tiny@" + "c" * 40)
    card.get_by_label("Notes").fill("Small & quick.")
    card.get_by_label("Tags, with commas").fill("mailroom, try")
    card.get_by_label("Stage").select_option("approved")
    card.get_by_role("button", name="Save").click()
    expect(card.locator(".row-title")).to_contain_text("approved")
    expect(card.locator(".row-title .tag")).to_have_count(4)
    expect(card.locator(".row-notice")).to_contain_text("Small & quick.")
    assert complaints == []


def test_what_the_hub_has_not_is_told_in_the_form(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/models")
    page.get_by_text("Get another model").first.click()
    page.get_by_label("Source").fill("hf:org/nothing")
    form = page.locator("[data-pull-form]")
    form.get_by_role("button", name="Get it").click()
    expect(page.get_by_role("alert").filter(has_text="org/nothing")).to_be_visible(timeout=100_000)
    page.get_by_label("Source").fill("http://169.254.169.254/latest")
    form.get_by_role("button", name="Get it").click()
    expect(page.get_by_role("alert").filter(has_text="unknown model source")).to_be_visible()


def test_two_answers_grow_side_by_side_until_stop_is_pressed(
    server: Server, page: Page, endpoints: tuple[OpenAIServer, OpenAIServer], complaints: list[str]
) -> None:
    for endpoint in endpoints:
        endpoint.is_endless = True
    page.goto(f"{server.url}/try")
    page.get_by_label("First model").select_option(label="near")
    page.get_by_label("Second model").select_option(label="far")
    page.get_by_label("Prompt", exact=True).fill("Hello?")
    page.get_by_role("button", name="Ask both").click()
    answers = page.locator("[data-answer]")
    for number in (0, 1):
        expect(answers.nth(number)).to_contain_text("xxx")
    page.get_by_role("button", name="Stop").click()
    for endpoint in endpoints:
        assert endpoint.has_left.wait(15), "the answer was written on for nobody"
    assert complaints == []
