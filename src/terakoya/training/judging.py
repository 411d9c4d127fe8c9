"""The last phase of a run: score held-out rows and general text before and after, and make the report card. Knows how
to get at the model as it was; what the scores mean is ``evaluation/``'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import nn

from terakoya.data.tokenization import EncodedExample
from terakoya.domain.events import EventType, Observer, Phase
from terakoya.evaluation.canaries import LANGUAGES, CanaryScores, canary_set, compare_canaries, evaluate_canaries
from terakoya.evaluation.heldout import HeldoutScores, evaluate_heldout
from terakoya.evaluation.preference import with_worse_answers
from terakoya.evaluation.report_card import before_key, build_report
from terakoya.evaluation.text_scores import score_text
from terakoya.models.base_loader import LoadedModel
from terakoya.storage.files import write_durably
from terakoya.storage.json_text import to_json
from terakoya.training.spec import RunSpec
from terakoya.training.strategy import TrainingStrategy

_Found = TypeVar("_Found", HeldoutScores, CanaryScores)
_Progress = Callable[[int], None]
"""Hears how much of a phase is done; raises if the run is to end."""

MOST_EVALUATED_TOKENS = 2048
"""At once, where memory allows."""


class Tick(Protocol):
    """Tells progress; raises if the run is to end."""

    def __call__(self, phase: Phase, done: int, total: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one state of the model."""

    heldout: HeldoutScores
    canaries: list[CanaryScores]


@dataclass(frozen=True, slots=True)
class Judge:
    spec: RunSpec
    tokenizer: Any
    heldout: Sequence[EncodedExample]
    heldout_rejected: Sequence[EncodedExample]
    asks: bool
    """Whether the held-out rows are answers to be asked for; else they are text, of which only the loss is told."""
    observer: Observer
    tick: Tick
    autocast: Callable[[], AbstractContextManager[Any]]
    compute_type: str
    batch_tokens: int = MOST_EVALUATED_TOKENS

    def judge(
        self, strategy: TrainingStrategy, module: nn.Module, load_base: Callable[[], LoadedModel]
    ) -> tuple[Scores, Scores]:
        """Return the scores before and after training; those of the unchanged model are computed once and cached.

        Afterwards only the languages that the model had before are looked at.
        """
        before = self._before(strategy, module, load_base)
        self._announce("before", before)
        known = [scores.language for scores in before.canaries if scores.is_known]
        progress = self._progress(Phase.EVALUATING_AFTER, known)
        after = Scores(self._score(module, progress), [self._listen(module, each, progress) for each in known])
        self._announce("after", after)
        return before, after

    def report(
        self, scores: tuple[Scores, Scores], *, configuration: dict[str, Any], cost: dict[str, Any]
    ) -> dict[str, Any]:
        info = self.spec.model.info
        seed = self.spec.resolved.seed
        before, after = scores
        later = {each.language: each for each in after.canaries}
        return build_report(
            before.heldout,
            after.heldout,
            self.heldout,
            canaries=[compare_canaries(each, later.get(each.language), seed=seed) for each in before.canaries],
            model={"id": info.id, "name": info.name, "sha256": info.content_sha256},
            dataset={
                "id": self.spec.dataset_id,
                "name": self.spec.dataset_name,
                "sha256": self.spec.dataset_sha256,
            },
            strategy=self.spec.resolved.strategy,
            cost=cost,
            configuration=configuration,
            seed=seed,
        )

    def _before(self, strategy: TrainingStrategy, module: nn.Module, load_base: Callable[[], LoadedModel]) -> Scores:
        heldout = self._cached(self._heldout_key(), HeldoutScores.from_json)
        canaries = {each: self._cached(self._canary_key(each), CanaryScores.from_json) for each in LANGUAGES}
        missing = [language for language, scores in canaries.items() if scores is None]
        if heldout is None or missing:
            progress = self._progress(Phase.EVALUATING_BEFORE, missing)
            with strategy.as_before(module) as unchanged:
                if unchanged is None:
                    unchanged = load_base().module
                if heldout is None:
                    heldout = self._score(unchanged, progress)
                    self._cache(self._heldout_key(), heldout)
                for language in missing:
                    canaries[language] = scores = self._listen(unchanged, language, progress)
                    self._cache(self._canary_key(language), scores)
        return Scores(heldout, [scores for scores in canaries.values() if scores is not None])

    def _score(self, module: nn.Module, progress: _Progress) -> HeldoutScores:
        progress(0)

        def told(done: int, _: int) -> None:
            progress(done)

        with self.autocast():
            if not self.asks:
                return score_text(module, self.heldout, progress=told)
            scores = evaluate_heldout(
                module,
                self.tokenizer,
                self.heldout,
                max_new_tokens=self.spec.resolved.max_new_tokens,
                batch_tokens=self.batch_tokens,
                progress=told,
            )
            return with_worse_answers(scores, module, self.heldout_rejected, progress=told)

    def _listen(self, module: nn.Module, language: str, progress: _Progress) -> CanaryScores:
        place = len(self.heldout)
        with self.autocast():
            return evaluate_canaries(
                module,
                self.tokenizer,
                canary_set(language),
                batch_tokens=self.batch_tokens,
                progress=lambda done, _: progress(place + done),
            )

    def _progress(self, phase: Phase, languages: list[str]) -> _Progress:
        total = len(self.heldout) + max((len(canary_set(each).passages) for each in languages), default=0)
        return lambda done: self.tick(phase, done, total)

    def _announce(self, when: str, scores: Scores) -> None:
        self.observer.notify(
            EventType.EVAL,
            when=when,
            split="heldout",
            loss=scores.heldout.loss,
            exact_match=scores.heldout.exact_match,
            examples=len(scores.heldout.loss_sums),
        )
        for each in scores.canaries:
            self.observer.notify(
                EventType.CANARY,
                when=when,
                language=each.language,
                bits_per_byte=each.bits_per_byte,
                passages=len(each.nats),
            )

    @property
    def _quantization(self) -> str | None:
        adapter = self.spec.resolved.adapter
        return adapter.quantization if adapter else None

    def _heldout_key(self) -> str:
        resolved = self.spec.resolved
        settings = {
            "rows": [
                (example.row, example.label_spans, len(example.input_ids))
                for example in (*self.heldout, *self.heldout_rejected)
            ],
            "max_new_tokens": resolved.max_new_tokens,
            "compute_type": self.compute_type,
            "quantization": self._quantization,
        }
        return before_key(self.spec.model.info.content_sha256, self.spec.dataset_sha256, settings)

    def _canary_key(self, language: str) -> str:
        """General text is the same for every dataset."""
        settings = {
            "canaries": language,
            "compute_type": self.compute_type,
            "quantization": self._quantization,
        }
        return before_key(self.spec.model.info.content_sha256, canary_set(language).version, settings)

    def _cached(self, key: str, read: Callable[[dict[str, Any]], _Found]) -> _Found | None:
        try:
            return read(json.loads((self.spec.evaluation_cache / f"{key}.json").read_bytes()))
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # none yet, or written by another version
            return None

    def _cache(self, key: str, scores: HeldoutScores | CanaryScores) -> None:
        self.spec.evaluation_cache.mkdir(parents=True, exist_ok=True)
        write_durably(self.spec.evaluation_cache / f"{key}.json", to_json(scores.to_json()))
