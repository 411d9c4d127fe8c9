"""A run's part in a chain: takes up what earlier tasks left, mixes their rows in, and leaves a link for the next. Knows
the run's parts; the mathematics is ``continual/``'s, and who asked for what is the service's.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from terakoya.data.row_view import JoinedRows, RowView
from terakoya.data.tokenization import EncodedExample
from terakoya.domain.models import ModelArtifact
from terakoya.evaluation.task_scores import TaskRows
from terakoya.exceptions import InvalidConfig
from terakoya.models.label_forward import LABELS_AT_ONCE, LabelForward
from terakoya.models.packing import label_count
from terakoya.storage.manifest import file_sha256
from terakoya.training.chain_scoring import EarlierTask
from terakoya.training.chains import refuse_learned
from terakoya.training.continual.budget import Controller
from terakoya.training.continual.chain import Link, load_link, write_link
from terakoya.training.continual.errors import ChainMismatch, DamagedChain
from terakoya.training.continual.fisher import Estimator, SequenceBatch
from terakoya.training.continual.link import LinkFacts, lineage, link_facts, links_in
from terakoya.training.continual.lora_layers import COLUMNS
from terakoya.training.continual.regulariser import Regulariser, TaskEnd
from terakoya.training.continual.replay import (
    ReplayBuffer,
    ReplayExample,
    choose,
    choose_varied,
    replay_count,
    with_targets,
)
from terakoya.training.continual.replayed import ReplayedObjective, as_row
from terakoya.training.continual.scored import exact_row, row_of
from terakoya.training.continual.soft_targets import SoftTargets, joined, soft_targets
from terakoya.training.continual.state import RetentionState, tensors_sha256
from terakoya.training.engine.batching import StepPlan
from terakoya.training.ewc_strategy import EWCTrainingStrategy
from terakoya.training.generating import Writer
from terakoya.training.label_parts import label_parts
from terakoya.training.objectives.objective import Objective
from terakoya.training.preparation import EncodedMaterial
from terakoya.training.retention import ChainPlace, ResolvedRetention
from terakoya.training.spec import RunSpec
from terakoya.training.steering import Canaries, calibrated, probe

_ROWS_AT_ONCE = 16
"""In a pass for the importance. 8 took a quarter longer; 16 are noisier (correlation of row and column sums with many
draws .95-.97 against .98, by 16 rows alone), and a run has 256."""
_VERSIONS = ("torch", "transformers", "peft", "terakoya")


@dataclass(frozen=True, slots=True)
class Chained:
    """One per run of strategy ``ewc``."""

    spec: RunSpec
    place: ChainPlace
    retention: ResolvedRetention
    regulariser: Regulariser
    earlier_trace: float | None
    """Of the importance that the task before left; None for the first."""
    replay: ReplayBuffer
    """Rows kept by all tasks before."""
    earlier: tuple[EarlierTask, ...]
    """What links say of the tasks before, to score them again."""
    previous_weights: dict[str, Tensor] | None
    """Of an adapter that goes on, as the task before left it; whole models are loaded again instead."""

    @classmethod
    def open(cls, spec: RunSpec, strategy: EWCTrainingStrategy, module: nn.Module) -> Chained:
        """Verify the chain behind a run, with the module as it left it, and take up its state.

        Raises: DamagedChain, ChainMismatch; InvalidConfig for a dataset that an earlier task has learned already.
        """
        if spec.chain is None:
            raise InvalidConfig("a run with strategy 'ewc' is part of a chain, and its specification names none")
        regulariser = strategy.regulariser(module)
        links = _links(spec.chain, spec.model.root, spec.dataset_sha256)
        buffer = ReplayBuffer()
        for link in links:
            buffer = buffer.with_task(link.replay.examples)
        anchor = regulariser.anchor_of(strategy.trained_parameters(module))
        regulariser.on_task_start(links[-1].state(anchor) if links else None)
        buffer = buffer.capped(strategy.retention.max_replay_bytes)
        trace = _trace(links[-1].importance) if links else None
        earlier = tuple(EarlierTask(link.facts.task, link.heldout, link.metrics) for link in links)
        trained = strategy.trained_parameters(module) if links and not strategy.trains_whole_model else None
        weights: dict[str, Tensor] | None = None
        if trained is not None:
            weights = {name: parameter.detach().clone() for name, parameter in trained.items()}
        return cls(spec, spec.chain, strategy.retention, regulariser, trace, buffer, earlier, weights)

    @property
    def keeps_nothing(self) -> bool:
        """Whether this task's rows will be gone when the next one is learned."""
        return self.retention.replay_share == 0

    def with_generated(self, writer: Writer, *, kept_in: Path) -> Chained:
        """Let the model write earlier rows itself, if that was asked for and no task before has any left."""
        count = self.retention.generated_rows
        if not count or self.replay.examples or self.earlier_trace is None:
            return self
        return replace(self, replay=writer.rows(count, top_k=self.retention.top_k, kept_in=kept_in))

    def mixed(self, material: EncodedMaterial, objective: Objective) -> tuple[EncodedMaterial, Objective]:
        """Add earlier rows to those to train on, and the objective that learns from both. Steps then draw from all."""
        rows, mix = material.train, self.retention.replay_mix
        drawn = self.replay.draw(round(len(rows) * mix / (1 - mix)), seed=self.spec.resolved.seed, step=1)
        if not drawn:
            return material, objective
        targets = {len(rows) + place: each.targets for place, each in enumerate(drawn) if each.targets is not None}
        places = {id(each): place for place, each in enumerate(self.replay.examples)}
        again = RowView([as_row(each) for each in self.replay.examples], np.array([places[id(each)] for each in drawn]))
        return replace(material, train=JoinedRows(rows, again)), ReplayedObjective(objective, targets)

    def siblings(self) -> list[str]:
        """Names of other links that go on from where this run does: it is a branch beside them."""
        parent = self.place.parent_sha256
        names = []
        for path in links_in(self.place.directory) if parent else []:
            with contextlib.suppress(DamagedChain, ChainMismatch):  # of another branch; ours was verified
                facts = link_facts(path)
                if facts.parent == parent and facts.task != self.place.name:
                    names.append(path.name)
        return names

    @property
    def is_budgeted(self) -> bool:
        """Whether lambda follows from a budget; the first task has nothing to forget yet."""
        return self.retention.budget is not None and self.earlier_trace is not None

    def controller(
        self,
        *,
        canaries: Canaries,
        parameters: dict[str, nn.Parameter],
        objective: Objective,
        material: EncodedMaterial,
        plan: StepPlan,
        budget_tokens: int,
        kept_in: Path,
        fingerprint: str,
    ) -> Controller:
        """Calibrate lambda for the budget. Raises: InvalidConfig if no task before kept what it is measured on."""
        budget = self.retention.budget
        assert budget is not None, "asked for only where there is one"
        if not canaries.rows:
            raise InvalidConfig(
                "the tasks before kept no rows with soft targets to measure a forgetting budget on; "
                "give a fixed lambda as retention.regulariser.strength, or let the model write rows itself with "
                "retention.replay.generate"
            )
        resolved = self.spec.resolved
        return calibrated(
            kept_in,
            fingerprint,
            budget,
            lambda: probe(
                canaries=canaries,
                regulariser=self.regulariser,
                parameters=parameters,
                objective=objective,
                examples=material.train,
                plan=plan,
                budget_tokens=budget_tokens,
                learning_rate=resolved.learning_rate,
                max_grad_norm=resolved.max_grad_norm,
            ),
        )

    def leave(
        self,
        rows: Sequence[EncodedExample],
        *,
        module: nn.Module,
        parameters: dict[str, nn.Parameter],
        forward: LabelForward,
        autocast: Callable[[], AbstractContextManager[Any]],
        budget_tokens: int,
        tick: Callable[[int, int], None],
        heldout: TaskRows | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Estimate importance, keep rows with what the model says of them, write the link; return how to find it.

        ``rows`` are this task's own; ``budget_tokens`` are as many of them as the run takes at once.
        """
        module.eval()
        forward = forward.through_modules()
        seed = self.spec.resolved.seed
        measured = [rows[index] for index in choose(range(len(rows)), self.retention.fisher_sequences, seed=seed)]
        with autocast():
            batches = sequence_batches(measured, forward, budget_tokens, tick)
            state = self.regulariser.on_task_end(TaskEnd(parameters, batches, seed=seed))
            kept = self._kept(rows, forward)
        facts = LinkFacts(
            number=self.place.number,
            task=self.place.name,
            parent=self.place.parent_sha256,
            base_sha256=self.place.base_sha256,
            tokenizer_sha256=tokenizer_sha256(self.spec.model.root.path),
            space="lora" if self.spec.resolved.base == "lora" else "full",
            anchor_sha256=tensors_sha256(state.anchor),
            estimator=Estimator.S_RADEMACHER,
            label_mode="model",
            sequences=len(measured),
            targets=sum(map(label_count, measured)),
            reduction="sum over labels, mean over sequences",
            dtype="float32",
            seed=seed,
            data_sha256=self.spec.dataset_sha256,
            gamma=self.retention.gamma,
            strength=self.regulariser.strength,
            trace=_trace(state.importance) - self.retention.gamma * (self.earlier_trace or 0.0),
            versions={name: metadata.version(name) for name in _VERSIONS},
            scores=self._scores(metrics),
        )
        path, sha256 = self._write(facts, state, kept, heldout, metrics)
        return {
            "id": self.place.directory.name,
            "number": facts.number,
            "link": path.name,
            "sha256": sha256,
            "base_sha256": facts.base_sha256,
            "space": facts.space,
            "lambda": facts.strength,
            "kept_rows": len(kept.examples),
            "wanted_rows": replay_count(
                len(rows), share=self.retention.replay_share, soft_targets=self.retention.soft_targets
            ),
            "heldout_rows": len(heldout.rows) if heldout else 0,
            "state_bytes": state.size_bytes,
        }

    def _scores(self, metrics: Mapping[str, Any] | None) -> tuple[float, ...]:
        row = row_of(metrics or {})
        return exact_row(row, [*(each.task for each in self.earlier), self.place.name]) if row else ()

    def _write(
        self,
        facts: LinkFacts,
        state: RetentionState,
        kept: ReplayBuffer,
        heldout: TaskRows | None,
        metrics: Mapping[str, Any] | None,
    ) -> tuple[Path, str]:
        final = self.place.directory / f"{facts.number:03d}-{facts.task}"
        shutil.rmtree(final, ignore_errors=True)  # of an attempt of this run that ended before its model was registered
        return write_link(
            self.place.directory, facts, importance=state.importance, replay=kept, heldout=heldout, metrics=metrics
        )

    @torch.no_grad()
    def _kept(self, rows: Sequence[EncodedExample], forward: LabelForward) -> ReplayBuffer:
        retention, seed = self.retention, self.spec.resolved.seed
        count = replay_count(len(rows), share=retention.replay_share, soft_targets=retention.soft_targets)
        chosen = choose_varied([hash(_answer(row)) for row in rows], count, seed=seed)
        random.Random(f"kept:{seed}").shuffle(chosen)  # noqa: S311  what a cap leaves is a sample of all, not the first
        examples: dict[int, ReplayExample] = {}
        size = 0
        for place in chosen:
            row = rows[place]
            example = ReplayExample(self.place.name, tuple(row.input_ids), tuple(row.label_spans))
            if retention.soft_targets:
                example = with_targets(example, self._said_of(row, forward))
            size += example.size_bytes
            if size > retention.max_replay_bytes:
                break
            examples[place] = example
        return ReplayBuffer().with_task(examples[place] for place in sorted(examples))

    def _said_of(self, row: EncodedExample, forward: LabelForward) -> SoftTargets:
        parts = [forward.logits([part]) for part in label_parts(row)]
        return joined([soft_targets(logits, min(self.retention.top_k, logits.shape[-1])) for logits in parts])


def _links(place: ChainPlace, root: ModelArtifact, dataset_sha256: str) -> list[Link]:
    """Every link from the first task to the one before."""
    if place.parent is None or place.parent_sha256 is None:
        return []
    tokenizer = tokenizer_sha256(root.path)
    links: list[Link] = []
    for path, sha256 in lineage(place.directory / place.parent, place.parent_sha256):
        if links:  # the state of a chain is its newest; gigabytes where all weights are trained
            links[-1] = replace(links[-1], importance={})
        links.append(load_link(path, sha256, base_sha256=place.base_sha256, tokenizer_sha256=tokenizer))
    for link in links:
        refuse_learned(link.facts, dataset_sha256)
    return links


def sequence_batches(
    rows: Sequence[EncodedExample], forward: LabelForward, budget_tokens: int, tick: Callable[[int, int], None]
) -> Iterator[SequenceBatch]:
    """Rows of like length together, as many as fit. A row with very many labels comes in parts, each with a pass of its
    own: their cotangents are independent with mean zero, so the squares add up to the row's in expectation.
    """
    done = 0
    for group in _groups(sorted(rows, key=lambda row: len(row.input_ids)), budget_tokens):
        tick(done, len(rows))
        done += len(group)
        parts = [[part] for part in label_parts(group[0])] if len(group) == 1 else [group]
        for place, part in enumerate(parts):
            yield SequenceBatch(len(group) if place == 0 else 0, partial(forward.logits, part))


def _groups(rows: Sequence[EncodedExample], budget_tokens: int) -> Iterator[list[EncodedExample]]:
    group: list[EncodedExample] = []
    for row in rows:
        wider = [*group, row]
        if group and (
            len(wider) > _ROWS_AT_ONCE
            or sum(len(each.input_ids) for each in wider) > budget_tokens
            or sum(map(label_count, wider)) > LABELS_AT_ONCE
        ):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _answer(row: EncodedExample) -> tuple[int, ...]:
    return tuple(token for start, end in row.label_spans for token in row.input_ids[start:end])


def _trace(importance: Mapping[str, Tensor]) -> float:
    """Of a diagonal, or of marginals by their rows."""
    counted = (value for name, value in importance.items() if not name.startswith(COLUMNS))
    return sum(float(value.sum(dtype=torch.float64)) for value in counted)


def tokenizer_sha256(folder: Path) -> str:
    """Of the file that turns text into tokens. Raises: InvalidConfig if there is none."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InvalidConfig(f"the model in {folder.name!r} has no tokenizer.json, by which a chain knows its tokens")
    return file_sha256(path)
