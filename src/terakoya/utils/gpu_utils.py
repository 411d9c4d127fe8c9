"""What is known of this machine's memory and GPUs. Knows nothing of models."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch


def training_device() -> torch.device:
    """The first CUDA device, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def available_memory_bytes(device: torch.device) -> int:
    """Return what a process may still take on the device: free GPU memory, or RAM within any cgroup limit."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    available: int = psutil.virtual_memory().available
    limit = _cgroup_room_bytes()
    return available if limit is None else min(available, limit)


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most this process has held on the device so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _cgroup_room_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Room under a container's memory limit (cgroup v2, then v1), None without one."""
    for limit_file, usage_file in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limit, usage = (root / limit_file).read_text().strip(), int((root / usage_file).read_text())
        except (OSError, ValueError):
            continue
        if limit.isdigit() and int(limit) < 2**60:
            return max(int(limit) - usage, 0)
    return None
