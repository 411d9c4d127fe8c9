"""Entry point: parses one uploaded file in a process that holds nothing, can reach nothing and may be killed.

Reads one JSON object from standard input; writes the result to standard output, which is a file. Whatever a parser
prints itself goes where its errors go.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, BinaryIO

from terakoya.exceptions import AppException, UnreadableDocument
from terakoya.security.confinement import (
    die_first,
    die_with_parent,
    leave_network,
    limit_resources,
    restrict_files,
)

_MAX_REQUEST = 1 << 20
_OPEN_FILES = 64
_SYSTEM_FOLDERS = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom")


def main() -> None:
    request: dict[str, Any] = json.loads(sys.stdin.buffer.read(_MAX_REQUEST))
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[variable] = "1"  # one document, one thread; read when numpy and tokenizers are imported
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    die_first()
    leave_network()  # before numpy starts threads
    die_with_parent(request["parent"])  # last: a change of credentials may undo it
    with os.fdopen(os.dup(1), "wb") as result:
        os.dup2(2, 1)
        _answer(request, result)


def _answer(request: dict[str, Any], result: BinaryIO) -> None:
    from terakoya.rag.indexing.parse_result import MAX_RESULT_BYTES, write_error, write_result
    from terakoya.rag.indexing.parsed_document import DocumentReader

    try:
        reader = DocumentReader(parser=request["parser"], tokenizer=Path(request["tokenizer"]))
        limit_resources(
            memory_bytes=request["memory_bytes"],
            cpu_seconds=request["cpu_seconds"],
            file_bytes=MAX_RESULT_BYTES,
            open_files=_OPEN_FILES,
        )
        path = Path(request["path"])
        restrict_files([path, *_needed_folders()])
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


def _needed_folders() -> list[Path]:
    """Return where Python, its packages and the system's libraries are: some are imported on call."""
    names = {sys.prefix, sys.base_prefix, sys.exec_prefix, *(part for part in sys.path if part), *_SYSTEM_FOLDERS}
    return [Path(name) for name in names]


if __name__ == "__main__":
    main()
