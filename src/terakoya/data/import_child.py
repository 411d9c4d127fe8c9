"""Has a file imported by a child process, which is limited in everything, killed on time and not believed without a
look. However the child ends, the caller gets what was imported or a reason.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import structlog

from terakoya.data.importing import MOST_GROWTH, ImportedRows, ImportOptions
from terakoya.exceptions import AppException, InvalidConfig, InvalidDataset, StorageFull
from terakoya.security.child_ending import ending, last_line_of
from terakoya.security.environment import child_environment

_COMMAND = ("-P", "-m", "terakoya.processes.import_rows")
_MAX_RESULT_BYTES = 16 * 2**20
_ERRORS: dict[str, type[AppException]] = {error.code: error for error in (InvalidDataset, InvalidConfig, StorageFull)}
logger = structlog.get_logger(__name__)


class ChildImporter:
    """Imports in children. How many at once is for the caller to say."""

    def __init__(self, *, timeout_seconds: float, memory_bytes: int) -> None:
        """``memory_bytes``: for the import, besides what its process itself needs."""
        self._timeout_seconds = timeout_seconds
        self._memory_bytes = memory_bytes

    def __call__(self, source: Path, target: Path, options: ImportOptions) -> ImportedRows:
        """Write the rows of ``source`` to the new file ``target``.

        Raises: InvalidDataset with the reason, its details the report where there is one; InvalidConfig for a bad
        mapping; StorageFull.
        """
        with tempfile.TemporaryFile(dir=target.parent) as result, tempfile.TemporaryFile(dir=target.parent) as log:
            code = self._run(source, target, options, result, log)
            if code is None:
                raise InvalidDataset(f"the import was stopped after {self._timeout_seconds:g} s without a result")
            if code != 0:
                logger.warning("import_died", exit_code=code)
                raise InvalidDataset(
                    ending(code, last_line_of(log), child="import", article="an", memory_bytes=self._memory_bytes)
                )
            return _checked(result, target)

    def _run(self, source: Path, target: Path, options: ImportOptions, result: Any, log: Any) -> int | None:
        """Return the child's exit code (negative: the signal), None if it was killed for taking too long."""
        request = {
            "source": str(source.absolute()),
            "target": str(target.absolute()),
            "options": options.to_json(),
            "memory_bytes": self._memory_bytes,
            "cpu_seconds": math.ceil(self._timeout_seconds) + 1,
            "file_bytes": 2**40 if options.limit_bytes is None else MOST_GROWTH * options.limit_bytes + 2**30,
            "parent": os.getpid(),
        }
        child = subprocess.Popen(
            [sys.executable, *_COMMAND],
            env=child_environment(os.environ),
            stdin=subprocess.PIPE,
            stdout=result,
            stderr=log,
            start_new_session=True,
        )
        try:
            child.communicate(json.dumps(request).encode(), timeout=self._timeout_seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            # The whole group, also after the child's own end: nothing that it started stays.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        return child.returncode


def _checked(result: Any, target: Path) -> ImportedRows:
    result.seek(0)
    content = result.read(_MAX_RESULT_BYTES + 1)
    try:
        answer = json.loads(content) if len(content) <= _MAX_RESULT_BYTES else {}
        if not isinstance(answer, dict):
            raise TypeError("it is no object")
        if "error" in answer:
            error = _ERRORS.get(answer["code"], InvalidDataset)
            raise error(str(answer["error"]), details=answer.get("details"))
        imported = ImportedRows.from_json(answer)
        if imported.size_bytes != target.stat().st_size:
            raise ValueError("its rows are not of the size it says")
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("import_result_refused", reason=str(error))
        raise InvalidDataset("the result of the import was refused: it contradicts itself") from error
    return imported
