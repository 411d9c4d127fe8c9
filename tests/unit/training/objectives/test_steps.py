"""What a step of each objective computes: against the formula on each row alone, and however it is cut."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tests.contract.training_method import some_rows
from tests.unit.training.conftest import Recorder
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from terakoya.data.tokenization import EncodedExample
from terakoya.domain.datasets import DatasetKind
from terakoya.domain.events import EventType
from terakoya.models.label_forward import LabelForward, Way
from terakoya.training.engine.batching import StepPlan
from terakoya.training.engine.checkpoint import Checkpoints, Position
from terakoya.training.engine.loop import TrainingLoop, make_optimizer
from terakoya.training.engine.schedule import Schedule
from terakoya.training.objectives.methods import OBJECTIVES
from terakoya.training.objectives.objective import Objective, Start

BETA = 0.3
KINDS = {"supervised": DatasetKind.CONVERSATION, "text": DatasetKind.TEXT}


class Lesson:
    """Eight examples, a fresh model, and what it took to train on them."""

    def __init__(self, name: str, folder: Path, model: Path, **settings: float) -> None:
        method = OBJECTIVES.load(name)
        self.folder = folder
        self.module: Any = AutoModelForCausalLM.from_pretrained(model)
        self.objective: Objective = method.load()(method.resolve_settings(settings))
        tokenizer = AutoTokenizer.from_pretrained(model)
        examples = some_rows(KINDS.get(name, DatasetKind.PREFERENCE))[:8]
        self.rows = self.objective.encoding.train(examples, tokenizer, length=64).complete()
        self.recorder = Recorder()

    def start(self, *, way: Way = Way.PACKED) -> LabelForward:
        forward = LabelForward(self.module, way=way)
        examples = range(len(self.rows) // self.objective.encoding.rows_per_example)
        self.objective.start(
            Start(
                module=self.module,
                forward=forward,
                rows=self.rows,
                examples=examples,
                autocast=Accelerator(cpu=True).autocast,
                store=self.folder / "reference.json",
                fingerprint="same",
                tick=lambda done, total: None,
            )
        )
        return forward

    def train(self, *, budget: int, way: Way = Way.PACKED, steps: int = 3, batch_size: int = 5) -> dict[str, Tensor]:
        forward = self.start(way=way)
        parameters = dict(self.module.named_parameters())
        plan = StepPlan.of(
            rows=len(self.rows) // self.objective.encoding.rows_per_example,
            batch_size=batch_size,
            seed=0,
            epochs=None,
            max_steps=steps,
        )
        TrainingLoop(
            module=self.module,
            parameters=parameters,
            rows=self.rows,
            objective=self.objective,
            forward=forward,
            plan=plan,
            schedule=Schedule(1e-3, plan.total_steps, 0.0, "constant"),
            accelerator=Accelerator(cpu=True),
            optimizer=make_optimizer(parameters, weight_decay=0.0),
            max_grad_norm=1.0,
            checkpoints=Checkpoints(self.folder / "checkpoints", fingerprint="test"),
            checkpoint_seconds=1e9,
            observer=self.recorder,
            requested_action=lambda: None,
        ).run(Position(budget_tokens=budget))
        return {name: each.detach().clone() for name, each in parameters.items()}

    def told(self, step: int = 0) -> dict[str, float]:
        return self.recorder.of(EventType.STEP)[step]


def label_losses(module: Any, rows: Sequence[EncodedExample]) -> list[np.ndarray]:
    """Of each row alone, by the model's own logits: -log softmax at each label, in double precision."""
    found = []
    for row in rows:
        with torch.no_grad():
            logits = module(torch.tensor([row.input_ids])).logits[0].double().numpy()
        start, end = row.label_spans[0]
        chosen = logits[start - 1 : end - 1]
        labels = row.input_ids[start:end]
        found.append(np.logaddexp.reduce(chosen, axis=1) - chosen[np.arange(len(labels)), labels])
    return found


