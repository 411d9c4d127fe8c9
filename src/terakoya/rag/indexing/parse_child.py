"""Has a file parsed by a child process, which is limited in everything, killed on time and not believed: its result
is checked before anybody sees it. However the child ends, the caller gets a document or a reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import structlog

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parse_result import MAX_RESULT_BYTES, Contradiction, read_result
from terakoya.rag.indexing.parsed_document import ParsedDocument, ParsedPassage
from terakoya.security.environment import child_environment

__all__ = ["ParsedDocument", "ParsedPassage", "parse_file"]

_MODULE = "terakoya.processes.parse"
_RESULT, _LOG = "result.jsonl", "parse.log"
_OUT_OF_MEMORY_SIGNALS = (signal.SIGABRT, signal.SIGTRAP, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS)
"""How native code ends when an allocation fails; also how it ends on a defect."""
logger = structlog.get_logger(__name__)


async def parse_file(
    path: Path,
    *,
    parser: str,
    filename: str,
    tokenizer: Path,
    title: str | None,
    work_dir: Path,
    timeout_seconds: float,
    memory_bytes: int,
) -> ParsedDocument:
    """Return what the file holds. ``tokenizer``: the embedder's ``tokenizer.json``; ``memory_bytes``: for parsing,
    besides what the process itself needs. Cancelling it kills the child.

    Raises: UnreadableDocument with the reason; InvalidConfig for an unknown parser; RAGError if the tokenizer cannot
    be opened.
    """
    request = {
        "path": str(path.absolute()),  # noqa: ASYNC240  asks no disk
        "parser": parser,
        "filename": filename,
        "tokenizer": str(tokenizer.absolute()),  # noqa: ASYNC240
        "title": title,
        "memory_bytes": memory_bytes,
        "cpu_seconds": math.ceil(timeout_seconds) + 1,
        "parent": os.getpid(),
    }
    with tempfile.TemporaryDirectory(prefix="parse-", dir=work_dir, ignore_cleanup_errors=True) as folder:
        directory = Path(folder)
        code = await _run(request, directory, timeout_seconds)
        if code is None:
            raise UnreadableDocument(f"the parser was stopped after {timeout_seconds:g} s without a result")
        if code != 0:
            logger.warning("parser_died", parser=parser, exit_code=code)
            raise UnreadableDocument(_death(code, directory, memory_bytes))
        return await asyncio.to_thread(_checked, directory, parser)


async def _run(request: Mapping[str, object], directory: Path, timeout_seconds: float) -> int | None:
    """Return the child's exit code (negative: the signal), None if it was killed for taking too long."""
    with (directory / _RESULT).open("wb") as result, (directory / _LOG).open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", _MODULE),
            cwd=directory,
            env=child_environment(os.environ),
            stdin=asyncio.subprocess.PIPE,
            stdout=result,
            stderr=log,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(timeout_seconds):
            await child.communicate(json.dumps(request).encode())
            return child.returncode
    except TimeoutError:
        return None
    finally:
        # The whole group, also after the child's own end: nothing that it started stays.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        await asyncio.shield(child.wait())


def _checked(directory: Path, parser: str) -> ParsedDocument:
    result = directory / _RESULT
    try:
        if result.stat().st_size > MAX_RESULT_BYTES:
            raise Contradiction("it is too large")
        return read_result(result)
    except Contradiction as error:
        logger.warning("parser_result_refused", parser=parser, reason=str(error))
        raise UnreadableDocument(f"the result of the parser {parser!r} was refused: {error}") from error


def _death(code: int, directory: Path, memory_bytes: int) -> str:
    mib = memory_bytes >> 20
    if code > 0:
        last = _last_line(directory / _LOG)
        return f"the parser ended with exit code {code}" + (f": {last}" if last else "")
    number = -code
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGXCPU:
        return "the parser was stopped: it computed for longer than it may"
    if number == signal.SIGKILL:
        return "the parser was killed, as happens when the machine is short of memory"
    if number in _OUT_OF_MEMORY_SIGNALS:
        return f"the parser crashed ({name}): the file is damaged, or needs more than the {mib} MiB a parser may use"
    return f"the parser crashed ({name})"


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
