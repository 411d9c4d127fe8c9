"""Which unfinished tasks need a model or a data set, read from what they were asked and what that was resolved to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from terakoya.domain.names import name_key
from terakoya.domain.tasks import FINAL_STATES
from terakoya.storage.tables import TaskRow


def tasks_using(session: Session, resource_id: str, name: str, *, keys: frozenset[str]) -> list[str]:
    """Return ids of unfinished tasks that hold the id anywhere, or the name under one of ``keys``."""
    unfinished = select(TaskRow).where(TaskRow.state.not_in(FINAL_STATES))
    return [
        task.id
        for task in session.scalars(unfinished)
        if any(
            value == resource_id or (key in keys and name_key(value) == name_key(name))
            for key, value in _strings({"request": task.request, "resolved": task.resolved})
        )
    ]


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for inner, part in value.items():
            yield from _strings(part, inner)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part, key)
