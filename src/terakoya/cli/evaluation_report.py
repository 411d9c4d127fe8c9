"""Prints an evaluation. Knows the shape of its report, not how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from terakoya.cli.output import print_table, remark, say
from terakoya.cli.texts import _

_RANKING = (("ndcg_at_10", "nDCG@10"), ("recall_at_10", "recall@10"), ("mrr", "MRR"))


def print_evaluation(evaluation: Mapping[str, Any]) -> None:
    """Print the figures of each configuration with their 95% intervals, then how the second compares."""
    report = evaluation["report"]
    if "coefficients" in report:
        _print_calibration(evaluation)
        return
    if "suggested" in report:
        _print_tuning(evaluation)
        return
    configurations = report["configurations"]
    say(_("\n%(set)s: %(count)s questions", set=evaluation["question_set"], count=report["questions"]))
    print_table(("", *(one["name"] for one in configurations)), _rows(configurations), empty="")
    for compared in (report.get("comparison") or {}).values():
        say(verdict_text(configurations[0]["name"], configurations[1]["name"], compared))
    if report["left_out"]:
        remark(_("%(count)s questions could not be judged and were left out.", count=report["left_out"]))


def _print_calibration(evaluation: Mapping[str, Any]) -> None:
    """How well abstention does before, and as fitted, on questions that it was not fitted on."""
    report = evaluation["report"]
    say(_("\n%(set)s: %(count)s questions", set=evaluation["question_set"], count=report["questions"]))
    sides = (report["before"], report["fitted_on_the_other_half"])
    names = {
        "auc": _("abstention, AUC"),
        "kept": _("answered, of those with an answer"),
        "let_through": _("answered, of those without"),
    }
    rows = [(name, *(_interval(side[key]) for side in sides)) for key, name in names.items()]
    print_table(("", _("before"), _("calibrated")), rows, empty="")
    if report["applied"]:
        say(_("The collection decides so from now on."))
    else:
        remark(_("Nothing was changed."))


def _print_tuning(evaluation: Mapping[str, Any]) -> None:
    """What tuning suggests, and the gain on questions that had no part in choosing it."""
    report = evaluation["report"]
    settings = ",".join(f"{name}={value}" for name, value in report["suggested"].items())
    say(_("\n%(set)s: %(count)s questions", set=evaluation["question_set"], count=report["questions"]))
    say(_("Best of %(count)s settings: %(settings)s", count=report["tried"], settings=settings))
    say(verdict_text(_("as it is"), _("tuned"), report["comparison"]["ndcg_at_10"]))
    if report["applied"]:
        say(_("The collection is searched so from now on."))
    else:
        remark(_("Nothing was changed: terakoya evaluate settings COLLECTION --set %(settings)s", settings=settings))


def verdict_text(first: str, second: str, compared: Mapping[str, Any]) -> str:
    """The comparison of one metric in words."""
    if compared["verdict"] == "no_significant_difference":
        return _("No significant difference: %(words)s", words=compared["words"])
    if compared["verdict"] == "better":
        return _("%(second)s is better than %(first)s: %(words)s", first=first, second=second, words=compared["words"])
    return _("%(second)s is worse than %(first)s: %(words)s", first=first, second=second, words=compared["words"])


def _rows(configurations: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    figures = [one["figures"] for one in configurations]
    names = {
        **dict(_RANKING),
        "found_first": _("found first"),
        "answered": _("answered"),
        "correct": _("right answers"),
        "citation_precision": _("citations that support"),
        "refused": _("refused, rightly"),
    }
    rows = [(name, *(_interval(one[key]) for one in figures)) for key, name in names.items()]
    rows.append((_("abstention, AUC"), *(_interval((one["abstention"] or {}).get("auc")) for one in figures)))
    for key, name in (("search", _("search, ms")), ("answer", _("answer, ms"))):
        rows.append((f"{name} (p50 / p95)", *(_spread(one["latency_ms"][key]) for one in figures)))
    return rows


def _interval(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "-"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} .. {figure['high']:.3f})"


def _spread(latency: Mapping[str, Any] | None) -> str:
    return "-" if latency is None else f"{latency['p50']['value']:.0f} / {latency['p95']['value']:.0f}"
