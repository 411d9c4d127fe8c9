"""One budget of bytes for everything the model server keeps open, whichever engine opened it: least recently used out
first. Knows nothing of models.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Protocol

from terakoya.exceptions import Unavailable

MIB = 2**20


class Holder(Protocol):
    """Whoever keeps things open. Both are called under ``Budget.lock``."""

    def held_bytes(self) -> int: ...

    def oldest(self, at_work: object | None) -> tuple[int, Callable[[], None]] | None:
        """Return when its oldest unused thing was last used, and what drops it; None if all are in use.

        ``at_work``: the thing the caller itself holds, of which parts may go.
        """
        ...


class Budget:
    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.lock = threading.RLock()
        """Guards what every holder keeps; nothing slow is done under it but dropping."""
        self._holders: list[Holder] = []
        self._uses = itertools.count()

    def join(self, holder: Holder) -> None:
        self._holders.append(holder)

    def tick(self) -> int:
        """Return the next moment of use."""
        return next(self._uses)

    @property
    def used_bytes(self) -> int:
        with self.lock:
            return sum(holder.held_bytes() for holder in self._holders)

    def make_room(self, name: str, needed: int, *, at_work: object | None = None) -> None:
        """Drop what is unused until ``needed`` bytes fit. Raises: Unavailable if they do not beside what is in use."""
        with self.lock:
            while self.used_bytes + needed > self.size_bytes:
                unused = [found for holder in self._holders if (found := holder.oldest(at_work)) is not None]
                if not unused:
                    raise Unavailable(
                        f"the model {name!r} needs {needed // MIB} MiB, and {self.used_bytes // MIB} of the "
                        f"model server's {self.size_bytes // MIB} MiB are in use; raise TERAKOYA_MODEL_CACHE_BYTES"
                    )
                _, drop = min(unused, key=lambda found: found[0])
                drop()
