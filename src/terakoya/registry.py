"""Names to parts: a table of "module:attribute" strings that are imported only where they are used, plus
what other installed packages add by entry points. Knows nothing of what the parts do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from terakoya.exceptions import InvalidConfig

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """Look up a part by name; our own table wins over an entry point of the same name."""

    def __init__(self, kind: str, table: Mapping[str, str], *, group: str) -> None:
        self._kind = kind
        self._table = dict(table)
        self._group = group

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._table, *(point.name for point in entry_points(group=self._group))}))

    def __contains__(self, name: str) -> bool:
        return name in set(self)

    def load(self, name: str) -> Part:
        """Import and return the part. Raises: InvalidConfig naming what is registered."""
        if name in self._table:
            module, _, attribute = self._table[name].partition(":")
            return cast(Part, getattr(import_module(module), attribute))
        for point in entry_points(group=self._group, name=name):
            return cast(Part, point.load())
        raise InvalidConfig(f"unknown {self._kind} {name!r}; registered: {', '.join(self)}")
