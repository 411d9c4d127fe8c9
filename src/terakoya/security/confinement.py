"""What a process gives up before it opens a file that somebody uploaded: memory, time, the network, other files,
signals to others. For good and for its children. Each function says whether the machine has it; nothing is assumed.
Knows nothing of what is read. Linux has all of it, other systems the resource limits alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on every architecture
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many kinds of access to files each version knows; later ones as many as the last."""
_NETWORK_ABI, _SCOPE_ABI = 4, 6
_OOM_SCORE = "800"
_SYSTEM_FOLDERS = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom")


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("directory", ctypes.c_int32))


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` ends, however it ends."""
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def die_first() -> None:
    """Short of memory, the kernel takes this process before others."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def limit_resources(*, memory_bytes: int, cpu_seconds: int, file_bytes: int, open_files: int) -> bool:
    """Bound what is used from here on; ``memory_bytes`` besides what the process holds now. Return whether memory is
    bounded too.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return False
    limit = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return True


def leave_network() -> bool:
    """Enter a network of nothing, not even a loopback. To be called before there are threads."""
    if sys.platform != "linux":
        return False
    libc = _libc()
    return bool(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWNET) == 0)


def restrict_files(readable: Sequence[Path]) -> bool:
    """Only these files and folders can be opened from here on, for reading; TCP and signals to others are refused
    where the kernel can (Landlock). Files that are open stay so.
    """
    version = landlock_version()
    if version < 1:
        return False
    libc = _libc()
    rules = _Ruleset(
        files=(1 << _FILE_RIGHTS_BY_ABI.get(version, 16)) - 1,
        network=3 if version >= _NETWORK_ABI else 0,
        scoped=3 if version >= _SCOPE_ABI else 0,
    )
    size = 24 if version >= _SCOPE_ABI else 16 if version >= _NETWORK_ABI else 8
    ruleset = libc.syscall(_LANDLOCK_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        for path in readable:
            _allow(libc, ruleset, path)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return bool(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def python_folders() -> list[Path]:
    """Return where Python, its packages and the system's libraries are: some are imported on call."""
    names = {sys.prefix, sys.base_prefix, sys.exec_prefix, *(part for part in sys.path if part), *_SYSTEM_FOLDERS}
    return [Path(name) for name in names]


def landlock_version() -> int:
    """Return the kernel's version of Landlock, 0 without it."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc().syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)))


@cache
def confinement() -> dict[str, bool]:
    """Return what a child of this process can give up, found out by a child that does: "memory", "network",
    "files".
    """
    command = [sys.executable, "-P", "-m", __name__]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=20, check=True, stdin=subprocess.DEVNULL).stdout
        return {str(name): bool(value) for name, value in json.loads(answer).items()}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {"memory": False, "network": False, "files": False}


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path) -> None:
    try:
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
    except OSError:  # a folder that is not there needs no permission
        return
    try:
        rule = _PathRule(_READ_FILE | (_READ_DIR if path.is_dir() else 0), opened)
        libc.syscall(_LANDLOCK_ADD, ruleset, 1, ctypes.byref(rule), 0)
    finally:
        os.close(opened)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    found = {
        "network": leave_network(),
        "memory": limit_resources(memory_bytes=1 << 28, cpu_seconds=10, file_bytes=1 << 20, open_files=64),
        "files": restrict_files([Path(sys.prefix)]),
    }
    sys.stdout.write(json.dumps(found))
