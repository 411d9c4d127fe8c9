"""Prints what the check of a file of training data found: bad rows with reason and fix, repeats, overlap, lengths.
Knows the report's JSON and no server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from terakoya.cli.output import print_table, say
from terakoya.cli.texts import _, shared

Report = Mapping[str, Any]
_BAR = 40


def print_report(report: Report) -> None:
    """Print all of it."""
    file, rows = report["file"], report["rows"]
    format = file["format"] + (f" + {file['compression']}" if file["compression"] else "")
    say(f"{file['name'] or '-'}: {format}, {file['encoding']}, {', '.join(report['shapes'])}")
    say(_("%(read)s rows, %(good)s good, %(bad)s bad", **{name: f"{count:,}" for name, count in rows.items()}))
    print_bad_rows(report)
    _print_pairs(report, "repeats", _("%(rows)s rows repeat an earlier row exactly:"))
    _print_pairs(report, "overlap", _("%(rows)s held-out rows have a prompt that a training row has too:"))
    _print_long_answers(report)
    _print_lengths(report["characters"])
    if report["unused_fields"]:
        say(_unused(report))


def findings(report: Report) -> Iterator[str]:
    """Yield, in a sentence each, what a person should know who did not ask for the whole report."""
    rows, encoding = report["rows"], report["file"]["encoding"]
    if encoding not in ("utf-8", "utf-8-sig"):
        yield _("The file was in %(encoding)s; it was converted to UTF-8.", encoding=encoding)
    if rows["bad"]:
        yield _("%(bad)s of %(read)s rows cannot be used and were left out.", bad=rows["bad"], read=rows["read"])
    if len(report["shapes"]) > 1:
        found = ", ".join(f"{name} ({count:,})" for name, count in report["shapes"].items())
        yield _("Rows of several formats were found: %(found)s", found=found)
    if report["unused_fields"]:
        yield _unused(report)
    if repeated := report["repeats"]["rows"]:
        yield _("%(rows)s rows repeat an earlier row exactly; they were kept.", rows=f"{repeated:,}")
    if overlapping := report["overlap"]["rows"]:
        text = _("%(rows)s held-out rows have a prompt that a training row has too; their score will look too good.")
        yield text % {"rows": f"{overlapping:,}"}


def print_bad_rows(report: Report) -> None:
    """Print the bad rows that the report shows, and how many there are in all."""
    shown: Sequence[Mapping[str, Any]] = report["bad_rows"]
    if not shown:
        return
    place = _("line") if report["place"] == "line" else _("row")
    print_table(
        (place, _("reason"), _("fix")),
        [
            (
                f"{note['row']:,}",
                shared(f"problem.{note['code']}", otherwise=note["reason"], **note["values"]),
                shared(f"remedy.{note['code']}", otherwise=note["fix"], **note["values"]),
            )
            for note in shown
        ],
        empty="",
    )
    if (bad := report["rows"]["bad"]) > len(shown):
        say(_("The first %(shown)s of %(bad)s bad rows.", shown=len(shown), bad=f"{bad:,}"))


def _unused(report: Report) -> str:
    fields = ", ".join(f"{name} ({count:,})" for name, count in report["unused_fields"].items())
    return _("Fields that were not read: %(fields)s", fields=fields)


def _print_pairs(report: Report, name: str, headline: str) -> None:
    pairs = report[name]
    if not pairs["rows"]:
        return
    say(headline % {"rows": f"{pairs['rows']:,}"})
    text = ", ".join(f"{pair['row']} = {pair['other']}" for pair in pairs["shown"])
    say(f"  {text}" + (", ..." if pairs["rows"] > len(pairs["shown"]) else ""))


def _print_long_answers(report: Report) -> None:
    long = report["long_answers"]
    if long["rows"]:
        rows = ", ".join(f"{entry['row']} ({entry['characters']:,})" for entry in long["longest"])
        text = _("%(rows)s answers have more than %(characters)s characters; the longest: %(longest)s")
        say(text % {"rows": f"{long['rows']:,}", "characters": f"{long['characters']:,}", "longest": rows})


def _print_lengths(lengths: Mapping[str, Mapping[str, Any]]) -> None:
    for name, each in lengths.items():
        figures = ", ".join(f"{figure} {each[figure]:,}" for figure in ("p50", "p90", "p99", "max"))
        say("\n" + _("Characters of each %(part)s: %(figures)s", part=shared(f"part.{name}"), figures=figures))
        most = max((bin["rows"] for bin in each["histogram"]), default=1)
        width = max((len(f"{bin['end']:,}") for bin in each["histogram"]), default=1)
        for bin in each["histogram"]:
            bar = "#" * max(bin["rows"] > 0, round(_BAR * bin["rows"] / most))
            say(f"  {bin['start']:>{width},} - {bin['end'] - 1:>{width},}  {bar} {bin['rows']:,}")
