"""The pages Documents, Ask and Chat in a real browser: the pages are the server's, the answers behind them are written
here, so that each state can be seen and hostile text comes through every field.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, Route, expect
from tests.tiny_model import build_tiny_model

from browser.pictures import picture
from integration.servers import Server, run_cli, running_server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

MADE = "2026-06-01T10:00:00Z"
HOSTILE = (
    "<script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "<svg onload=window.hit=1>",
    '"><details open ontoggle=window.hit=1>',
    "javascript:window.hit=1",
    "</script><script>window.hit=1</script>",
    "{{constructor.constructor('window.hit=1')()}}",
    "<iframe srcdoc='<script>parent.hit=1</script>'>",
    "%(name)s %(n)s <b>bold</b>",
    "\u202egpj.exe\u0000\ufeff𠮷👩‍👩‍👧",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one model to chat with."""
    root = tmp_path_factory.mktemp("pages")
    build_tiny_model(root / "imports" / "tiny")
    with running_server(root / "data", TERAKOYA_LANGUAGE="auto", TERAKOYA_IMPORT_DIR=str(root / "imports")) as server:
        pulled = run_cli(root / "data", "models", "pull", "folder:tiny", timeout=200)
        assert pulled.returncode == 0, pulled.stderr
        yield server


def document(number: int, title: str, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": f"doc_{number}",
        "collection_id": "coll_1",
        "collection": "default",
        "title": title,
        "filename": f"{title}.md",
        "parser": "markdown",
        "status": "ready",
        "language": "en",
        "pages": None,
        "characters": 400,
        "passages": 3,
        "size_bytes": 2300,
        "version": 1,
        "error": None,
        "error_code": None,
        "task_id": None,
        "created_at": MADE,
        "notices": [],
    }
    return fields | changes


def citation(number: int, text: str, quote: str, **changes: Any) -> dict[str, Any]:
    start = text.index(quote)
    fields: dict[str, Any] = {
        "number": number,
        "document_id": "doc_1",
        "version": 1,
        "passage_id": "p1",
        "title": "Handbook",
        "page": 3,
        "start": start,
        "end": start + len(quote),
        "quote": quote,
        "answer_start": 0,
        "answer_end": 1,
        "support": "verbatim",
        "verified": True,
    }
    return fields | changes


def hit(title: str, text: str) -> dict[str, Any]:
    place = {"document_id": "doc_1", "passage_id": "p1", "title": title, "page": 2, "heading": [title]}
    return place | {"text": text, "start": 0, "end": len(text), "score": 0.5}


class Wire:
    """What the server would answer."""

    def __init__(self) -> None:
        self.documents: list[dict[str, Any]] = []
        self.text = ""
        self.answer: dict[str, Any] = {}
        self.tokens: list[str] = []
        self.uploads = 0
        self.deleted: list[str] = []
        self.refuse_upload: str | None = None
        self.is_duplicate = False
        self.name = "default"

    def __call__(self, route: Route) -> None:
        request = route.request
        address = urlsplit(request.url)
        handlers: dict[str, Callable[[], Any]] = {
            "collections": lambda: {"collections": [{"id": "c", "name": self.name, "documents": len(self.documents)}]},
            "documents": lambda: {"documents": self.documents},
            "text": lambda: self._text(parse_qs(address.query)),
        }
        if address.path == "/rag/query/stream":
            route.fulfill(content_type="text/event-stream", body=self._stream())
        elif request.method == "DELETE":
            self.deleted.append(address.path)
            self.documents = [each for each in self.documents if not address.path.endswith(each["id"])]
            route.fulfill(status=204)
        elif request.method == "POST" and address.path == "/rag/documents":
            self._upload(route)
        else:
            route.fulfill(json=handlers[address.path.rsplit("/", 1)[-1]]())

    def _upload(self, route: Route) -> None:
        if self.refuse_upload:
            envelope = {"error": self.refuse_upload, "code": "unreadable_document", "request_id": "r"}
            route.fulfill(status=422, json=envelope)
            return
        self.uploads += 1
        if not self.is_duplicate:
            self.documents.insert(0, document(100 + self.uploads, f"new {self.uploads}"))
        route.fulfill(status=202, json={"document_id": "d", "task_id": "t", "duplicate": self.is_duplicate})

    def _text(self, query: dict[str, list[str]]) -> dict[str, Any]:
        start = int(query["start"][0])
        end = min(len(self.text), int(query["end"][0]))
        return {"text": self.text[start:end], "start": start, "end": end, "characters": len(self.text)}

    def _stream(self) -> str:
        events = [{"type": "token", "text": token} for token in self.tokens]
        events.append({"type": "done", "answer": self.answer})
        return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


