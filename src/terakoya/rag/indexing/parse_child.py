"""Has a file parsed by a child process, which is limited in everything, killed on time and not believed: its result
is checked before anybody sees it. However the child ends, the caller gets a document or a reason. The children are
forked by a server (``processes/parse.py``) that is started with the first file and ends when none has come for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import structlog

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.archives import ArchiveLimits
from terakoya.rag.indexing.parse_result import MAX_RESULT_BYTES, Contradiction, read_result
from terakoya.rag.indexing.parsed_document import ParsedDocument, ParsedPassage
from terakoya.rag.indexing.unpack_result import Unpacked, read_entries
from terakoya.security.child_ending import ending, last_line_of
from terakoya.security.environment import child_environment

__all__ = ["ParseChildren", "ParsedDocument", "ParsedPassage"]

_MODULE = "terakoya.processes.parse"
RESULT, LOG, CONTENTS = "result.jsonl", "parse.log", "contents"
Result = TypeVar("Result")
_IDLE_SECONDS = 300.0
_GRACE_SECONDS = 5.0
"""For a killed child to be reported; a server that takes longer is killed itself."""
logger = structlog.get_logger(__name__)


class ParseChildren:
    """All methods are to be called on one event loop."""

    def __init__(self, work_dir: Path, *, idle_seconds: float = _IDLE_SECONDS) -> None:
        """``work_dir`` exists; each file has a folder of its own in it while it is parsed."""
        self._work_dir = work_dir
        self._idle_seconds = idle_seconds
        self._server: _ForkServer | None = None
        self._starting = asyncio.Lock()
        self._working = 0
        self._rest: asyncio.TimerHandle | None = None

    async def parse(
        self,
        path: Path,
        *,
        parser: str,
        filename: str,
        tokenizer: Path,
        title: str | None,
        timeout_seconds: float,
        memory_bytes: int,
    ) -> ParsedDocument:
        """Return what the file holds. ``tokenizer``: the embedder's ``tokenizer.json``; ``memory_bytes``: for
        parsing, besides what the process itself needs. Cancelling it kills the child.

        Raises: UnreadableDocument with the reason; InvalidConfig for an unknown parser; RAGError if the tokenizer
        cannot be opened.
        """
        async with self._folder("parse-") as directory:
            request = self._request(directory, path, timeout_seconds=timeout_seconds, memory_bytes=memory_bytes) | {
                "parser": parser,
                "filename": filename,
                "tokenizer": str(tokenizer.absolute()),  # noqa: ASYNC240  asks no disk
                "title": title,
            }
            await self._ended_well(request, directory, parser, timeout_seconds, memory_bytes)
            return await asyncio.to_thread(_checked, lambda: read_result(directory / RESULT), directory, parser)

    @asynccontextmanager
    async def unpacked(
        self, path: Path, *, limits: ArchiveLimits, timeout_seconds: float, memory_bytes: int
    ) -> AsyncIterator[Unpacked]:
        """Have an archive unpacked; what came out is there within the context.

        Raises: UnreadableDocument if it is refused whole, with the reason; StorageFull.
        """
        async with self._folder("unpack-") as directory:
            request = self._request(directory, path, timeout_seconds=timeout_seconds, memory_bytes=memory_bytes) | {
                "tokenizer": None,
                "contents": CONTENTS,
                "archive": asdict(limits),
            }
            await self._ended_well(request, directory, "archive", timeout_seconds, memory_bytes)
            read = partial(read_entries, directory / RESULT, directory / CONTENTS)
            yield await asyncio.to_thread(_checked, read, directory, "archive")

    @asynccontextmanager
    async def _folder(self, prefix: str) -> AsyncIterator[Path]:
        with tempfile.TemporaryDirectory(prefix=prefix, dir=self._work_dir, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def _request(self, directory: Path, path: Path, *, timeout_seconds: float, memory_bytes: int) -> dict[str, object]:
        return {
            "directory": str(directory.absolute()),
            "result": RESULT,
            "log": LOG,
            "path": str(path.absolute()),
            "memory_bytes": memory_bytes,
            "cpu_seconds": math.ceil(timeout_seconds) + 1,
        }

    async def _ended_well(
        self,
        request: Mapping[str, object],
        directory: Path,
        parser: str,
        timeout_seconds: float,
        memory_bytes: int,
    ) -> None:
        """Raises: UnreadableDocument unless the child wrote a result."""
        code = await self._run(request, timeout_seconds)
        if code is None:
            raise UnreadableDocument(f"the parser was stopped after {timeout_seconds:g} s without a result")
        if code != 0:
            logger.warning("parser_died", parser=parser, exit_code=code)
            raise UnreadableDocument(_death(code, directory, memory_bytes))

    async def stop(self) -> None:
        """End the server and every child. The next file starts another."""
        if self._rest is not None:
            self._rest.cancel()
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    async def _run(self, request: Mapping[str, object], timeout_seconds: float) -> int | None:
        """Return the child's exit code (negative: the signal), None if it was killed for taking too long."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        self._working += 1
        try:
            server = await self._running()
            return await server.run(request, timeout_seconds)
        finally:
            self._working -= 1
            if not self._working:
                self._rest = asyncio.get_running_loop().call_later(self._idle_seconds, self._end_idle)

    async def _running(self) -> _ForkServer:
        async with self._starting:
            if self._server is None or not self._server.is_alive:
                self._server = await _ForkServer.start(self._work_dir)
            return self._server

    def _end_idle(self) -> None:
        self._rest = None
        if not self._working and self._server is not None:
            self._server.close()
            self._server = None


