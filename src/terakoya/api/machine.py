"""Looks at the machine and the settings: what there is, and which protections are on or missing. Without torch:
GPUs are asked of the driver's own tool.
"""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from terakoya import __version__
from terakoya.api.schemas.system import Cpu, Disk, Gpu, Memory, ModelServer, Protection, SystemView
from terakoya.config import Settings
from terakoya.exceptions import Unavailable
from terakoya.models.client import ModelServerClient
from terakoya.security.confinement import confinement
from terakoya.security.keys import is_loopback
from terakoya.utils.gpu_query import gpu_facts

MIB = 2**20
_WANTED_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def system_view(settings: Settings, model_server: ModelServer) -> SystemView:
    memory = psutil.virtual_memory()
    disk = shutil.disk_usage(settings.data_dir)
    return SystemView(
        version=__version__,
        python=platform.python_version(),
        platform=platform.platform(terse=True),
        data_dir=str(settings.data_dir),
        cpu=_cpu(),
        memory=Memory(total_bytes=memory.total, available_bytes=memory.available),
        disk=Disk(total_bytes=disk.total, free_bytes=disk.free),
        gpu=_gpus(),
        engines=engines(),
        model_server=model_server,
        protections=protections(settings),
    )


async def model_server_view(client: ModelServerClient) -> ModelServer:
    """Say what is open, waiting for two seconds at most."""
    try:
        return ModelServer(running=client.is_running, **await client.open_models())
    except Unavailable as error:
        return ModelServer(running=client.is_running, problem=str(error), models=[], opening=[])


def engines() -> dict[str, Protection]:
    return {
        "llama.cpp": _engine("xllamacpp", "Llama models and their LoRA adapters, on a CPU: eight answers at once"),
        "pytorch": _engine("torch", "all other models, and any on a GPU"),
    }


def _engine(package: str, detail: str) -> Protection:
    try:
        return Protection(active=True, detail=f"{detail} ({package} {version(package)})")
    except PackageNotFoundError:
        return Protection(active=False, detail=f"{package} is not installed")


def protections(settings: Settings) -> dict[str, Protection]:
    limit_gib = settings.upload_limit_bytes / 2**30
    keys = len(settings.api_keys)
    return {
        "loopback_only": Protection(active=is_loopback(settings.host), detail=f"listens on {settings.host}"),
        "api_key": Protection(
            active=bool(keys),
            detail=f"{keys} configured" if keys else "none set: whoever uses this machine may use the server",
        ),
        "host_and_origin_check": Protection(active=True, detail="HTTP and WebSocket"),
        "content_security_policy": Protection(active=True, detail="no inline script or style, nothing from elsewhere"),
        "upload_limit": Protection(active=True, detail=f"{limit_gib:g} GiB, checked while streaming"),
        "oom_priority": Protection(
            active=Path("/proc/self/oom_score_adj").exists(),
            detail="if memory runs out, the kernel ends a training process before this one",
        ),
        "process_handles": Protection(
            active=hasattr(os, "pidfd_open"), detail="a worker's end is noticed without mistaking another for it"
        ),
        **_parser_protections(),
    }


def _parser_protections() -> dict[str, Protection]:
    has = confinement()
    return {
        "parser_memory_limit": Protection(active=has["memory"], detail="a file that is parsed cannot take all memory"),
        "parser_without_network": Protection(active=has["network"], detail="what parses a file reaches no network"),
        "parser_without_files": Protection(
            active=has["files"], detail="what parses a file opens no other file and starts no program (Landlock)"
        ),
    }


def _cpu() -> Cpu:
    model, flags = platform.processor() or platform.machine(), ""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        if key.strip() in ("flags", "Features"):
            flags = value
            break
    present = set(flags.split())
    return Cpu(
        model=model, cores=_usable_cores(), instructions=[flag for flag in _WANTED_INSTRUCTIONS if flag in present]
    )


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> list[Gpu]:
    return [
        Gpu(name=name, memory_total_bytes=int(total) * MIB, memory_used_bytes=int(used) * MIB)
        for name, total, used in gpu_facts("name", "memory.total", "memory.used")
        if total.isdigit() and used.isdigit()
    ]
