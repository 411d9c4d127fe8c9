"""Prints a report card. Knows the shape of ``report.json``, not how it came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from terakoya.cli.output import duration_text, print_table, say, size_text
from terakoya.cli.texts import _, shared

EXAMPLES_SHOWN = 5
CELL_CHARACTERS = 60
_SHARES = ("exact_match", "preference_accuracy")


def print_report(report: Mapping[str, Any]) -> None:
    heldout = report["heldout"]
    say(_("\nReport card: %(count)s held-out rows, before and after", count=heldout["examples"]))
    print_table(
        ("", _("before"), _("after"), _("difference (95% interval)")),
        [
            *_answer_rows(heldout),
            *_text_rows(heldout),
            (_("loss per token"), *_row(heldout["loss"], _number, _signed)),
            *_canary_rows(report.get("canaries") or ()),
        ],
        empty="",
    )
    if heldout["exact_match"]:
        _print_answers(report)
    _print_cost(report.get("cost") or {})
    if verdict := report.get("verdict"):
        say(_verdict_text(verdict))
    if report.get("canaries"):
        say(" ".join(map(_canary_text, report["canaries"])))


def _answer_rows(heldout: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Of running text there are none, of preference pairs there are more."""
    rows: list[tuple[str, ...]] = []
    if heldout["exact_match"]:
        name = _("label accuracy") if heldout.get("answers") == "labels" else _("exact match")
        rows.append((name, *_row(heldout["exact_match"], _percent, _points)))
    if heldout.get("preference_accuracy"):
        rows.append((_("better answer preferred"), *_row(heldout["preference_accuracy"], _percent, _points)))
        rows.append((_("by how much, per token"), *_row(heldout["preference_margin"], _signed, _signed)))
    return rows


def _text_rows(heldout: Mapping[str, Any]) -> list[tuple[str, ...]]:
    names = (("chrf", "chrF"), ("token_f1", _("token F1")))
    return [(name, *_row(heldout[key], _number, _signed)) for key, name in names if heldout.get(key)]


def _canary_rows(canaries: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Bits per byte, and the change as a share of what it was."""
    return [
        (
            _("general %(language)s, bits per byte", language=shared(f"language.{canary['language']}")),
            _number(canary["before"]["value"]),
            _number(canary["after"]["value"]),
            f"{_change(canary['change']['value'])} "
            f"({_change(canary['change']['low'])} .. {_change(canary['change']['high'])})",
        )
        for canary in canaries
        if canary["is_applicable"]
    ]


def _canary_text(canary: Mapping[str, Any]) -> str:
    """What became of general text in this language; an unknown code goes by its name."""
    change = canary.get("change") or {}
    return shared(
        f"canary.{canary['code']}",
        language=shared(f"language.{canary['language']}"),
        change=_change(change.get("value")),
        before=f"{canary['before']['value']:.2f}",
    )


def _change(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}%"


def _print_answers(report: Mapping[str, Any]) -> None:
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


def _verdict_text(verdict: Mapping[str, Any]) -> str:
    """The verdict in the reader's language; the report's own English for a code that this version does not know."""
    value = _percent if verdict.get("metric") in _SHARES else _number
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