@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize(("budget", "way"), [(60, Way.PACKED), (10_000, Way.PADDED)])
def test_how_a_step_is_cut_changes_rounding_only(
    name: str, budget: int, way: Way, tmp_path: Path, tiny_folder: Path
) -> None:
    whole, cut = (Lesson(name, tmp_path, tiny_folder) for _ in range(2))
    begin = {key: each.detach().clone() for key, each in whole.module.named_parameters()}
    expected, found = whole.train(budget=10_000), cut.train(budget=budget, way=way)
    wanted_facts, facts = whole.told(-1), cut.told(-1)  # the last step: at the first all rewards are zero
    assert facts.keys() == wanted_facts.keys()
    for fact in facts.keys() - {"tokens_per_second", "eta_seconds"}:
        # Rewards are small differences of sums near 50, of which float32 keeps six digits.
        assert facts[fact] == pytest.approx(wanted_facts[fact], rel=1e-3, abs=1e-4), fact
    for key, wanted in expected.items():
        assert (found[key] - wanted).norm() <= 1e-2 * (wanted - begin[key]).norm() + 1e-7, key


@pytest.mark.parametrize("name", ["supervised", "text"])
def test_the_loss_is_the_mean_over_labels(name: str, tmp_path: Path, tiny_folder: Path) -> None:
    lesson = Lesson(name, tmp_path, tiny_folder)
    expected = np.concatenate(label_losses(lesson.module, lesson.rows)).mean()
    lesson.train(budget=100, steps=1, batch_size=len(lesson.rows))
    assert lesson.told()["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_dpo_loss_compares_with_the_model_of_the_start(tmp_path: Path, tiny_folder: Path) -> None:
    lesson = Lesson("dpo", tmp_path, tiny_folder, beta=BETA, label_smoothing=0.1)
    reference = -np.array([each.sum() for each in label_losses(lesson.module, lesson.rows)]).reshape(-1, 2)
    lesson.start()
    with torch.no_grad():  # a policy that has moved away from its start
        drawn = torch.Generator().manual_seed(1)
        for parameter in lesson.module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=drawn) * 0.02)
    policy = -np.array([each.sum() for each in label_losses(lesson.module, lesson.rows)]).reshape(-1, 2)
    gained = policy - reference
    margin = BETA * (gained[:, 0] - gained[:, 1])
    expected = 0.9 * np.log1p(np.exp(-margin)) + 0.1 * np.log1p(np.exp(margin))

    lesson.train(budget=100, steps=1, batch_size=8)

    told = lesson.told()
    assert told["loss"] == pytest.approx(expected.mean(), rel=1e-4)
    assert told["reward_margin"] == pytest.approx(margin.mean(), rel=1e-3, abs=1e-4)
    assert told["reward_chosen"] == pytest.approx(BETA * gained[:, 0].mean(), rel=1e-3, abs=1e-4)
    assert told["reward_accuracy"] == (margin > 0).mean()


def test_the_orpo_loss_is_supervised_plus_beta_times_the_odds_ratio(tmp_path: Path, tiny_folder: Path) -> None:
    lesson = Lesson("orpo", tmp_path, tiny_folder, beta=BETA)
    losses = label_losses(lesson.module, lesson.rows)
    supervised = np.concatenate(losses[::2]).mean()
    per_token = np.exp(-np.array([each.mean() for each in losses])).reshape(-1, 2)
    odds = per_token / (1 - per_token)
    preference = np.log1p(np.exp(-np.log(odds[:, 0] / odds[:, 1]))).mean()

    lesson.train(budget=100, steps=1, batch_size=8)

    told = lesson.told()
    assert told["loss"] == pytest.approx(supervised + BETA * preference, rel=1e-5)
    assert told["supervised_loss"] == pytest.approx(supervised, rel=1e-5)
    assert told["preference_loss"] == pytest.approx(preference, rel=1e-4)
    assert told["preference_accuracy"] == (per_token[:, 0] > per_token[:, 1]).mean()


def test_the_reference_is_computed_once_and_not_taken_from_another_run(tmp_path: Path, tiny_folder: Path) -> None:
    first, second = (Lesson("dpo", tmp_path, tiny_folder) for _ in range(2))
    first.start()
    kept = (tmp_path / "reference.json").read_bytes()
    with torch.no_grad():
        second.module.model.norm.weight.mul_(2)
    second.start()
    assert (tmp_path / "reference.json").read_bytes() == kept
    assert second.objective._reference == first.objective._reference  # type: ignore[attr-defined]

    (tmp_path / "reference.json").write_bytes(kept.replace(b'"same"', b'"other"'))
    second.start()
    assert second.objective._reference != first.objective._reference  # type: ignore[attr-defined]
