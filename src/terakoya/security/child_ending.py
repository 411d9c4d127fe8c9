"""How a confined child ended, in words for the person whose file it read. Knows no child in particular."""

from __future__ import annotations

import signal
from typing import BinaryIO

_OUT_OF_MEMORY_SIGNALS = (signal.SIGABRT, signal.SIGTRAP, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS)
"""How native code ends when an allocation fails; also how it ends on a defect."""
_TAIL_BYTES = 4096
_LINE_CHARACTERS = 300


def ending(code: int, last_line: str, *, child: str, article: str, memory_bytes: int) -> str:
    """Return what became of ``child``, such as "parser"; ``code`` is its exit code, negative for a signal."""
    if code > 0:
        return f"the {child} ended with exit code {code}" + (f": {last_line}" if last_line else "")
    number = -code
    if number == signal.SIGXCPU:
        return f"the {child} was stopped: it computed for longer than it may"
    if number == signal.SIGKILL:
        return f"the {child} was killed, as happens when the machine is short of memory"
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number in _OUT_OF_MEMORY_SIGNALS:
        mib = memory_bytes >> 20
        limit = f"the {mib} MiB {article} {child} may use"
        return f"the {child} crashed ({name}): the file is damaged, or needs more than {limit}"
    return f"the {child} crashed ({name})"


def last_line_of(log: BinaryIO) -> str:
    """Return the last line of a child's log, cut to what an error message has room for."""
    log.seek(max(0, log.seek(0, 2) - _TAIL_BYTES))
    lines = log.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1][:_LINE_CHARACTERS] if lines else ""
