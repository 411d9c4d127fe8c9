from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from tests.unit.rag.indexing.hostile import install_hostile_parsers
from tests.unit.rag.indexing.parsers.office_files import entry_bomb, text_bomb
from tests.unit.rag.indexing.parsers.pdf_writer import decompression_bomb
from tests.unit.rag.indexing.tokenizer import small_tokenizer

from terakoya.domain.documents import Language
from terakoya.exceptions import InvalidConfig, RAGError, UnreadableDocument
from terakoya.rag.indexing.parse_child import ParseChildren, ParsedDocument
from terakoya.rag.retrieval.analysis import terms_of
from terakoya.security.confinement import confinement

Parse = Callable[..., Awaitable[ParsedDocument]]
MIB = 1 << 20


@pytest.fixture
async def children(tmp_path: Path) -> AsyncIterator[ParseChildren]:
    (tmp_path / "work").mkdir()
    children = ParseChildren(tmp_path / "work")
    yield children
    await children.stop()


@pytest.fixture
def parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: ParseChildren) -> Parse:
    packages = install_hostile_parsers(tmp_path / "packages")
    monkeypatch.setenv("PYTHONPATH", str(packages), prepend=os.pathsep)
    tokenizer = tmp_path / "tokenizer.json"
    small_tokenizer().save(str(tokenizer))

    async def call(
        parser: str,
        content: bytes = b"some text",
        *,
        title: str | None = None,
        seconds: float = 30,
        memory_bytes: int = 256 * MIB,
        tokenizer_path: Path = tokenizer,
    ) -> ParsedDocument:
        upload = tmp_path / "upload"
        upload.write_bytes(content)
        return await children.parse(
            upload,
            parser=parser,
            filename="notes.txt",
            tokenizer=tokenizer_path,
            title=title,
            timeout_seconds=seconds,
            memory_bytes=memory_bytes,
        )

    return call


async def test_a_document_comes_back_with_passages_language_and_terms(parse: Parse, tmp_path: Path) -> None:
    text = "# 返品\n\n商品は三十日以内であれば返品できます。\n\n# 送料\n\n" + "送料は五百円です。" * 60
    document = await parse("markdown", text.encode("cp932"), title="案内")
    assert document.title == "返品"
    assert document.language is Language.JAPANESE
    assert document.notices == ("converted from CP932 (Shift_JIS as Windows writes it)",)
    assert document.pages is None
    last = document.passages[-1]
    assert last.heading == ("送料",)
    assert last.terms == terms_of(f"案内\n送料\n{document.text[last.start : last.end]}")
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("parser", "reason"),
    [
        ("hoards", "more than the 256 MiB"),
        ("hoards_slowly", "more than the 256 MiB"),
        ("crashes", r"crashed \(SIGSEGV\).*256 MiB"),
        ("aborts", r"crashed \(SIGABRT\)"),
        ("exits", "exit code 3"),
        ("raises", "KeyError: 'lost'"),
        ("recurses", "nested too deeply"),
        ("wrong_offsets", "refused: its offsets"),
        ("overlaps", "refused: its offsets"),
        ("writes_garbage", "refused: it is not JSON"),
    ],
)
async def test_a_parser_that_fails_is_a_document_with_a_reason(parse: Parse, parser: str, reason: str) -> None:
    with pytest.raises(UnreadableDocument, match=reason):
        await parse(parser)


@pytest.mark.parametrize("parser", ["hangs", "spins"])
async def test_a_parser_that_does_not_end_is_killed_on_time_and_others_go_on(parse: Parse, parser: str) -> None:
    await parse("plain")  # the server is up
    started = time.monotonic()
    slow, quick = await asyncio.gather(parse(parser, seconds=2), parse("plain", b"quick"), return_exceptions=True)
    assert isinstance(slow, UnreadableDocument)
    assert str(slow) == "the parser was stopped after 2 s without a result"
    assert isinstance(quick, ParsedDocument)
    assert time.monotonic() - started < 20


