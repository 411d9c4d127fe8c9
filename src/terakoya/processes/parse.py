"""Entry point: a server that forks a child for each uploaded file. The child holds nothing, can reach nothing and may
be killed; the server opens dictionary and tokenizer once, for all of them, and never an upload.

Requests are lines of JSON on standard input: ``{"job", "directory", "result", "log", ...}`` starts a child, which
parses a file or, without a tokenizer, unpacks an archive; ``{"kill": job}`` ends one. ``{"job", "code"}`` on standard
output says how a child ended. The server ends with its input. A child's result and log are files in its directory;
whatever a parser prints itself goes into the log.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import selectors
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from terakoya.exceptions import AppException, StorageFull, UnreadableDocument
from terakoya.security.confinement import (
    die_first,
    die_with_parent,
    leave_network,
    limit_resources,
    python_folders,
    restrict_files,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_OPEN_FILES = 64
_MOST_FILES = 1 << 16
"""Of the server: it has a handful."""
_READ_BYTES = 1 << 16
_TOKENIZERS_KEPT = 4


def main() -> None:
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[variable] = "1"  # one document, one thread, none left over for a fork; read at import
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    die_with_parent(int(sys.argv[1]))
    ForkServer().serve()


class ForkServer:
    """Owns the children; one thread, because a fork copies one."""

    def __init__(self) -> None:
        self._children: dict[int, int] = {}
        """Process id -> job, of children that have not been waited for: their ids belong to nobody else."""
        self._tokenizers: dict[str, Tokenizer] = {}
        self._rest = b""

    def serve(self) -> None:
        """Work until standard input ends, then take the children along."""
        woken, wakes = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wakes, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if woken in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(woken, _READ_BYTES)
                    self._wait_for_children()
                if 0 in ready and not self._read_requests():
                    break
        for process in self._children:
            _kill(process)

    def _read_requests(self) -> bool:
        """Return whether there may be more."""
        received = os.read(0, _READ_BYTES)
        *lines, self._rest = (self._rest + received).split(b"\n")
        for line in lines:
            request: dict[str, Any] = json.loads(line)
            if "kill" in request:
                for process, job in self._children.items():
                    if job == request["kill"]:
                        _kill(process)
            else:
                self._start(request)
        return bool(received)

    def _start(self, request: dict[str, Any]) -> None:
        try:
            tokenizer = None if request["tokenizer"] is None else self._opened(request["tokenizer"])
        except AppException as error:
            from terakoya.rag.indexing.parse_result import write_error

            with Path(request["directory"], request["result"]).open("wb") as result:
                write_error(result, str(error), error.code)
            _answer(request["job"], 0)
            return
        server = os.getpid()
        process = os.fork()
        if process == 0:
            _be_a_child(request, tokenizer, server)
        self._children[process] = request["job"]

    def _opened(self, path: str) -> Tokenizer:
        """Open a tokenizer once, and the dictionary with the first. Raises: RAGError if it cannot be opened."""
        if path not in self._tokenizers:
            from terakoya.rag.indexing.parsed_document import open_dictionary
            from terakoya.rag.indexing.token_count import load_tokenizer

            open_dictionary()
            tokenizer = load_tokenizer(Path(path))
            while len(self._tokenizers) >= _TOKENIZERS_KEPT:
                del self._tokenizers[next(iter(self._tokenizers))]
            self._tokenizers[path] = tokenizer
            gc.freeze()  # a child's collector would otherwise copy every page it looks at
        return self._tokenizers[path]

    def _wait_for_children(self) -> None:
        for process in list(self._children):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                # The whole group, also after the child's own end: nothing that it started stays.
                _kill(process)
                _answer(self._children.pop(process), os.waitstatus_to_exitcode(status))


def _answer(job: int, code: int) -> None:
    os.write(1, json.dumps({"job": job, "code": code}).encode() + b"\n")


def _kill(process: int) -> None:
    """Kill a child and its group; one so young that it leads no group yet, alone."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(process, signal.SIGKILL)


def _be_a_child(request: dict[str, Any], tokenizer: Tokenizer | None, server: int) -> NoReturn:
    code: int | str | None = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(request["directory"])
        _leave_the_servers_files(request["log"])
        die_first()
        leave_network()
        die_with_parent(server)  # last: a change of credentials may undo it
        with Path(request["result"]).open("wb") as result:
            if tokenizer is None:
                _unpack(request, result)
            else:
                _parse(request, tokenizer, result)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001  the end of a process: said in its log
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def _leave_the_servers_files(log: str) -> None:
    """Keep nothing of the server's: no input, output into the log."""
    os.closerange(3, min(os.sysconf("SC_OPEN_MAX"), _MOST_FILES))
    for target, path, flags in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, target)
        os.close(opened)
    os.dup2(1, 2)


def _parse(request: dict[str, Any], tokenizer: Tokenizer, result: BinaryIO) -> None:
    from terakoya.rag.indexing.parse_result import MAX_RESULT_BYTES, write_error, write_result
    from terakoya.rag.indexing.parsed_document import DocumentReader

    try:
        reader = DocumentReader(parser=request["parser"], tokenizer=tokenizer)
        limit_resources(
            memory_bytes=request["memory_bytes"],
            cpu_seconds=request["cpu_seconds"],
            file_bytes=MAX_RESULT_BYTES,
            open_files=_OPEN_FILES,
        )
        path = Path(request["path"])
        restrict_files([path, *python_folders()])
        document = reader.read(path, title=request["title"], filename=request["filename"])
    except AppException as error:
        write_error(result, str(error), error.code)
    except MemoryError:
        mib = request["memory_bytes"] >> 20
        write_error(result, f"the parser needed more than the {mib} MiB it may use", UnreadableDocument.code)
    except RecursionError:
        write_error(result, "the document is nested too deeply for its parser", UnreadableDocument.code)
    except Exception as error:  # noqa: BLE001  whatever a parser stumbles over is a fact about the file
        traceback.print_exc()
        write_error(result, f"the parser failed: {type(error).__name__}: {error}", UnreadableDocument.code)
    else:
        write_result(result, document)


def _unpack(request: dict[str, Any], result: BinaryIO) -> None:
    from terakoya.rag.indexing.archives import ArchiveLimits, unpack
    from terakoya.rag.indexing.parse_result import write_error
    from terakoya.rag.indexing.unpack_result import write_entry

    limits = ArchiveLimits(**request["archive"])
    try:
        with Path(request["contents"]).open("wb") as contents:
            limit_resources(
                memory_bytes=request["memory_bytes"],
                cpu_seconds=request["cpu_seconds"],
                file_bytes=limits.total_bytes + limits.file_bytes,
                open_files=_OPEN_FILES,
            )
            path = Path(request["path"])
            restrict_files([path, *python_folders()])
            for entry in unpack(path, contents, limits):
                write_entry(result, entry)
    except AppException as error:
        write_error(result, str(error), error.code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        write_error(result, "the disk has no room to unpack this archive; free some space", StorageFull.code)
    except MemoryError:
        mib = request["memory_bytes"] >> 20
        write_error(result, f"unpacking needed more than the {mib} MiB it may use", UnreadableDocument.code)


if __name__ == "__main__":
    main()
