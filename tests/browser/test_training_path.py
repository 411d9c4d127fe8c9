"""A newcomer's path in a real browser over the real server: fetch the starter model, upload examples, train, watch,
reload, read the report card, find the model, try it beside its base, stop a second run.

``TERAKOYA_SCREENSHOTS=<folder>`` keeps pictures of the pages on the way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from browser.pictures import picture
from integration.servers import STARTER, Server, running_server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 4
PATIENCE_MS = 400_000
REQUESTS = {
    "opening_hours": ["When do you open on Sunday?", "Are you open late on Friday?", "What time do you close?"],
    "order_status": ["Where is my parcel?", "Has my order left yet?", "My order still has not come."],
    "refund": ["I want my money back.", "The refund has not arrived.", "Please refund the double charge."],
    "repair_booking": ["Can I book a repair?", "My brake squeaks, any slot today?", "Fix my flat tyre on Monday?"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("browser") / "data", TERAKOYA_LANGUAGE="auto") as server:
        yield server


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """Twelve requests, the last of each kind held out."""
    rows = [
        {"prompt": text, "completion": kind, "split": "heldout" if number == 2 else "train"}
        for kind, texts in REQUESTS.items()
        for number, text in enumerate(texts)
    ]
    path = tmp_path / "shop requests.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_training_path(server: Server, page: Page, complaints: list[str], examples: Path) -> None:
    page.goto(server.url)
    fetch_starter(page)
    upload(page, examples)
    a_bad_field_is_told_at_the_field(page, complaints)
    start_run(page, name="shop-helper", steps=STEPS)

    watch_the_curve(page)
    page.reload()
    watch_the_curve(page)
    read_the_report(page)
    page.reload()
    read_the_report(page)
    see_what_was_seen_on_the_way(page)
    take_the_recipe(page)

    find_the_model(page)
    ask_both(page)
    switch_language_and_colours(page)
    stop_a_run(page, server)
    assert complaints == []


def fetch_starter(page: Page) -> None:
    picture(page, "train-empty")
    page.get_by_role("button", name="Get it").click()
    expect(page.locator("[data-pull-phase]")).to_have_text(re.compile("Downloading|Converting"), timeout=60_000)
    page.reload()
    expect(page.locator("#model, [data-pull-progress]:not([hidden])")).to_have_count(1)
    expect(page.locator("#model option")).to_contain_text(STARTER, timeout=PATIENCE_MS)


def upload(page: Page, examples: Path) -> None:
    page.get_by_text("Upload new examples").click()
    page.locator("[data-file]").set_input_files(examples)
    expect(page.get_by_label("Name of the dataset")).to_have_value("shop requests")
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#dataset option:checked")).to_contain_text("shop requests · 12 rows")
    expect(page.locator("[data-fact=heldout]")).to_have_text("4 to judge by")


def a_bad_field_is_told_at_the_field(page: Page, complaints: list[str]) -> None:
    page.locator("#advanced summary").click()
    page.locator("#batch_size").fill("0")
    page.locator("#advanced summary").click()
    page.get_by_role("button", name="Start training").click()
    expect(page.locator("#batch_size")).to_have_class(re.compile("is-invalid"))
    expect(page.locator("#batch_size")).to_be_focused()
    expect(page.locator("#train-error")).to_be_hidden()
    page.locator("#advanced summary").click()
    # Chromium reports every answer of 400 and above; these were meant: the start's, and the plan's if it was quick.
    assert 1 <= len(complaints) <= 2
    assert all("422" in complaint for complaint in complaints)
    complaints.clear()


def start_run(page: Page, *, name: str, steps: int) -> None:
    expect(page.locator("#dataset-sample .conversation")).to_have_count(2)
    page.locator("#advanced summary").click()
    expect(page.locator("#advanced")).to_have_attribute("open", "")
    page.locator("#max_steps").fill(str(steps))
    page.locator("#batch_size").fill("4")
    page.get_by_label("Look every … steps").fill("2")
    page.get_by_label("Prompts to answer at each look").fill("Where is my parcel?")
    page.get_by_label("Name of the new model").fill(name)
    picture(page, "train")
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/train/task_*")
    expect(page.get_by_role("heading", level=1)).to_have_text(name)


def watch_the_curve(page: Page) -> None:
    expect(page.locator("#phases")).to_contain_text("Loading the libraries", timeout=60_000)
    expect(page.locator("#tile-step")).to_have_text(re.compile(rf"^\d+ / {STEPS}$"), timeout=PATIENCE_MS)
    expect(page.locator("#loss-chart canvas")).to_be_visible()
    for chart in ("rate", "norm", "load", "memory"):
        expect(page.locator(f"#{chart}-chart canvas")).to_be_visible()
    picture(page, "run")


def see_what_was_seen_on_the_way(page: Page) -> None:
    """Held-out loss in the chart, answers to the prompt, and curves that can be drawn in another way."""
    expect(page.locator("#samples")).to_contain_text("Where is my parcel?")
    expect(page.locator("#samples .sample-step")).to_have_text([f"Step {STEPS}", "Step 2"])
    legend = page.locator("#loss-chart .u-legend")
    expect(legend).to_contain_text("held out")
    for button in ("Log scale", "Smooth"):
        pressed = page.get_by_role("button", name=button).get_attribute("aria-pressed")
        page.get_by_role("button", name=button).click()
        expect(page.get_by_role("button", name=button)).not_to_have_attribute("aria-pressed", str(pressed))
    expect(page.locator("#loss-chart canvas")).to_be_visible()


def take_the_recipe(page: Page) -> None:
    with page.expect_download() as download:
        page.get_by_role("link", name="Recipe").click()
    assert download.value.suggested_filename == "shop-helper.yaml"
    recipe = download.value.path().read_text(encoding="utf-8")
    assert f"max_steps: {STEPS}" in recipe
    assert "- Where is my parcel?" in recipe
    page.get_by_role("link", name="Train again with these settings").click()
    expect(page.locator("#max_steps")).to_have_value(str(STEPS))
    expect(page.get_by_label("Prompts to answer at each look")).to_have_value("Where is my parcel?")
    expect(page.locator("#dataset option:checked")).to_contain_text("shop requests")
    page.go_back()


def read_the_report(page: Page) -> None:
    report = page.locator("#report")
    expect(report).to_be_visible(timeout=PATIENCE_MS)
    expect(report).to_contain_text("Judged on 4 examples")
    expect(report.locator(".example")).to_have_count(4)
    expect(report.locator(".track")).to_have_count(6)  # right answers, loss, general English text
    expect(report).to_contain_text("General text, English: loss")
    expect(report).to_contain_text("General text, Japanese: not applicable")
    expect(page.locator("#run-state")).to_have_text("done")
    expect(page.locator("#tile-step")).to_have_text(f"{STEPS} / {STEPS}")
    picture(page, "report")


def find_the_model(page: Page) -> None:
    page.get_by_role("link", name="See it among the models").click()
    base = page.locator(".model-tree > .model", has_text=STARTER)
    child = base.locator(".model-children > .model")
    expect(child).to_contain_text("shop-helper")
    expect(child).to_contain_text("adapter")
    picture(page, "models")
    child.get_by_role("link", name="Try it").click()


def ask_both(page: Page) -> None:
    page.get_by_label("Prompt").fill("Where is my parcel? It should have come on Monday.")
    page.get_by_text("Settings").click()
    page.get_by_label("Longest answer (tokens)").fill("16")
    page.get_by_role("button", name="Ask both").click()
    for side in ("a", "b"):
        expect(page.locator(f"[data-side={side}] [data-foot]")).to_contain_text("tokens/s", timeout=PATIENCE_MS)
        expect(page.locator(f"[data-side={side}] [data-answer]")).not_to_be_empty()
    picture(page, "try")


def switch_language_and_colours(page: Page) -> None:
    before = page.locator("html").get_attribute("data-bs-theme")
    page.locator("#theme-toggle").click()
    expect(page.locator("html")).not_to_have_attribute("data-bs-theme", str(before))
    page.get_by_role("button", name="日本語").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("試す")
    expect(page.locator("html")).not_to_have_attribute("data-bs-theme", str(before))
    page.get_by_role("link", name="学習の記録").click()
    expect(page.locator("#runs")).to_contain_text("shop-helper")
    expect(page.locator("#runs .sparkline")).to_have_count(1)
    picture(page, "runs-ja-dark")
    page.locator("#runs a").click()
    expect(page.locator("#report")).to_contain_text("4 件で評価しました")
    picture(page, "report-ja-dark")
    page.set_viewport_size({"width": 390, "height": 844})
    picture(page, "report-ja-dark-mobile")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_role("button", name="English").click()


def stop_a_run(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/train")
    start_run(page, name="never-mind", steps=10_000)
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Stop and discard").click()
    expect(page.locator("#run-state")).to_have_text("stopped", timeout=120_000)
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
