"""Entry point: imports one uploaded file of training data in a process that holds nothing, can reach nothing and may
be killed; what it takes of memory is never the web process'.

Reads one JSON object from standard input; writes the result to standard output, which is a file. Whatever a library
prints itself goes where its errors go.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, BinaryIO

from terakoya.exceptions import AppException, InvalidDataset, StorageFull
from terakoya.security.confinement import (
    die_first,
    die_with_parent,
    leave_network,
    limit_resources,
    python_folders,
    restrict_files,
)

_MAX_REQUEST = 1 << 20
_OPEN_FILES = 64


def main() -> None:
    request: dict[str, Any] = json.loads(sys.stdin.buffer.read(_MAX_REQUEST))
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "ARROW_IO_THREADS"):
        os.environ[variable] = "1"  # read when numpy and pyarrow are imported
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # gives back what it no longer needs
    die_first()
    leave_network()  # before numpy starts threads
    die_with_parent(request["parent"])  # last: a change of credentials may undo it
    with os.fdopen(os.dup(1), "wb") as result:
        os.dup2(2, 1)
        result.write(json.dumps(_answer(request), ensure_ascii=False).encode("utf-8", "backslashreplace"))


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        with Path(request["target"]).open("xb") as target:
            imported = _import(request, target)
            target.flush()
            os.fsync(target.fileno())
            return imported
    except AppException as error:
        return {"error": str(error), "code": error.code, "details": error.details}
    except MemoryError:
        mib = request["memory_bytes"] >> 20
        return {"error": f"the import needed more than the {mib} MiB it may use", "code": InvalidDataset.code}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return {
                "error": "the disk has no room for these rows; free some space and import them again",
                "code": StorageFull.code,
            }
        return _unforeseen(error)
    except Exception as error:  # noqa: BLE001  whatever a reader stumbles over is a fact about the file
        return _unforeseen(error)


def _import(request: dict[str, Any], target: BinaryIO) -> dict[str, Any]:
    import numpy  # noqa: F401  its own memory is not the file's fault

    from terakoya.data.importing import ImportOptions, RowFiles, import_rows

    source = Path(request["source"])
    with RowFiles(target, Path(request["target"]).parent) as files:
        limit_resources(
            memory_bytes=request["memory_bytes"],
            cpu_seconds=request["cpu_seconds"],
            file_bytes=request["file_bytes"],
            open_files=_OPEN_FILES,
        )
        restrict_files([source, *python_folders()])
        return import_rows(source, files, ImportOptions.from_json(request["options"])).to_json()


def _unforeseen(error: Exception) -> dict[str, Any]:
    traceback.print_exception(error)
    return {"error": f"the import failed: {type(error).__name__}: {error}", "code": InvalidDataset.code}


if __name__ == "__main__":
    main()
