"""Makes a contract suite for each row of a table, so that a new row is tested without being named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.contract.training_method import TrainingMethodContract


def suites(ways: Mapping[str, Mapping[str, Any]], module: str) -> dict[str, type[TrainingMethodContract]]:
    """Return a test class for each named request, for the globals of the test module ``module``."""
    made = {}
    for way, fields in ways.items():
        name = "Test" + "".join(part.title() for part in way.split())
        made[name] = type(name, (TrainingMethodContract,), {"fields": dict(fields), "__module__": module})
    return made
