"""The report card of a run: is the model better at what it was taught, by how much, and how sure is that? Pure
arithmetic on two sets of scores; the result is plain JSON that is written once as ``report.json``.

    version        2
    model, dataset, strategy, configuration, cost   as given
    heldout        examples: how many answers were judged
                   answers: "labels" | "short" | "text", what the expected ones are; null where nothing is asked, of
                   running text, and then exact_match, mcnemar_p are null too
                   exact_match, loss: {before, after, difference}, each {value, low, high}: 95% intervals, low and
                   high null where one example allows none; loss is per label token, in nats; difference is after
                   minus before on the same examples
                   mcnemar_p: that flips in both directions are equally likely
                   chrf, token_f1: the same of 0 to 1, where the answers are texts, on the ``written`` answers that were
                   written out before and after; else null
                   preference_accuracy, preference_margin, preference_p, moved_right: of preference pairs only, as
                   ``preference.py`` says
    labels         where the answers are labels, up to 50 {label, examples, before, after}: how many were right, those
                   that lost most first; else null
    canaries       one a language: {language, version, passages, is_applicable, before, after, change, code}; before
                   and after in bits per byte of general text, change relative to before; not applicable, and without
                   an after, where the model had none of the language
    forgetting     code: the worst of the canaries' ("worse" | "slightly_worse" | "no_clear_change" | "better"); text:
                   that in English
    flips          gained, lost: answers that became right, or wrong
    examples       up to 50 {row, prompt, reference, before, after, before_exact, after_exact, before_cut, after_cut},
                   flips first; before or after is null where that answer was only scored; cut: it went on
    verdict        code: "better" | "worse" | "no_clear_difference"; metric, which decided: "exact_match" | "loss" |
                   "preference_accuracy"; text: that in English; examples, before, after, low, high: the figures in
                   the text
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from terakoya.data.tokenization import EncodedExample
from terakoya.evaluation.canaries import forgetting
from terakoya.evaluation.heldout import AnswerKind, HeldoutScores, answer_kind, text_sample
from terakoya.evaluation.metrics import chrf, normalise_answer, token_f1
from terakoya.evaluation.preference import preference_figures
from terakoya.evaluation.preference import to_json as pairs_to_json
from terakoya.evaluation.statistics import (
    Interval,
    bootstrap_mean,
    mcnemar_p,
    paired_difference,
    wilson_interval,
)

VERSION = 2
MAX_EXAMPLES = 50
MAX_LABELS = 50
_KEPT_FOR_WRONG = 10
_SIGNIFICANT = 0.05


def before_key(model_sha256: str, dataset_sha256: str, settings: Mapping[str, Any]) -> str:
    """Return the name under which the scores of an unchanged model are cached.

    ``settings`` must hold all else that they depend on: the split, the limits, the number type.
    """
    parts = [VERSION, model_sha256, dataset_sha256, dict(settings)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def build_report(
    before: HeldoutScores,
    after: HeldoutScores,
    encoded: Sequence[EncodedExample],
    *,
    canaries: Sequence[Mapping[str, Any]],
    model: Mapping[str, Any],
    dataset: Mapping[str, Any],
    strategy: str,
    cost: Mapping[str, Any],
    configuration: Mapping[str, Any],
    seed: int = 0,
) -> dict[str, Any]:
    """Return the report of scores that are aligned with ``encoded``; ``seed`` is the bootstrap's."""
    gained, lost = _flips(before, after)
    exact_match = _exact_match(before, after) if after.exact else None
    loss = _loss(before, after, seed)
    p = mcnemar_p(len(gained), len(lost))
    kind = answer_kind(encoded) if after.exact else None
    pairs = preference_figures(before, after, seed=seed) if after.worse_loss_sums else None
    return {
        "version": VERSION,
        "model": dict(model),
        "dataset": dict(dataset),
        "strategy": strategy,
        "heldout": {
            "examples": len(after.loss_sums),
            "answers": kind and str(kind),
            "exact_match": exact_match and {side: interval.to_json() for side, interval in exact_match.items()},
            "loss": {side: interval.to_json() for side, interval in loss.items()},
            "mcnemar_p": p if exact_match else None,
            **_text_scores(before, after, encoded, kind, seed),
            **(pairs_to_json(pairs) if pairs else {}),
        },
        "labels": _labels(before, after, encoded) if kind is AnswerKind.LABELS else None,
        "canaries": [dict(canary) for canary in canaries],
        "forgetting": forgetting(canaries),
        "flips": {"gained": len(gained), "lost": len(lost)},
        "examples": [_example(index, before, after, encoded[index]) for index in _shown(before, after)],
        "cost": dict(cost),
        "verdict": _verdict(_decisive(exact_match, loss, p, pairs, before, after, kind), len(after.loss_sums)),
        "configuration": dict(configuration),
    }


