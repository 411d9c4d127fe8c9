"""Worker processes as the operating system sees them: started in a group of their own, told from a later process with
the same pid, waited for whether they are our children or not, signalled as a group. Knows nothing of tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from terakoya.domain.tasks import ProcessIdentity
from terakoya.storage.worker_io import GATE_VARIABLE

_POLL_SECONDS = 0.25
_OOM_SCORE = "500"
_children: dict[ProcessIdentity, subprocess.Popen[bytes]] = {}
"""Those this process started: only their parent is given their exit code, and must reap them."""


@dataclass(frozen=True, slots=True)
class StartedWorker:
    """A worker that waits at its gate."""

    identity: ProcessIdentity
    _gate: int

    def release(self) -> None:
        """Let it begin."""
        try:
            os.write(self._gate, b"\n")
        except BrokenPipeError:
            pass  # it has died already; whoever waits for it will see
        finally:
            os.close(self._gate)

    def dismiss(self) -> None:
        """Let it leave without having begun."""
        os.close(self._gate)


def start_worker(module: str, task_dir: Path, output: Path, environment: Mapping[str, str]) -> StartedWorker:
    """Start ``python -m module task_dir`` as leader of a new session, its output appended to a file."""
    gate_read, gate_write = os.pipe()
    try:
        with output.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(task_dir)],  # -P: the task's directory is not on sys.path
                cwd=task_dir,
                env={**environment, GATE_VARIABLE: str(gate_read)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(gate_read,),
            )
    except BaseException:
        os.close(gate_write)
        raise
    finally:
        os.close(gate_read)
    identity = identity_of(child.pid)
    _children[identity] = child
    if sys.platform == "linux":
        # Short of memory, the kernel takes the trainer, not the web process. It may be dead, or a sandbox forbid it.
        with contextlib.suppress(OSError):
            Path(f"/proc/{child.pid}/oom_score_adj").write_text(_OOM_SCORE)
    return StartedWorker(identity, gate_write)


@cache
def boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else str(int(psutil.boot_time()))


def identity_of(pid: int) -> ProcessIdentity:
    """Return what tells this process from a later one with its pid; one that has gone already is nobody's."""
    _, started_at = _state_and_start(pid) or ("X", 0.0)
    return ProcessIdentity(boot_id(), pid, started_at)


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether this very process still runs; a zombie does not."""
    found = _state_and_start(identity.pid)
    return (
        identity.boot_id == boot_id() and found is not None and found[0] not in "ZX" and found[1] == identity.started_at
    )


def age_seconds(identity: ProcessIdentity) -> float:
    """Return for how long the process has been there; 0 for one of an earlier boot."""
    if identity.boot_id != boot_id():
        return 0.0
    now = time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.time()
    return max(now - identity.started_at, 0.0)


async def wait_for_exit(identity: ProcessIdentity) -> int | None:
    """Return the exit code (negative: the signal) once it has ended; None where only its parent was told."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return _exit_code(identity)
    except (AttributeError, OSError):  # not Linux, or a sandbox that forbids it
        while is_alive(identity):  # noqa: ASYNC110  there is nothing to be told by
            await asyncio.sleep(_POLL_SECONDS)
        return _exit_code(identity)
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        if is_alive(identity):  # asked after opening: the descriptor is this process's, not a later one's
            loop.add_reader(descriptor, readable.set)
            await readable.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return _exit_code(identity)


def _exit_code(identity: ProcessIdentity) -> int | None:
    child = _children.pop(identity, None)
    return None if child is None else child.wait()


def signal_group(identity: ProcessIdentity, number: signal.Signals) -> None:
    """Signal every process of the worker's group, also after the worker itself has ended."""
    if not group_is_empty(identity):
        with contextlib.suppress(ProcessLookupError):  # gone between the two lines
            os.killpg(identity.pid, number)


def group_is_empty(identity: ProcessIdentity) -> bool:
    """Whether no live process is left of it. A group whose number a later process took over is not ours: empty."""
    if identity.boot_id != boot_id():
        return True
    leader = _state_and_start(identity.pid)
    if leader is not None and leader[1] != identity.started_at:
        return True
    return not any(_is_member(pid, identity.pid) for pid in psutil.pids())


def _is_member(pid: int, group: int) -> bool:
    try:
        if os.getpgid(pid) != group:
            return False
    except (ProcessLookupError, PermissionError):
        return False
    found = _state_and_start(pid)
    return found is not None and found[0] not in "ZX"


def _state_and_start(pid: int) -> tuple[str, float] | None:
    """Return the kernel's state letter and start time, None if there is no such process.

    On Linux from /proc: psutil's start time is wall-clock time and moves when the clock is set.
    """
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat[stat.rindex(")") + 2 :].split()
        return fields[0], int(fields[19]) / os.sysconf("SC_CLK_TCK")
    try:
        process = psutil.Process(pid)
        return ("Z" if process.status() == psutil.STATUS_ZOMBIE else "R"), process.create_time()
    except psutil.NoSuchProcess:
        return None
