"""Which tasks hold a place to work in: so many of a kind at once, on each device where the kind has devices. A task
that died and rests before its next try keeps its place, so that the queue behind it does not overtake it. Knows no
process and no row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from terakoya.domain.tasks import TaskKind


@dataclass(frozen=True, slots=True)
class Place:
    kind: TaskKind
    device: str | None


class Slots:
    def __init__(
        self, at_once: Mapping[TaskKind, int], *, devices: Mapping[TaskKind, Sequence[str]] | None = None
    ) -> None:
        """``at_once``: tasks of a kind, on each of its devices where it has any; 1 for a kind that is not named."""
        self._at_once = at_once
        self._devices = devices or {}
        self._held: dict[str, Place] = {}
        self._resting: set[str] = set()

    @property
    def resting(self) -> frozenset[str]:
        return frozenset(self._resting)

    def free(self, kind: TaskKind) -> Place | None:
        """Return a free place, on the device with the fewest tasks; None if all are taken."""
        devices: Sequence[str | None] = self._devices.get(kind) or (None,)
        places = [Place(kind, device) for device in devices]
        taken = list(self._held.values())
        emptiest = min(places, key=taken.count)  # the first of several
        if None not in devices:
            return emptiest if taken.count(emptiest) < self._at_once.get(kind, 1) else None
        return emptiest if sum(place.kind is kind for place in taken) < self._at_once.get(kind, 1) else None

    def take(self, task_id: str, place: Place) -> None:
        """One that an older version started, on no device in particular, is taken to be on the first."""
        devices = self._devices.get(place.kind)
        if devices and place.device is None:
            place = Place(place.kind, devices[0])
        self._held[task_id] = place

    def rest(self, task_id: str) -> None:
        """Keep the place of a task that will be started again."""
        self._resting.add(task_id)

    def give_back(self, task_id: str) -> None:
        self._held.pop(task_id, None)
        self._resting.discard(task_id)
