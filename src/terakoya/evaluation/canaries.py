"""What a run does to the language a model knew before: its loss on bundled passages of general text, English and
Japanese, in bits per byte, which compares across tokenizers. Knows modules and tokenizers, not training.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Self

from torch import nn

from terakoya.data.tokenization import EncodedExample
from terakoya.evaluation.likelihood import row_losses
from terakoya.evaluation.statistics import Interval, bootstrap_mean

LANGUAGES = ("en", "ja")
KNOWN_BELOW_BITS = {"en": math.inf, "ja": 2.25}
"""A model that needs more bits a byte than this has none of the language, so it has none to forget.

For Japanese: a model of character trigrams, counted in 0.43 million characters of encyclopedia text, needs 2.33 on
these passages, one of bigrams 2.39, and SmolLM2 135M, which was trained on English, 2.58. What does not beat counting
pairs of characters knows no Japanese.
"""
WORSE_FROM = 0.05
"""A clear rise of the loss by at least this share is called worse, a smaller one slightly worse."""
Progress = Callable[[int, int], None]
"""Hears (passages done, passages); what it raises ends the evaluation."""


@dataclass(frozen=True, slots=True)
class CanarySet:
    language: str
    passages: tuple[str, ...]
    version: str
    """Of the text: scores of another version do not compare."""


@dataclass(frozen=True, slots=True)
class CanaryScores:
    language: str
    nats: list[float]
    """Cross-entropy summed over each passage."""
    sizes: list[int]
    """UTF-8 bytes of each."""

    @property
    def bits_per_byte(self) -> float:
        return math.fsum(self.nats) / math.log(2) / sum(self.sizes)

    @property
    def is_known(self) -> bool:
        """Whether the model has any of this language."""
        return self.bits_per_byte < KNOWN_BELOW_BITS[self.language]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Raises: KeyError, TypeError if it is not what ``to_json`` gave."""
        return cls(str(fields["language"]), list(fields["nats"]), list(fields["sizes"]))


@cache
def canary_set(language: str) -> CanarySet:
    """The bundled passages, one a paragraph."""
    text = (files("terakoya") / "samples" / "canaries" / f"{language}.txt").read_text(encoding="utf-8")
    passages = tuple(part.strip() for part in text.split("\n\n") if part.strip())
    return CanarySet(language, passages, hashlib.sha256(text.encode()).hexdigest()[:12])


def evaluate_canaries(
    module: nn.Module,
    tokenizer: Any,
    canaries: CanarySet,
    *,
    batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> CanaryScores:
    """Score every passage under the module as it is. Raises: TrainingError if a loss is not a finite number."""
    rows = passage_rows(canaries.passages, tokenizer)
    nats = row_losses(module, rows, of="general text", batch_tokens=batch_tokens, progress=progress)
    return CanaryScores(canaries.language, nats, [len(passage.encode()) for passage in canaries.passages])


def passage_rows(passages: Sequence[str], tokenizer: Any) -> list[EncodedExample]:
    """Each passage as it would stand at the start of a document; every token of it is scored."""
    start = _start_of_text(tokenizer)
    rows = []
    for number, passage in enumerate(passages, start=1):
        ids = [start, *tokenizer(passage, add_special_tokens=False)["input_ids"]]
        rows.append(EncodedExample(number, ids, ((1, len(ids)),)))
    return rows


def _start_of_text(tokenizer: Any) -> int:
    """The token before a document: what the tokenizer writes there itself, else the one that ended the last."""
    written: list[int] = tokenizer("a")["input_ids"]
    if written and written[0] in tokenizer.all_special_ids:
        return written[0]
    vocabulary: dict[str, int] = tokenizer.get_added_vocab()
    named = (vocabulary.get("<|endoftext|>"), tokenizer.bos_token_id, tokenizer.eos_token_id)
    return next(token for token in named if token is not None)


def compare_canaries(before: CanaryScores, after: CanaryScores | None, *, seed: int = 0) -> dict[str, Any]:
    """Return the report of one language; ``after`` is None where the model had none of it before."""
    report: dict[str, Any] = {
        "language": before.language,
        "version": canary_set(before.language).version,
        "passages": len(before.nats),
        "is_applicable": after is not None,
        "known_below_bits": KNOWN_BELOW_BITS[before.language] if before.language != "en" else None,
    }
    if after is None:
        return report | {"before": {"value": before.bits_per_byte, "low": None, "high": None}, "code": "not_applicable"}
    changes = [new - old for old, new in zip(before.nats, after.nats, strict=True)]
    change = bootstrap_mean(changes, before.nats, seed=seed)
    return report | {
        "before": _bits(before, seed).to_json(),
        "after": _bits(after, seed).to_json(),
        "change": change.to_json(),
        "code": _code(change),
    }


def _bits(scores: CanaryScores, seed: int) -> Interval:
    return bootstrap_mean([nats / math.log(2) for nats in scores.nats], scores.sizes, seed=seed)


def _code(change: Interval) -> str:
    if not change.excludes_zero:
        return "no_clear_change"
    if change.value < 0:
        return "better"
    return "worse" if change.value >= WORSE_FROM else "slightly_worse"


_NAMES = {"en": "General English text", "ja": "General Japanese text"}
_WORDS = {
    "no_clear_change": "no clear change",
    "better": "better than before",
    "slightly_worse": "slightly worse",
    "worse": "clearly worse: it has forgotten some of what it knew",
}
_WORST_FIRST = ("worse", "slightly_worse", "no_clear_change", "better", "not_applicable")


def forgetting(canaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the verdict over all languages: the worst code, and each language in words."""
    codes = {canary["code"] for canary in canaries}
    return {
        "code": next((code for code in _WORST_FIRST if code in codes), "not_measured"),
        "text": " ".join(_in_words(canary) for canary in canaries),
    }


def _in_words(canary: Mapping[str, Any]) -> str:
    name = _NAMES[canary["language"]]
    if not canary["is_applicable"]:
        return (
            f"{name}: not applicable, the model had none before ({canary['before']['value']:.2f} bits per byte; "
            f"below {canary['known_below_bits']} counts)."
        )
    change = canary["change"]
    sureness = (
        "too few passages for an interval"
        if change["low"] is None
        else f"{change['low']:+.1%} to {change['high']:+.1%} with 95% confidence"
    )
    return f"{name}: loss {change['value']:+.1%} ({sureness}), {_WORDS[canary['code']]}."
