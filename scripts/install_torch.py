"""Install the one PyTorch version Terakoya is built against, in the build that fits this machine.

Owns that choice and nothing else; every other package comes from requirements.lock. Standard library only, because
it runs before anything is installed. ``TORCH`` says which build: auto (default), cpu or cuda.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

TORCH_VERSION = "2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CHOICES = ("auto", "cpu", "cuda")

Runner = Callable[[Sequence[str]], int]
"""Runs a command and returns its exit status."""


def run_quietly(command: Sequence[str]) -> int:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode


def run_visibly(command: Sequence[str]) -> int:
    return subprocess.run(command, check=False).returncode


def installed_version() -> str | None:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def has_nvidia_gpu(run: Runner = run_quietly) -> bool:
    if Path("/dev/nvidia0").exists():
        return True
    return shutil.which("nvidia-smi") is not None and run(["nvidia-smi", "-L"]) == 0


def satisfies(choice: str, version: str | None, *, platform: str = sys.platform) -> bool:
    """Whether the installed ``version`` is the pinned one in the asked-for build."""
    if version is None:
        return False
    release, _, build = version.partition("+")
    if release != TORCH_VERSION:
        return False
    if choice == "cpu":
        # Elsewhere than on Linux the default build is the CPU build and carries no "+cpu".
        return build == "cpu" or not platform.startswith("linux")
    return choice == "auto" or build != "cpu"


def pip_arguments(choice: str, *, gpu: bool, offers_cpu_wheel: Callable[[], bool], platform: str) -> list[str]:
    """Return what to hand to ``pip install`` for this choice."""
    plain, cpu = f"torch=={TORCH_VERSION}", f"torch=={TORCH_VERSION}+cpu"
    if choice == "cuda":
        return [plain]
    if offers_cpu_wheel():
        # --no-deps: what a CPU build needs is in requirements.lock, with hashes.
        return ["--no-deps", cpu]
    if choice == "auto" and gpu:
        return [plain]
    if platform.startswith("linux"):
        return ["--no-deps", "--index-url", CPU_INDEX, cpu]
    return ["--no-deps", plain]


def main(
    environment: dict[str, str] | None = None,
    *,
    installed: Callable[[], str | None] = installed_version,
    quiet: Runner = run_quietly,
    visible: Runner = run_visibly,
    platform: str = sys.platform,
) -> int:
    choice = (os.environ if environment is None else environment).get("TORCH") or "auto"
    if choice not in CHOICES:
        print(f"TORCH must be one of {', '.join(CHOICES)}; got {choice!r}", file=sys.stderr)
        return 2
    if satisfies(choice, version := installed(), platform=platform):
        print(f"PyTorch {version} is installed.")
        return 0
    pip = [sys.executable, "-m", "pip", "install"]

    def offers_cpu_wheel() -> bool:
        return quiet([*pip, "--dry-run", "--no-deps", "--quiet", "--report", "-", f"torch=={TORCH_VERSION}+cpu"]) == 0

    arguments = pip_arguments(choice, gpu=has_nvidia_gpu(quiet), offers_cpu_wheel=offers_cpu_wheel, platform=platform)
    print(f"Installing PyTorch (TORCH={choice}): pip install {' '.join(arguments)}", flush=True)
    if status := visible([*pip, *arguments]):
        print("PyTorch was not installed; pip's message is above.", file=sys.stderr)
        return status
    if not satisfies(choice, version := installed(), platform=platform):
        print(
            f"TORCH={choice} was asked for, but pip installed torch {version}: a package source or constraint "
            "configured for pip decides otherwise (see `pip config list`)",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--version"]:
        print(f"torch=={TORCH_VERSION}")
    else:
        sys.exit(main())
