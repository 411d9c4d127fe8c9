"""From what each question gave to figures with intervals, and from two configurations to a verdict in words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from terakoya.evaluation.separation import area_under_curve, bootstrap_quantile, compare_pairs, roc_points
from terakoya.evaluation.statistics import Interval, bootstrap_mean, wilson_interval
from terakoya.rag.evaluation.asking import Measured

Json = dict[str, Any]
_DECIMALS = 4
_MILLISECONDS = 1000
METRICS: dict[str, Callable[[Measured], float | None]] = {
    "ndcg_at_10": lambda one: None if one.ranked is None else one.ranked.ndcg,
    "recall_at_10": lambda one: None if one.ranked is None else one.ranked.recall,
    "mrr": lambda one: None if one.ranked is None else one.ranked.reciprocal_rank,
    "correct": lambda one: None if one.correct is None else float(one.correct),
    "citation_precision": lambda one: one.supported_citations / one.citations if one.citations else None,
}
"""What a question is worth by itself; None where that metric says nothing of it. The first decides a comparison."""
NAMES = {
    "ndcg_at_10": "nDCG@10",
    "recall_at_10": "recall@10",
    "mrr": "MRR",
    "correct": "right answers",
    "citation_precision": "citation precision",
}


def figures_of(measured: Sequence[Measured]) -> Json:
    """Return the figures of one configuration; what no question tells of is null."""
    answerable = [one for one in measured if one.ranked is not None]
    return {
        "questions": len(measured),
        **{name: _mean(_values(measured, name)) for name in ("ndcg_at_10", "recall_at_10", "mrr")},
        "found_first": _share([one.ranked.first_rank == 1 for one in answerable if one.ranked is not None]),
        "answered": _share([one.answered for one in answerable if one.answered is not None]),
        "correct": _share([one.correct for one in answerable if one.correct is not None]),
        "citation_precision": _precision(answerable),
        "refused": _share([not one.answered for one in measured if one.ranked is None and one.answered is not None]),
        "abstention": _abstention(measured),
        "latency_ms": {
            "search": _latency([one.search_seconds for one in measured]),
            "answer": _latency([one.answer_seconds for one in measured if one.answer_seconds is not None]),
        },
    }


def comparison_of(names: tuple[str, str], first: Sequence[Measured], second: Sequence[Measured]) -> Json:
    """Return, by metric, how the second configuration differs from the first, and the verdict in words."""
    metrics: Json = {}
    for metric in METRICS:
        pairs = [
            (one, other)
            for one, other in zip(_each(first, metric), _each(second, metric), strict=True)
            if one is not None and other is not None
        ]
        if pairs:
            compared = compare_pairs([one for one, _ in pairs], [other for _, other in pairs])
            metrics[metric] = {
                **compared.to_json(),
                "difference": rounded(compared.difference),
                "p": round(compared.p, _DECIMALS),
            }
            metrics[metric]["words"] = words_of(names, metric, metrics[metric])
    return metrics


def words_of(names: tuple[str, str], metric: str, compared: Json) -> str:
    """Return the verdict as a sentence."""
    difference, what = compared["difference"], NAMES[metric]
    range_text = (
        "too few questions for an interval"
        if difference["low"] is None
        else f"95% interval {difference['low']:+.3f} to {difference['high']:+.3f}"
    )
    facts = (
        f"{what} {difference['value']:+.3f}, {range_text}, p = {compared['p']:.3f}, {compared['examples']} questions"
    )
    if compared["verdict"] == "no_significant_difference":
        return f"no significant difference between {names[0]!r} and {names[1]!r} ({facts})"
    return f"{names[1]!r} is {compared['verdict']} than {names[0]!r} ({facts})"


def _each(measured: Sequence[Measured], metric: str) -> list[float | None]:
    return [METRICS[metric](one) for one in measured]


def _values(measured: Sequence[Measured], metric: str) -> list[float]:
    return [value for value in _each(measured, metric) if value is not None]


def _precision(measured: Sequence[Measured]) -> Json | None:
    """Of all citations together, drawn question by question."""
    cited = [one for one in measured if one.citations]
    if not cited:
        return None
    return rounded(bootstrap_mean([one.supported_citations for one in cited], [one.citations for one in cited]))


def _abstention(measured: Sequence[Measured]) -> Json | None:
    """How well the probability tells questions with an answer from those without: the questions that have none, and
    every other with its answer taken out of what was found.
    """
    held = [one.probability for one in measured if one.ranked is not None]
    absent = [one.probability for one in measured if one.ranked is None]
    taken_out = [one.probability_without for one in measured if one.probability_without is not None]
    lacking = absent + taken_out
    if not held or not lacking:
        return None
    threshold = measured[0].threshold
    return {
        "auc": rounded(area_under_curve(held, lacking)),
        "auc_of_unanswerable": rounded(area_under_curve(held, absent)) if absent else None,
        "threshold": threshold,
        "kept": _share([one.probability >= one.threshold for one in measured if one.ranked is not None]),
        "let_through": _share(
            [one.probability >= one.threshold for one in measured if one.ranked is None]
            + [one.probability_without >= one.threshold for one in measured if one.probability_without is not None]
        ),
        "with_answer": len(held),
        "without_answer": len(absent),
        "answer_taken_out": len(taken_out),
        "roc": roc_points(held, lacking),
    }


def _latency(seconds: Sequence[float]) -> Json | None:
    if not seconds:
        return None
    milliseconds = [_MILLISECONDS * one for one in seconds]
    return {
        name: rounded(bootstrap_quantile(milliseconds, share), decimals=1)
        for name, share in (("p50", 0.5), ("p95", 0.95))
    }


def _mean(values: Sequence[float]) -> Json | None:
    return rounded(bootstrap_mean(values)) if values else None


def _share(outcomes: Sequence[bool]) -> Json | None:
    return rounded(wilson_interval(sum(outcomes), len(outcomes))) if outcomes else None


def rounded(interval: Interval, *, decimals: int = _DECIMALS) -> Json:
    return {name: None if value is None else round(value, decimals) for name, value in interval.to_json().items()}
