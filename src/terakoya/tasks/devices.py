"""Which devices training tasks may work on, and how a process is held to one of them. Asks the driver's own tool, never
torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from terakoya.utils.gpu_query import gpu_facts

CPU = "cpu"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_GPU = "cuda:"


def training_devices(wanted: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the devices that are set; without any, every GPU this process may see, else the CPU."""
    if wanted:
        return tuple(dict.fromkeys(wanted))
    visible = environment.get(_VISIBLE)
    names = _gpus() if visible is None else [name.strip() for name in visible.split(",")]
    gpus = tuple(_GPU + name for name in names if name and not name.startswith("-"))
    return gpus or (CPU,)


def environment_for(device: str | None) -> dict[str, str]:
    """Return the variables that let a process see this device and no other; none for a task without a device."""
    if device is None:
        return {}
    return {_VISIBLE: "" if device == CPU else device.removeprefix(_GPU)}


def _gpus() -> list[str]:
    return [index for (index,) in gpu_facts("index") if index.isdigit()]