@pytest.fixture
def wire(page: Page, server: Server) -> Wire:
    wire = Wire()
    page.route(re.compile(r"^https?://[^/]+/rag/"), wire)
    return wire


def answered(text: str, citations: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "answer": text,
        "mode": "extractive",
        "citations": citations,
        "verdict": "answered",
        "trace_id": "trace_1",
        "model": None,
        "evidence": [],
        "details": {"seconds": {"total": 0.3}},
    }
    return fields | changes


def open_documents(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/documents")
    # The server has no model that reads documents; the page would offer it instead.
    page.evaluate("document.getElementById('documents-page').hidden = false")
    page.locator("#collection").dispatch_event("change")


def test_each_state_of_a_document_is_told(page: Page, server: Server, wire: Wire, complaints: list[str]) -> None:
    failed = {"status": "failed", "characters": 0, "error": "no text layer", "error_code": "unreadable_document"}
    wire.documents = [
        document(1, "Scan", **failed),
        document(2, "Waiting", status="queued"),
        document(3, "Manual", pages=3, passages=7, notices=["2 pictures left out"]),
        document(4, "Note", pages=1, passages=1),
    ]
    open_documents(page, server)
    rows = page.locator("#documents > li")
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_contain_text("no text layer")
    expect(rows.nth(0).get_by_role("button", name="Read")).to_be_hidden()
    expect(rows.nth(1)).to_contain_text("queued")
    for fact in ("ready", "3 pages", "7 passages", "2 pictures left out"):
        expect(rows.nth(2)).to_contain_text(fact)
    for fact in ("1 page", "1 passage"):
        expect(rows.nth(3).get_by_text(fact, exact=True)).to_be_visible()
    picture(page, "documents")
    page.set_viewport_size({"width": 390, "height": 844})
    picture(page, "documents-mobile")
    assert complaints == []


def test_many_files_are_sent_and_a_refused_one_says_why(page: Page, server: Server, wire: Wire, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.md" for number in range(5)]
    for file in files:
        file.write_text(f"# {file.name}")
    open_documents(page, server)
    page.locator("#files").set_input_files(files)
    expect(page.locator("#documents > li[data-document]")).to_have_count(5)
    assert wire.uploads == 5
    wire.refuse_upload = "'5.exe' is no document"
    page.locator("#files").set_input_files(files[0])
    expect(page.locator("#documents > li").first).to_contain_text("'5.exe' is no document")


def test_files_that_are_there_already_are_told_in_one_line(
    page: Page, server: Server, wire: Wire, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.md" for number in range(5)]
    for file in files:
        file.write_text(f"# {file.name}")
    wire.is_duplicate = True
    open_documents(page, server)
    page.locator("#files").set_input_files(files)
    expect(page.locator("#toasts")).to_have_text("5 of the files are in this collection already.")
    expect(page.locator("#documents > li")).to_have_count(0)


def test_findings_about_files_are_told_in_japanese(page: Page, server: Server, wire: Wire) -> None:
    scan = "the PDF has no text layer; 2 of its 3 pages are images, as scans are. "
    scan += "Run text recognition (OCR) on it and add the result"
    notices = ["pages that are images without a text layer, left out: 4-5", "something new"]
    wire.documents = [
        document(1, "Scan", status="failed", characters=0, error=scan, error_code="unreadable_document"),
        document(2, "Manual", notices=notices),
    ]
    open_documents(page, server)
    page.get_by_role("button", name="日本語").click()
    open_documents(page, server)
    rows = page.locator("#documents > li")
    expect(rows.nth(0)).to_contain_text("3 ページのうち 2 ページ")
    expect(rows.nth(1)).to_contain_text("画像だけのページを除きました: 4-5 ページ")
    expect(rows.nth(1)).to_contain_text("something new")


def test_deleting_asks_first(page: Page, server: Server, wire: Wire) -> None:
    wire.documents = [document(1, "Manual"), document(2, "Rules")]
    open_documents(page, server)
    page.get_by_role("button", name="Delete Manual").click()
    page.get_by_role("button", name="Cancel").last.click()
    assert wire.deleted == []
    page.get_by_role("button", name="Delete Manual").click()
    page.locator("#confirm-yes").click()
    expect(page.locator("#documents > li")).to_have_count(1)
    assert wire.deleted == ["/rag/documents/doc_1"]


def test_a_citation_opens_its_passage_with_the_quote_marked(page: Page, server: Server, wire: Wire) -> None:
    quote = "𠮷田屋の返品は 14 日以内です。"  # outside the basic plane: offsets are code points, not UTF-16 units
    wire.text = "👩‍👩‍👧 before " * 300 + quote + " after" * 3000
    failed = citation(0, wire.text, "after", verified=False, support="weak_overlap")
    wire.tokens = ["𠮷田屋の", "返品は"]
    wire.answer = answered(f"{quote} [1]", [citation(1, wire.text, quote), failed])
    page.goto(f"{server.url}/ask")
    page.get_by_label("Question").fill("How long?")
    page.keyboard.press("Enter")
    expect(page.locator(".chip")).to_have_count(1)
    expect(page.locator(".source-check")).to_have_text("quoted verbatim from p. 3")
    expect(page.locator(".answer-kicker")).to_contain_text("word for word")
    expect(page.get_by_role("link", name="How this was found")).to_have_attribute("href", "/rag/traces/trace_1")
    page.locator(".chip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#text-panel mark")).to_have_text(quote)
    expect(page.locator("#text-panel mark")).to_be_in_viewport()
    expect(page.locator("#text-panel-meta")).to_have_text("p. 3")
    picture(page, "ask-panel")
    page.get_by_role("button", name="Show what comes before").click()
    expect(page.get_by_role("button", name="Show what comes before")).to_be_hidden()
    expect(page.locator("#text-panel mark")).to_have_text(quote)
    page.keyboard.press("Escape")
    expect(page.locator("#text-panel")).to_be_hidden()
    expect(page.locator(".chip")).to_be_focused()


def test_a_refusal_says_so_and_shows_what_comes_nearest(page: Page, server: Server, wire: Wire) -> None:
    refused = {"verdict": "not_in_documents", "evidence": [hit("Leave rules", "Holidays are ten days.")]}
    wire.answer = answered("", [], **refused)
    page.goto(f"{server.url}/ask")
    page.get_by_label("Question").fill("Parental leave?")
    page.locator("#ask").click()
    expect(page.locator(".refusal")).to_contain_text("do not hold an answer")
    expect(page.locator(".nearest")).to_contain_text("Holidays are ten days.")
    expect(page.locator(".chip")).to_have_count(0)
    page.set_viewport_size({"width": 390, "height": 844})
    picture(page, "ask-refused-mobile")


def test_a_model_is_named_where_it_shall_write_and_only_there(page: Page, server: Server, wire: Wire) -> None:
    wire.answer = answered("Holidays are ten days.", [])
    page.goto(f"{server.url}/ask")
    page.locator("#ask-options summary").click()
    model = page.get_by_label("Model that writes")
    sent = []
    for mode in ("let a model write", "quote the documents"):
        page.get_by_label("How to answer").select_option(mode)
        page.get_by_label("Question").fill("Holidays?")
        with page.expect_request("**/rag/query/stream") as request:
            page.locator("#ask").click()
        expect(page.locator("#ask")).to_be_enabled()
        sent.append((request.value.post_data_json["mode"], request.value.post_data_json["model"] is None))
    assert sent == [("generative", False), ("extractive", True)]
    expect(model).to_be_disabled()


def test_chat_streams_remembers_stops_and_begins_anew(page: Page, server: Server, complaints: list[str]) -> None:
    page.goto(f"{server.url}/chat")
    page.locator("details summary").click()
    page.get_by_label("Longest answer").fill("8")
    message = page.locator("#message")
    message.fill("hello")
    message.press("Enter")
    expect(page.locator(".bubble-foot").last).to_contain_text("tokens", timeout=120_000)
    expect(page.locator(".bubble")).to_have_count(2)
    page.reload()
    expect(page.locator(".bubble")).to_have_count(2)
    with answer_without_end() as (address, left):
        page.route("**/v1/chat/completions", lambda route: route.continue_(url=address))
        page.locator("#message").fill("tell me everything")
        page.locator("#send").click()
        expect(page.locator(".bubble-text").last).to_have_text("and so on")
        page.locator("#stop").click()
        expect(page.locator("#stop")).to_be_hidden()
        assert left.wait(10), "the answer was still being read after Stop"
    expect(page.locator(".bubble-foot").last).to_have_text("Stopped.")
    expect(page.locator("#send")).to_be_enabled()
    scrolled = "log => log.scrollHeight - log.scrollTop - log.clientHeight"
    assert page.locator("#log").evaluate(scrolled) <= 1
    picture(page, "chat")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".bubble")).to_have_count(0)
    assert complaints == []