def _exact_match(before: HeldoutScores, after: HeldoutScores) -> dict[str, Interval]:
    examples = len(before.exact)
    return {
        "before": wilson_interval(sum(before.exact), examples),
        "after": wilson_interval(sum(after.exact), examples),
        "difference": paired_difference(before.exact, after.exact),
    }


def _loss(before: HeldoutScores, after: HeldoutScores, seed: int) -> dict[str, Interval]:
    changes = [new - old for old, new in zip(before.loss_sums, after.loss_sums, strict=True)]
    return {
        "before": bootstrap_mean(before.loss_sums, before.label_counts, seed=seed),
        "after": bootstrap_mean(after.loss_sums, after.label_counts, seed=seed),
        "difference": bootstrap_mean(changes, after.label_counts, seed=seed),
    }


def _text_scores(
    before: HeldoutScores, after: HeldoutScores, encoded: Sequence[EncodedExample], kind: AnswerKind | None, seed: int
) -> dict[str, Any]:
    """Of the answers in the fair sample that were written out, or were the reference, on both sides."""
    if kind is not AnswerKind.TEXT:
        return {"written": None, "chrf": None, "token_f1": None}
    pairs = [
        (old, new, encoded[index].answer)
        for index in text_sample(encoded)
        if (old := before.predictions[index]) is not None and (new := after.predictions[index]) is not None
    ]
    scores: dict[str, Any] = {"written": len(pairs)}
    for name, score in (("chrf", chrf), ("token_f1", token_f1)):
        sides = [[score(pair[side], pair[2]) for pair in pairs] for side in (0, 1)]
        changes = [new - old for old, new in zip(*sides, strict=True)]
        figures = {"before": sides[0], "after": sides[1], "difference": changes}
        scores[name] = {key: bootstrap_mean(values, seed=seed).to_json() for key, values in figures.items()}
    return scores


