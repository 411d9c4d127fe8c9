"""Scores of a module as it is, on held-out rows of tasks and on general text: loss a label, and how many rows it would
answer exactly. Knows rows and modules; not which weights the module has.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from terakoya.data.splits import split_rows
from terakoya.data.stored_rows import StoredRows
from terakoya.data.tokenization import EncodedExample
from terakoya.evaluation.canaries import CanaryScores, canary_set, evaluate_canaries
from terakoya.models.evaluating import evaluating
from terakoya.models.label_forward import LabelForward
from terakoya.models.length_batches import length_batches
from terakoya.models.packing import label_count
from terakoya.training.objectives.methods import OBJECTIVES

_TOKENS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class ScoredTask:
    name: str
    rows: list[EncodedExample]
    """Held out of training, the ones its own run was judged by."""

    @classmethod
    def read(cls, task: Mapping[str, Any], tokenizer: Any, *, context: int, most: int) -> ScoredTask:
        """``task``: name, rows, objective, heldout_fraction, max_evaluation_examples, max_length and seed of its run.

        A row longer than the model reads is left out; so may be all of them.
        """
        rows = StoredRows.of(Path(task["rows"]))
        _, heldout = split_rows(rows, task["heldout_fraction"], task["seed"])
        for count in (task["max_evaluation_examples"], most):
            if len(heldout) > count:
                chosen = sorted(random.Random(task["seed"]).sample(range(len(heldout)), count))  # noqa: S311 - reproducible
                heldout = heldout[chosen]
        encoding = OBJECTIVES.load(task["objective"]).encoding
        encoded = encoding.heldout(rows.at(heldout), tokenizer, length=encoding.limit(task["max_length"], context))
        better = encoded.complete()[:: encoding.rows_per_example]
        return cls(task["name"], [row for row in better if len(row.input_ids) <= context])

    @torch.inference_mode()
    def score(self, module: nn.Module) -> dict[str, Any]:
        """``loss`` in nats a label; ``exact``: the share of rows of which greedy decoding would write every label."""
        nats, labels, exact = 0.0, 0, 0
        with evaluating(module):
            forward = LabelForward.choose(module, self.rows[:3])
            for batch in length_batches([len(row.input_ids) for row in self.rows], _TOKENS_AT_ONCE):
                rows = [self.rows[index] for index in batch]
                losses, likeliest = forward.predict(rows)
                wanted = torch.tensor(
                    [row.input_ids[at] for row in rows for start, end in row.label_spans for at in range(start, end)]
                )
                counts = [label_count(row) for row in rows]
                exact += sum(bool(part.all()) for part in torch.split(likeliest.cpu() == wanted, counts))
                nats, labels = nats + float(losses.double().sum()), labels + sum(counts)
        return {"name": self.name, "loss": nats / labels, "exact": exact / len(self.rows), "rows": len(self.rows)}


def general_scores(
    module: nn.Module, tokenizer: Any, languages: tuple[str, ...], tick: Callable[[], None]
) -> list[CanaryScores]:
    """Bits a byte of general text in these languages; ``tick`` is called between them."""
    found = []
    for language in languages:
        found.append(evaluate_canaries(module, tokenizer, canary_set(language)))
        tick()
    return found
