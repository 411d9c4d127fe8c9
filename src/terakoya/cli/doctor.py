"""``terakoya doctor``: what this machine offers and what stands in the way. Starts no server and imports no torch;
asks a running server for its own view.
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

import typer

import terakoya
from terakoya.cli.output import JsonOption, json_wanted, print_fields, print_json, say, size_text
from terakoya.cli.texts import _
from terakoya.exceptions import AppException

RECOMMENDED_DISK_BYTES = 5 * 10**9


def doctor(json_output: JsonOption = False) -> None:
    """Collect and print; exit status 1 if something stands in the way."""
    from terakoya.cli.settings import read_settings
    from terakoya.storage.files import DataDir

    settings = read_settings()
    data_dir = DataDir(settings.data_dir)
    running = data_dir.running_server()
    facts: dict[str, Any] = {
        "terakoya": terakoya.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "pytorch": _version("torch"),
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "gpus": _gpus(),
        "data_dir": str(settings.data_dir),
        "disk_free_bytes": _disk_free(settings.data_dir),
        "server": running.url if running else None,
    }
    problems = _problems(facts)
    if running and running.url:
        facts["server_view"] = _ask(running.url, settings.api_keys[0].get_secret_value() if settings.api_keys else None)
    if json_wanted():
        print_json({**facts, "problems": problems})
    else:
        sizes = {name: size_text(value) for name, value in facts.items() if name.endswith("_bytes") and value}
        print_fields({**facts, **sizes})
        say("\n".join(problems) if problems else _("Nothing stands in the way."))
    if problems:
        raise typer.Exit(1)


def _problems(facts: dict[str, Any]) -> list[str]:
    problems = []
    if facts["pytorch"] is None:
        problems.append(_("PyTorch is not installed: run `make run`, or python scripts/install_torch.py"))
    if not os.access(_existing(Path(facts["data_dir"])), os.W_OK):
        problems.append(_("The data folder %(path)s cannot be written.", path=facts["data_dir"]))
    if facts["disk_free_bytes"] < RECOMMENDED_DISK_BYTES:
        problems.append(_("Less than %(size)s of disk is free.", size=size_text(RECOMMENDED_DISK_BYTES)))
    return problems


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gpus() -> list[str]:
    """Names of NVIDIA GPUs as the driver lists them."""
    folder = Path("/proc/driver/nvidia/gpus")
    names = []
    for information in sorted(folder.glob("*/information")):
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("Model:"):
                names.append(line.partition(":")[2].strip())
    return names


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _disk_free(path: Path) -> int:
    return shutil.disk_usage(_existing(path)).free


def _ask(url: str, key: str | None) -> dict[str, Any]:
    from terakoya.client.client import Client

    with Client(url, key) as client:
        try:
            return client.system()
        except AppException as error:
            return {"error": str(error)}
