"""How often in a row a task was ended without getting further, read from its own log, and how long to wait before the
next try. A death after progress is the first of a new row: what gets on may be interrupted any number of times.
Knows no process and no row.
"""

from __future__ import annotations

from collections.abc import Iterable

from terakoya.domain.events import INTERRUPTED, RESTARTED, WAITING, Event, EventType, Phase

LONGEST_PAUSE_SECONDS = 300.0


def restarts_in_a_row(events: Iterable[Event]) -> int:
    """Return how often its worker was started again since its newest checkpoint, or since its last end."""
    reached = -1
    died: set[int] = set()
    for event in events:
        if event["type"] == EventType.FINISHED:
            died.clear()
        elif event["type"] == EventType.CHECKPOINT and event.get("step", -1) > reached:
            reached = event["step"]
            died.clear()
        elif event["type"] == EventType.WARNING and event.get("code") == RESTARTED:
            died.add(event["attempt"])  # said twice if the server ended between saying and doing
    return len(died)


def interruptions_in_a_row(events: Iterable[Event], attempt: int) -> int:
    """Return how often the web process ended while at this task of its own since that last got anywhere new.

    One that ended while the task only waited is not the task's doing and is not counted.
    """
    reached, deaths, waits = set(), 0, False
    for event in events:
        if event["attempt"] != attempt:
            continue
        place = (event.get("phase"), event.get("done"))
        if event["type"] == EventType.PHASE and place not in reached:
            reached.add(place)
            deaths = 0
        elif event["type"] == EventType.WARNING and event.get("code") == INTERRUPTED:
            deaths += not waits
        waits = _says_it_waits(event)
    return deaths


def is_waiting(events: Iterable[Event], attempt: int) -> bool:
    """Whether the last that was heard of the attempt is that it waits."""
    last = None
    for event in events:
        if event["attempt"] == attempt:
            last = event
    return last is not None and _says_it_waits(last)


def _says_it_waits(event: Event) -> bool:
    """Embedding is waiting too: the model server computes."""
    if event["type"] == EventType.PHASE:
        return bool(event.get("phase") == Phase.EMBEDDING)
    return event["type"] == EventType.WARNING and event.get("code") == WAITING


def pause_before_restart(deaths: int, *, first_seconds: float) -> float:
    """Twice as long after each death, up to LONGEST_PAUSE_SECONDS."""
    return float(min(first_seconds * 2.0 ** min(deaths - 1, 30), LONGEST_PAUSE_SECONDS))
