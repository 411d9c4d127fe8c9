"""A chain's matrix as tables: a row after each task, a column for each task, and what is read off it. Knows the API's
answer; asks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from terakoya.cli.output import duration_text, print_table, say, size_text
from terakoya.cli.texts import _


def print_matrix(found: Mapping[str, Any]) -> None:
    """Print each measure with its intervals of 95%."""
    titles = {
        "exact_match": _("Answers that are exactly right"),
        "likelihood": _("The right label is the likeliest"),
        "loss": _("Loss, nats a label (lower is better)"),
    }
    if not found["measures"]:
        say(_("No task of this chain has held-out rows that were kept to be scored on."))
    for name, measure in found["measures"].items():
        say(titles.get(name, name))
        _print_measure(found, measure, with_canaries=name == "loss")
    for cost in found["costs"][-1:]:
        if cost is not None:
            say(
                _(
                    "Scored again in %(scoring)s after training for %(training)s, %(memory)s of memory at most",
                    scoring=duration_text(cost["seconds"]),
                    training=duration_text(cost["training_seconds"]),
                    memory=size_text(cost["peak_bytes"]),
                )
            )


def _print_measure(found: Mapping[str, Any], measure: Mapping[str, Any], *, with_canaries: bool) -> None:
    less = measure["less_is_better"]
    tasks, canaries = found["tasks"], found["canaries"] if with_canaries else []
    general = [_("general %(language)s, bits per byte", language=each["language"]) for each in canaries]
    rows = []
    for i, cells in enumerate(measure["r"]):
        after = tasks[i - 1]["name"] if i else _("before")
        shown = [
            _cell(value, measure["intervals"][i][j], less)
            if value is not None
            else ("" if j > i else _("not measured"))
            for j, value in enumerate(cells)
        ]
        bits = [_number(each["bits_per_byte"][i]) for each in canaries]
        rows.append((f"{i}", after, *shown, *bits))
    names = [f"{number} {task['name']}" for number, task in enumerate(tasks, start=1)]
    print_table((_("after"), "", *names, *general), rows, empty="")
    figures = (("ACC", "acc", False), ("BWT", "bwt", True), ("FWT", "fwt", True), ("LA", "la", False))
    parts = [_figure(name, measure[key], less, change) for name, key, change in figures]
    parts.insert(3, _figure(_("forgetting"), measure["forgetting"], less, True))
    say("  ".join(parts) + "\n")


def _cell(value: float, interval: Mapping[str, Any] | None, less: bool) -> str:
    if interval is None or interval["low"] is None:
        return _value(value, less)
    return f"{_value(value, less)} ({_value(interval['low'], less)} .. {_value(interval['high'], less)})"


def _figure(name: str, interval: Mapping[str, Any] | None, less: bool, change: bool) -> str:
    if interval is None:
        return f"{name} -"
    text = _change if change else _value
    if interval["low"] is None:
        return f"{name} {text(interval['value'], less)}"
    return f"{name} {text(interval['value'], less)} ({text(interval['low'], less)} .. {text(interval['high'], less)})"


def _value(value: float, less: bool) -> str:
    return f"{value:.3f}" if less else f"{value:.1%}"


def _change(value: float, less: bool) -> str:
    """In points where it is of shares."""
    return f"{value:+.3f}" if less else f"{100 * value:+.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
