"""The last phase of a run: score the held-out rows before and after, and write the report card once. Knows how to
get at the model as it was; what the scores mean is ``evaluation/``'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from terakoya.data.tokenization import EncodedExample
from terakoya.domain.events import EventType, Observer, Phase
from terakoya.evaluation.heldout import HeldoutScores, evaluate_heldout
from terakoya.evaluation.report_card import before_key, build_report
from terakoya.models.base_loader import LoadedModel
from terakoya.storage.files import write_durably
from terakoya.storage.json_text import to_json
from terakoya.training.spec import RunSpec
from terakoya.training.strategy import TrainingStrategy


class Tick(Protocol):
    """Tells progress; raises if the run is to end."""

    def __call__(self, phase: Phase, done: int, total: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Judge:
    spec: RunSpec
    tokenizer: Any
    heldout: list[EncodedExample]
    observer: Observer
    tick: Tick
    autocast: Callable[[], AbstractContextManager[Any]]
    compute_type: str

    def judge(
        self, strategy: TrainingStrategy, module: nn.Module, load_base: Callable[[], LoadedModel]
    ) -> tuple[HeldoutScores, HeldoutScores]:
        """Return the scores before and after training; those of the unchanged model are computed once and cached."""
        before = self._cached_before()
        if before is None:
            before = self._before(strategy, module, load_base)
            self._cache(before)
        self._announce("before", before)
        after = self._score(Phase.EVALUATING_AFTER, module)
        self._announce("after", after)
        return before, after

    def report(
        self,
        scores: tuple[HeldoutScores, HeldoutScores],
        *,
        configuration: dict[str, Any],
        cost: dict[str, Any],
    ) -> dict[str, Any]:
        info = self.spec.model.info
        return build_report(
            *scores,
            self.heldout,
            model={"id": info.id, "name": info.name, "sha256": info.content_sha256},
            dataset={
                "id": self.spec.dataset_id,
                "name": self.spec.dataset_name,
                "sha256": self.spec.dataset_sha256,
            },
            strategy=self.spec.resolved.strategy,
            cost=cost,
            configuration=configuration,
            seed=self.spec.resolved.seed,
        )

    def _before(
        self, strategy: TrainingStrategy, module: nn.Module, load_base: Callable[[], LoadedModel]
    ) -> HeldoutScores:
        with strategy.as_before(module) as unchanged:
            return self._score(Phase.EVALUATING_BEFORE, load_base().module if unchanged is None else unchanged)

    def _score(self, phase: Phase, module: nn.Module) -> HeldoutScores:
        self.tick(phase, 0, len(self.heldout))
        with self.autocast():
            return evaluate_heldout(
                module,
                self.tokenizer,
                self.heldout,
                max_new_tokens=self.spec.resolved.max_new_tokens,
                progress=lambda done, total: self.tick(phase, done, total),
            )

    def _announce(self, when: str, scores: HeldoutScores) -> None:
        self.observer.notify(
            EventType.EVAL,
            when=when,
            split="heldout",
            loss=scores.loss,
            exact_match=scores.exact_match,
            examples=len(self.heldout),
        )

    def _cache_path(self) -> Path:
        resolved = self.spec.resolved
        settings = {
            "rows": [(example.row, example.label_spans, len(example.input_ids)) for example in self.heldout],
            "max_new_tokens": resolved.max_new_tokens,
            "compute_type": self.compute_type,
        }
        key = before_key(self.spec.model.info.content_sha256, self.spec.dataset_sha256, settings)
        return self.spec.evaluation_cache / f"{key}.json"

    def _cached_before(self) -> HeldoutScores | None:
        try:
            return HeldoutScores.from_json(json.loads(self._cache_path().read_bytes()))
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # none yet, or written by another version
            return None

    def _cache(self, scores: HeldoutScores) -> None:
        self.spec.evaluation_cache.mkdir(parents=True, exist_ok=True)
        write_durably(self._cache_path(), to_json(scores.to_json()))