def _labels(before: HeldoutScores, after: HeldoutScores, encoded: Sequence[EncodedExample]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for old, new, example in zip(before.exact, after.exact, encoded, strict=True):
        label = normalise_answer(example.answer)
        row = rows.setdefault(label, {"label": label, "examples": 0, "before": 0, "after": 0})
        row["examples"] += 1
        row["before"] += old
        row["after"] += new
    worst = sorted(rows.values(), key=lambda row: (row["after"] - row["before"], row["after"] / row["examples"]))
    return worst[:MAX_LABELS]


def _flips(before: HeldoutScores, after: HeldoutScores) -> tuple[list[int], list[int]]:
    pairs = list(enumerate(zip(before.exact, after.exact, strict=True)))
    gained = [index for index, (old, new) in pairs if new and not old]
    lost = [index for index, (old, new) in pairs if old and not new]
    return gained, lost


def _shown(before: HeldoutScores, after: HeldoutScores) -> list[int]:
    """Flips first, the lost before the gained, but room is left for what is still wrong. Within a kind, what can be
    read on both sides comes first.
    """

    def unread_last(indices: Sequence[int]) -> list[int]:
        return sorted(indices, key=lambda i: (before.predictions[i] is None) + (after.predictions[i] is None))

    gained, lost = (unread_last(indices) for indices in _flips(before, after))
    unflipped = set(range(len(after.exact))) - {*gained, *lost}
    wrong = unread_last(sorted(index for index in unflipped if not after.exact[index]))
    right = sorted(index for index in unflipped if after.exact[index])
    first = MAX_EXAMPLES - _KEPT_FOR_WRONG
    flips = [*lost, *gained]
    return [*flips[:first], *wrong[:_KEPT_FOR_WRONG], *flips[first:], *wrong[_KEPT_FOR_WRONG:], *right][:MAX_EXAMPLES]


def _example(index: int, before: HeldoutScores, after: HeldoutScores, encoded: EncodedExample) -> dict[str, Any]:
    return {
        "row": encoded.row,
        "prompt": encoded.prompt,
        "reference": encoded.answer,
        "before": before.predictions[index],
        "after": after.predictions[index],
        "before_exact": before.exact[index],
        "after_exact": after.exact[index],
        "before_cut": before.cut[index],
        "after_cut": after.cut[index],
    }


@dataclass(frozen=True, slots=True)
class _Decisive:
    """The metric that a verdict is by, and how it is written."""

    metric: str
    name: str
    figures: Mapping[str, Interval]
    p: float | None = None
    """Of the flips, where the metric is a share."""
    rises: bool = True
    """Whether more is better."""

    @property
    def is_clear(self) -> bool:
        return self.figures["difference"].excludes_zero and (self.p is None or self.p < _SIGNIFICANT)

    @property
    def improved(self) -> bool:
        return (self.figures["difference"].value > 0) is self.rises


def _decisive(
    exact_match: Mapping[str, Interval] | None,
    loss: Mapping[str, Interval],
    p: float,
    pairs: Mapping[str, Any] | None,
    before: HeldoutScores,
    after: HeldoutScores,
    kind: AnswerKind | None,
) -> _Decisive:
    """Of pairs how many are put right; else exact match where the answers are short and either side got one right,
    else the loss: of texts it is the finer measure, chrF and F1 stand beside it.
    """
    if pairs is not None:
        accuracy = pairs["preference_accuracy"]
        return _Decisive("preference_accuracy", "Preference accuracy", accuracy, pairs["preference_p"])
    if exact_match is not None and kind is not AnswerKind.TEXT and any((*before.exact, *after.exact)):
        name = "Label accuracy" if kind is AnswerKind.LABELS else "Exact match"
        return _Decisive("exact_match", name, exact_match, p)
    return _Decisive("loss", "Loss per token", loss, rises=False)


def _verdict(decisive: _Decisive, examples: int) -> dict[str, Any]:
    difference = decisive.figures["difference"]
    code = ("better" if decisive.improved else "worse") if decisive.is_clear else "no_clear_difference"
    figures = {
        "examples": examples,
        "before": decisive.figures["before"].value,
        "after": decisive.figures["after"].value,
        "low": difference.low,
        "high": difference.high,
    }
    return {"code": code, "metric": decisive.metric, "text": _in_words(code, decisive, figures), **figures}


def _in_words(code: str, decisive: _Decisive, figures: Mapping[str, Any]) -> str:
    difference = decisive.figures["difference"]
    is_share = decisive.p is not None
    unit, scale, form, percent = (" points", 100, ".1f", "%") if is_share else ("", 1, ".3f", "")
    start, end = (f"{figures[side] * scale:{form}}{percent}" for side in ("before", "after"))
    opening = {"better": "Better", "worse": "Worse", "no_clear_difference": "No clear difference"}[code]
    examples = "1 held-out example" if figures["examples"] == 1 else f"{figures['examples']:,} held-out examples"
    sureness = "too few for an interval"
    if difference.low is not None and difference.high is not None:
        low, high = (f"{limit * scale:+{form}}" for limit in (difference.low, difference.high))
        sureness = f"a difference of {low} to {high}{unit} with 95% confidence"
    return f"{opening}. {decisive.name} on {examples} went from {start} to {end}: {sureness}."
