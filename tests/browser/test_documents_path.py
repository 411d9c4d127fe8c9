"""The path of a person with papers, in a real browser over the real server and the real models: get the model that
reads, drop the sample documents, ask in both languages, open the passage, be refused, delete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import terakoya
from browser.pictures import picture
from integration.servers import Server, running_server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

SAMPLES = Path(terakoya.__file__).parent / "samples" / "documents"
PATIENCE_MS = 200_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, folder_with_embedder: Callable[[Path], Path]) -> Iterator[Server]:
    data_dir = folder_with_embedder(tmp_path_factory.mktemp("documents") / "data")
    with running_server(data_dir, TERAKOYA_LANGUAGE="auto") as server:
        yield server


def test_documents_path(server: Server, page: Page, complaints: list[str], tmp_path: Path) -> None:
    page.goto(f"{server.url}/documents")
    make_collection(page)
    add_documents(page, tmp_path)
    ask_in_both_languages(page)
    be_refused(page)
    switch_language(page, server)
    delete(page)
    assert complaints == []


def make_collection(page: Page) -> None:
    page.get_by_role("button", name="New collection").click()
    page.get_by_label("Name of the new collection").fill("社内文書")
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#collection option:checked")).to_contain_text("社内文書")


def add_documents(page: Page, tmp_path: Path) -> None:
    scan = tmp_path / "empty.pdf"
    scan.write_bytes(b"%PDF-1.4\nthis is no PDF\n")
    page.locator("#files").set_input_files([*sorted(SAMPLES.iterdir()), scan])
    expect(page.locator("#documents [data-state=ready]")).to_have_count(13, timeout=PATIENCE_MS)
    manual = page.locator("#documents > li", has_text="MC-240 electric cargo bike")
    expect(manual).to_contain_text("3 pages")
    expect(page.locator("#documents > li", has_text="empty.pdf").locator("[data-state=failed]")).to_have_count(1)
    picture(page, "documents-real")
    manual.get_by_role("button", name="Read").click()
    expect(page.locator("#text-panel-text")).to_contain_text("What is in the box")
    page.keyboard.press("Escape")
    expect(page.locator("#text-panel")).to_be_hidden()


def ask(page: Page, question: str) -> None:
    page.locator("#question").fill(question)
    page.locator("#ask").click()
    expect(page.locator("#ask")).to_be_enabled(timeout=PATIENCE_MS)


def ask_in_both_languages(page: Page) -> None:
    page.locator("#ask-link").click()
    page.wait_for_url("**/ask?collection=*")
    ask(page, "How often must the brake pads of the MC-240 be checked?")
    newest = page.locator(".asked").first
    expect(newest).to_contain_text("Every 500 km")
    expect(newest).to_contain_text("quoted verbatim from p. 3")
    ask(page, "年次有給休暇は入社から何か月で与えられますか。")
    expect(newest).to_contain_text("入社から 6 か月")
    newest.locator(".chip").first.click()
    expect(page.locator("#text-panel mark")).to_contain_text("入社から 6 か月")
    picture(page, "ask-real")
    page.keyboard.press("Escape")
    expect(page.locator("#text-panel")).to_be_hidden()


def be_refused(page: Page) -> None:
    ask(page, "育児休業は何か月取れますか。")
    expect(page.locator(".asked").first).to_contain_text("do not hold an answer")
    expect(page.locator(".asked").first.locator(".chip")).to_have_count(0)


def switch_language(page: Page, server: Server) -> None:
    page.get_by_role("button", name="日本語").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("文書に質問する")
    ask(page, "VPN は何分操作しないと自動で切れますか。")
    expect(page.locator(".asked").first).to_contain_text("45 分間")
    page.set_viewport_size({"width": 390, "height": 844})
    picture(page, "ask-real-ja-mobile")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{server.url}/documents")
    picture(page, "documents-real-ja")


def delete(page: Page) -> None:
    row = page.locator("#documents > li", has_text="VPN 接続の手引き")
    row.locator("button[aria-label$=削除]").click()
    page.locator("#confirm-yes").click()
    expect(page.locator("#documents [data-state=ready]")).to_have_count(12)
