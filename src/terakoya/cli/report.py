"""Prints a report card. Knows the shape of ``report.json``, not how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from terakoya.cli.output import duration_text, print_table, say, size_text
from terakoya.cli.texts import _, shared

EXAMPLES_SHOWN = 5
CELL_CHARACTERS = 60


def print_report(report: Mapping[str, Any]) -> None:
    heldout = report["heldout"]
    say(_("\nReport card: %(count)s held-out rows, before and after", count=heldout["examples"]))
    print_table(
        ("", _("before"), _("after"), _("difference (95% interval)")),
        [
            (_("exact match"), *_row(heldout["exact_match"], _percent, _points)),
            (_("loss per token"), *_row(heldout["loss"], _number, _signed)),
        ],
        empty="",
    )
    flips = report.get("flips") or {}
    say(
        _(
            "%(gained)s rows became right, %(lost)s became wrong.",
            gained=flips.get("gained", 0),
            lost=flips.get("lost", 0),
        )
    )
    if examples := report.get("examples"):
        print_table(
            (_("question"), _("expected"), _("before"), _("after")),
            [
                tuple(_cell(example.get(key)) for key in ("prompt", "reference", "before", "after"))
                for example in examples[:EXAMPLES_SHOWN]
            ],
            empty="",
        )
    _print_cost(report.get("cost") or {})
    if verdict := report.get("verdict"):
        say(_verdict_text(verdict))


def _verdict_text(verdict: Mapping[str, Any]) -> str:
    """The verdict in the reader's language; the report's own English for a code that this version does not know."""
    value = _percent if verdict.get("metric") == "exact_match" else _number
    return shared(
        f"verdict.{verdict['code']}.{verdict.get('metric')}",
        otherwise=verdict["text"],
        before=value(verdict.get("before")),
        after=value(verdict.get("after")),
    )


def _print_cost(cost: Mapping[str, Any]) -> None:
    parts = []
    if (seconds := cost.get("seconds")) is not None:
        parts.append(_("%(time)s in all", time=duration_text(seconds)))
    if (seconds := cost.get("training_seconds")) is not None:
        parts.append(_("%(time)s of it training", time=duration_text(seconds)))
    if (rate := cost.get("tokens_per_second")) is not None:
        parts.append(_("%(rate)s tokens/s", rate=f"{rate:,.0f}"))
    if (peak := cost.get("peak_rss_bytes")) is not None:
        parts.append(_("%(size)s of memory at most", size=size_text(peak)))
    if parts:
        say(", ".join(parts))


def _row(metric: Mapping[str, Any], value: Any, difference: Any) -> tuple[str, str, str]:
    change = metric["difference"]
    return (
        value(metric["before"]["value"]),
        value(metric["after"]["value"]),
        f"{difference(change['value'])} ({difference(change['low'])} .. {difference(change['high'])})",
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _cell(value: Any) -> str:
    text = " ".join(str("" if value is None else value).split())
    return text if len(text) <= CELL_CHARACTERS else text[: CELL_CHARACTERS - 1] + "…"
