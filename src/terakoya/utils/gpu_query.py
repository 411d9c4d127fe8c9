"""What NVIDIA's own tool says of the GPUs. Without torch, so that the web process can ask too."""

from __future__ import annotations

import shutil
import subprocess


def gpu_facts(*fields: str) -> list[list[str]]:
    """Return so many fields of each GPU, called as the tool calls them; empty without a GPU or the tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
    return [row for row in rows if len(row) == len(fields)]
