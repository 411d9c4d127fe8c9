"""Gives freed memory back to the system. The C library keeps what it has freed in pieces for itself, which after
hundreds of small tensors is hundreds of megabytes.
"""

from __future__ import annotations

import ctypes
import gc


def return_freed_memory() -> None:
    """Collect what only refers to itself, and return free pages to the system, where the C library can (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
