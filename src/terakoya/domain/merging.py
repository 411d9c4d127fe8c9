"""Nested settings laid over others. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``under`` with every value that ``over`` has in its place, group by group."""
    result = dict(under)
    for name, value in over.items():
        below = result.get(name)
        both_groups = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[name] = merged(below, value) if both_groups else value  # type: ignore[arg-type]
    return result
