"""Prints the points between the weights before and after a run, with their scores. Knows the result's shape only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from terakoya.cli.output import print_table, say
from terakoya.cli.texts import _, shared


def print_points(result: Mapping[str, Any]) -> None:
    """One row a point: of every task loss and exact answers, of general text bits a byte."""
    points = result["points"]
    tasks = [task["name"] for task in points[0]["tasks"]]
    languages = [each["language"] for each in points[0]["general"]]
    header = (
        _("point"),
        *(_("%(task)s: loss, exact", task=name) for name in tasks),
        *(_("general %(language)s, bits per byte", language=shared(f"language.{language}")) for language in languages),
    )
    rows = [
        (
            f"{point['share']:g}" + (" *" if point["share"] == result.get("kept") else ""),
            *(f"{task['loss']:.3f}, {100 * task['exact']:.1f}%" for task in point["tasks"]),
            *(f"{each['bits_per_byte']:.3f}" for each in point["general"]),
        )
        for point in points
    ]
    print_table(header, rows, empty="")
    if result.get("kept") is None:
        say(_("0 is before the run, 1 after it. --keep POINT registers one as a model."))
    for name in result.get("missing") or ():
        say(_("The data set %(name)s is deleted, so its task is not scored.", name=name))
