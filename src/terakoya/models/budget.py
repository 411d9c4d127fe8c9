"""One budget of bytes for everything the model server keeps open, whichever engine opened it: least recently used out
first. It also keeps off the memory that others have been promised. Knows nothing of models, nor of who the others are.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Promised:
    """What of the machine's free memory is going to be taken by others."""

    free_bytes: int
    promised_bytes: int

    @property
    def left_bytes(self) -> int:
        return self.free_bytes - self.promised_bytes


class Budget:
    def __init__(self, size_bytes: int, *, promised: Callable[[], Promised | None] = lambda: None) -> None:
        """``promised``: asked before anything is opened; None while nothing is."""
        self.size_bytes = size_bytes
        self.lock = threading.RLock()
        """Guards what every holder keeps; nothing slow is done under it but dropping."""
        self._promised = promised
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
        """Drop what is unused until ``needed`` bytes fit into the budget, and into what others leave.

        Raises: Unavailable if they do not beside what is in use, or what training was promised.
        """
        with self.lock:
            while self.used_bytes + needed > self.size_bytes:
                if not self._drop_oldest(at_work):
                    raise Unavailable(
                        f"the model {name!r} needs {needed // MIB} MiB, and {self.used_bytes // MIB} of the "
                        f"model server's {self.size_bytes // MIB} MiB are in use; raise TERAKOYA_MODEL_CACHE_BYTES"
                    )
            while (others := self._promised()) is not None and needed > others.left_bytes:
                if not self._drop_oldest(at_work):
                    raise Unavailable(
                        f"the model {name!r} needs {needed // MIB} MiB; {others.free_bytes // MIB} MiB of memory are "
                        f"free, and training is going to take {others.promised_bytes // MIB} of them; ask again when "
                        "it has ended, or pause it"
                    )

    def give_way(self) -> int:
        """Drop what is unused, the oldest first, until others can have what they were promised; return how many."""
        dropped = 0
        with self.lock:
            while (others := self._promised()) is not None and others.left_bytes < 0 and self._drop_oldest(None):
                dropped += 1
        return dropped

    def _drop_oldest(self, at_work: object | None) -> bool:
        """Return whether there was something to drop."""
        unused = [found for holder in self._holders if (found := holder.oldest(at_work)) is not None]
        if unused:
            _, drop = min(unused, key=lambda found: found[0])
            drop()
        return bool(unused)
