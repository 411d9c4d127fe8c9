"""What is known of this machine's memory and GPUs. Knows nothing of models."""

from __future__ import annotations

import torch

from terakoya.utils.host_memory import host_room_bytes


def training_device() -> torch.device:
    """The first CUDA device, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def available_memory_bytes(device: torch.device) -> int:
    """Return what a process may still take on the device: free GPU memory, or RAM within any cgroup limit."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    return host_room_bytes()


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most this process has held on the device so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