class _ForkServer:
    """The web process's end of one server."""

    def __init__(self, process: asyncio.subprocess.Process, log: BinaryIO) -> None:
        self._process = process
        self._log = log
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._jobs = itertools.count()
        self._listening = asyncio.create_task(self._listen(), name="parse server")

    @classmethod
    async def start(cls, work_dir: Path) -> _ForkServer:
        log = tempfile.TemporaryFile(dir=work_dir)  # noqa: SIM115  closed when the server has ended
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", _MODULE, str(os.getpid())),
                cwd=work_dir,
                env=child_environment(os.environ),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        except BaseException:
            log.close()
            raise
        return cls(process, log)

    @property
    def is_alive(self) -> bool:
        return not self._listening.done()

    async def run(self, request: Mapping[str, object], timeout_seconds: float) -> int | None:
        job = next(self._jobs)
        ended = self._ended[job] = asyncio.get_running_loop().create_future()
        self._say({"job": job, **request})
        try:
            async with asyncio.timeout(timeout_seconds):
                return await asyncio.shield(ended)
        except TimeoutError:
            return None
        finally:
            if not ended.done():
                self._say({"kill": job})
                await asyncio.shield(self._see_its_end(ended))
            del self._ended[job]

    async def stop(self) -> None:
        self.close()
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._listening

    def close(self) -> None:
        """Have it end; without waiting for that."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _say(self, request: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(request).encode() + b"\n")

    async def _see_its_end(self, ended: asyncio.Future[int]) -> None:
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                await asyncio.shield(ended)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()  # its children end with it
            await asyncio.shield(ended)

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            answer: dict[str, Any] = json.loads(line)
            ended = self._ended.get(answer["job"])
            if ended is not None and not ended.done():
                ended.set_result(answer["code"])
        code = await self._process.wait()
        with self._log as log:
            if code != 0:
                logger.warning("parse_server_died", exit_code=code, last_line=last_line_of(log))
        for ended in self._ended.values():
            if not ended.done():
                ended.set_result(code or -signal.SIGKILL)


def _checked(read: Callable[[], Result], directory: Path, parser: str) -> Result:
    try:
        if (directory / RESULT).stat().st_size > MAX_RESULT_BYTES:
            raise Contradiction("it is too large")
        return read()
    except Contradiction as error:
        logger.warning("parser_result_refused", parser=parser, reason=str(error))
        raise UnreadableDocument(f"the result of the parser {parser!r} was refused: {error}") from error


def _death(code: int, directory: Path, memory_bytes: int) -> str:
    try:
        with (directory / LOG).open("rb") as log:
            last = last_line_of(log)
    except FileNotFoundError:  # it ended before it could say anything
        last = ""
    return ending(code, last, child="parser", article="a", memory_bytes=memory_bytes)
