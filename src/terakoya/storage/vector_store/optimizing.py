"""Makes an optimized copy of a shard in another process, while the shard itself is searched. Knows no collections."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

from terakoya.exceptions import RAGError
from terakoya.storage.files import full_disk_is_named
from terakoya.storage.vector_store.threads import to_the_end

_ERROR_BYTES = 2_000


async def optimize_copy(folder: Path, copy: Path) -> None:
    """Write ``copy``: the shard in ``folder``, which nobody may write meanwhile, with its search graph.

    Whatever goes wrong, cancelling included, leaves no copy. Raises: RAGError, StorageFull.
    """
    try:
        with full_disk_is_named(copy):
            await to_the_end(shutil.copytree, folder, copy)
        await _optimize(copy)
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise


async def _optimize(copy: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "terakoya.processes.optimize", str(copy), str(os.getpid())),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},  # it needs no more, and no key
    )
    try:
        _, errors = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        reason = errors.decode(errors="replace")[-_ERROR_BYTES:].strip()
        raise RAGError(
            f"the search index could not be optimized (exit status {process.returncode}): {reason or 'killed'}. "
            "Searches go on with the index as it was"
        )
