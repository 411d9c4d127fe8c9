"""What NVIDIA's own tool says of the GPUs. Without torch, so that the web process can ask too."""

from __future__ import annotations

import shutil
import subprocess

import structlog

log = structlog.get_logger(__name__)


def gpu_facts(*fields: str) -> list[list[str]]:
    """Return so many fields of each GPU, called as the tool calls them; empty without a GPU or the tool. A tool that
    fails is in the log: what follows from it, work on the CPU, would otherwise have no reason.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("gpus_not_told", tool=tool, error=str(error))
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
    return [row for row in rows if len(row) == len(fields)]