async def test_cancelling_kills_the_child(parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "work"))
    running = asyncio.create_task(parse("hangs"))  # type: ignore[arg-type]
    children: list[psutil.Process] = []
    while not children:
        await asyncio.sleep(0.05)
        children = [child for server in _servers() for child in server.children()]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(child.is_running() for child in children)
    assert list((tmp_path / "work").iterdir()) == []


async def test_one_server_forks_all_children_until_it_has_been_idle(
    parse: Parse, children: ParseChildren, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "_idle_seconds", 0.5)
    await parse("plain")
    [first] = _servers()
    await parse("plain")
    assert _servers() == [first]
    async with asyncio.timeout(10):
        while _servers():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (await parse("plain")).text == "some text"


async def test_files_whose_server_is_killed_get_a_reason_and_the_next_gets_another_server(parse: Parse) -> None:
    await parse("plain")
    waiting = asyncio.create_task(parse("hangs"))  # type: ignore[arg-type]
    while not _servers()[0].children():  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    [child] = _servers()[0].children()
    _servers()[0].kill()
    with pytest.raises(UnreadableDocument, match="was killed"):
        await waiting
    child.wait(10)
    assert (await parse("plain")).text == "some text"


def _servers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if _is_parsing(child)]


def _is_parsing(process: psutil.Process) -> bool:
    try:
        return "terakoya.processes.parse" in process.cmdline()
    except psutil.Error:  # gone, or a zombie that another test has not reaped yet
        return False


async def test_what_a_parser_started_is_gone_with_it(parse: Parse) -> None:
    document = await parse("leaves_a_child")
    left = int(document.text.split()[1])
    async with asyncio.timeout(10):  # killed already; the kernel takes a moment
        while psutil.pid_exists(left) and psutil.Process(left).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_pdf_that_unpacks_to_a_gigabyte_is_stopped(parse: Parse) -> None:
    bomb = decompression_bomb(gigabytes=1)
    assert len(bomb) < 4 * MIB
    with pytest.raises(UnreadableDocument, match=r"256 MiB|no text|damaged|stopped after"):
        await parse("pdf", bomb, seconds=20)


@pytest.mark.slow
async def test_office_bombs_are_refused_or_stopped_in_bounded_memory(parse: Parse, tmp_path: Path) -> None:
    entries = entry_bomb(tmp_path / "entries.docx").read_bytes()
    with pytest.raises(UnreadableDocument, match="entries; at most 20,000 are read"):
        await parse("docx", entries)
    announced = text_bomb(tmp_path / "announced.docx", mebibytes=520).read_bytes()
    assert len(announced) < MIB
    with pytest.raises(UnreadableDocument, match="unpacks to more than 512 MiB"):
        await parse("docx", announced)
    with pytest.raises(UnreadableDocument, match="more than 40,000,000 characters"):
        await parse("docx", text_bomb(tmp_path / "text.docx", mebibytes=100).read_bytes())


async def test_what_a_parser_prints_is_not_taken_for_its_result(parse: Parse) -> None:
    assert (await parse("prints")).text == "calm text"


async def test_a_parser_reaches_no_other_file_program_process_key_or_network(
    parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = confinement()
    if not all(has.values()):
        pytest.skip(f"this kernel lacks a protection: {has}")
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.setenv("TERAKOYA_API_KEYS", "secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        document = await parse("pries", str(server.getsockname()[1]).encode())
    assert document.text == "read=refused write=refused connect=refused program=refused signal=refused key=False"


async def test_an_unknown_parser_and_a_broken_tokenizer_are_not_blamed_on_the_document(
    parse: Parse, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfig, match="unknown parser 'odt'"):
        await parse("odt")
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(RAGError, match=r"'broken\.json' cannot be opened"):
        await parse("plain", tokenizer_path=broken)