def test_hostile_titles_texts_and_names_are_only_ever_text(page: Page, server: Server, wire: Wire) -> None:
    everything = "\n".join(HOSTILE)
    wire.name = HOSTILE[1]
    wire.text = everything
    failed = {"status": "failed", "error": HOSTILE[1], "error_code": HOSTILE[0], "notices": list(HOSTILE)}
    wire.documents = [document(number, text, filename=text, language=None) for number, text in enumerate(HOSTILE)]
    wire.documents.append(document(99, HOSTILE[1], **failed))
    open_documents(page, server)
    page.locator("#collection").select_option(HOSTILE[1])
    expect(page.locator("#documents > li")).to_have_count(len(HOSTILE) + 1)
    page.get_by_role("button", name="Read").first.click()
    expect(page.locator("#text-panel-text")).to_contain_text("window.hit=1")
    page.keyboard.press("Escape")
    page.locator("#documents button[aria-label^=Delete]").first.click()
    page.keyboard.press("Escape")

    marked = [citation(1, everything, HOSTILE[1], title=HOSTILE[0]), citation(2, everything, HOSTILE[2])]
    wire.tokens = list(HOSTILE)
    hostile = {"model": HOSTILE[1], "mode": "generative", "trace_id": '"><img src=x onerror=window.hit=1>'}
    evidence = [hit(text, text) for text in HOSTILE]
    page.goto(f"{server.url}/ask")
    for answer in (
        answered(everything + " [1] [2]", marked, **hostile),
        answered("", [], verdict="not_in_documents", evidence=evidence),
    ):
        wire.answer = answer
        page.get_by_label("Question").fill(HOSTILE[1])
        page.locator("#ask").click()
        expect(page.locator("#ask")).to_be_enabled()
    page.locator(".chip").first.click()
    expect(page.locator("#text-panel mark")).to_have_text(HOSTILE[1])
    page.keyboard.press("Escape")

    page.route("**/v1/chat/completions", chat_of(everything))
    page.goto(f"{server.url}/chat")
    page.locator("#message").fill(HOSTILE[1])
    page.locator("#send").click()
    expect(page.locator(".bubble-assistant")).to_contain_text("window.hit=1")
    page.reload()
    expect(page.locator(".bubble")).to_have_count(2)
    page.wait_for_timeout(300)
    assert page.evaluate("window.hit") is None
    assert page.locator("main script, main iframe, main img").count() == 0


@contextmanager
def answer_without_end() -> Iterator[tuple[str, threading.Event]]:
    """The address of a chat whose answer never ends, and an event that is set once its reader has gone."""
    left = threading.Event()
    chunk = {"choices": [{"index": 0, "delta": {"content": "and so on"}, "finish_reason": None}]}

    class Endless(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.connection.settimeout(60)
            with suppress(OSError):
                self.connection.recv(1)  # returns when the reader goes
                left.set()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as endless:
        threading.Thread(target=endless.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{endless.server_port}/v1/chat/completions", left
        endless.shutdown()


def chat_of(text: str) -> Callable[[Route], None]:
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    return lambda route: route.fulfill(content_type="text/event-stream", body=body)
