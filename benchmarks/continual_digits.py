"""Continual learning where everything is known: handwritten digits, five tasks, each with its pixels permuted anew.

    OMP_NUM_THREADS=1 python benchmarks/continual_digits.py [--seeds 10] [--epochs 20]

scikit-learn's digits (1,797 of 8 x 8; 1,200 to learn from, 597 to be judged by), a perceptron 64-64-64-10 with one head
for all tasks, Adam at 1e-3, batches of 32. The task is not named: permuted pixels tell it. Methods: naive, L2 towards
the anchor, EWC, replay of 20 or 60 rows a task (labels, or soft targets of all ten classes), both together, and joint
training on all tasks. The parts are ``terakoya.training.continual``'s; the loop is a dozen lines, so that nothing else
is measured. A seed draws split, permutations, initial weights and order; the same for every method.

lambda is chosen on 200 rows carved from the training rows of two seeds that are not reported, on a grid of powers of
ten. A step with replay has the 32 rows of the new task and 32 drawn from the buffer: steps are equal, rows are not.
Writes ``benchmarks/results/continual_digits.json``.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from machine import describe_machine, save
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from terakoya.training.continual.diagonal_ewc import DiagonalEwc
from terakoya.training.continual.fisher import SequenceBatch
from terakoya.training.continual.matrix import TaskMatrix
from terakoya.training.continual.regulariser import TaskEnd
from terakoya.training.continual.soft_targets import SoftTargets, joined, soft_target_losses, soft_targets
from terakoya.training.continual.state import RetentionState

TASKS, TRAIN, BATCH, RATE = 5, 1200, 32, 1e-3
_STUDENT_T = {4: 2.776, 5: 2.571, 7: 2.365, 9: 2.262, 14: 2.145, 19: 2.093}


@dataclass(frozen=True)
class Task:
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


@dataclass(frozen=True)
class Method:
    name: str
    strength: float = 0.0
    uniform: bool = False
    """L2: every weight as important as every other, with the Fisher's mean."""
    replay: int = 0
    soft: bool = False
    joint: bool = False


@dataclass
class Buffer:
    inputs: Tensor
    labels: Tensor
    soft: SoftTargets


def tasks_of(seed: int, *, validate: bool) -> list[Task]:
    digits = load_digits()
    random = np.random.default_rng(seed)
    order = random.permutation(len(digits.target))
    pixels = torch.tensor(digits.data[order] / 16.0, dtype=torch.float32)
    labels = torch.tensor(digits.target[order])
    learn, judge = (slice(0, 1000), slice(1000, TRAIN)) if validate else (slice(0, TRAIN), slice(TRAIN, None))
    tasks = []
    for _ in range(TASKS):
        seen = pixels[:, random.permutation(64)]
        tasks.append(Task(seen[learn], labels[learn], seen[judge], labels[judge]))
    return tasks


def perceptron(seed: int) -> nn.Module:
    """He's initialisation, zero biases."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    for layer in module[::2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    return module


def batches(count: int, generator: torch.Generator, epochs: int) -> Iterator[Tensor]:
    for _ in range(epochs):
        yield from torch.randperm(count, generator=generator).split(BATCH)


class Sequence:
    """One method through one order of tasks."""

    def __init__(self, method: Method, seed: int, epochs: int) -> None:
        self.method, self.epochs = method, epochs
        self.module = perceptron(seed)
        self.parameters = dict(self.module.named_parameters())
        self.regulariser = DiagonalEwc(self.parameters, strength=method.strength)
        self.generator = torch.Generator().manual_seed(seed)
        self.state: RetentionState | None = None
        self.buffer: Buffer | None = None
        self.seconds = {"training": 0.0, "fisher": 0.0}

    def run(self, tasks: list[Task]) -> TaskMatrix:
        rows = [self.scores(tasks)]
        for number, task in enumerate(tasks):
            self.learn(task.train, task.train_labels)
            self.end(task, number)
            rows.append(self.scores(tasks))
        return TaskMatrix.of(rows)

    def joint(self, tasks: list[Task]) -> list[list[float]]:
        self.learn(torch.cat([task.train for task in tasks]), torch.cat([task.train_labels for task in tasks]))
        return self.scores(tasks)

    def learn(self, inputs: Tensor, labels: Tensor) -> None:
        started = time.perf_counter()
        optimizer = torch.optim.Adam(self.module.parameters(), lr=RATE)
        self.regulariser.on_task_start(self.state)
        for step, chosen in enumerate(batches(len(inputs), self.generator, self.epochs), start=1):
            optimizer.zero_grad()
            self.loss(inputs[chosen], labels[chosen]).backward()
            if self.method.strength:
                self.regulariser.add_grad_(self.parameters, step)
            optimizer.step()
        self.seconds["training"] += time.perf_counter() - started

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Mean over the rows of the step, new and shown again alike."""
        new = cross_entropy(self.module(inputs), labels, reduction="none")
        if self.buffer is None:
            return new.mean()
        again = torch.randint(len(self.buffer.inputs), (len(inputs),), generator=self.generator)
        logits = self.module(self.buffer.inputs[again])
        if self.method.soft:
            kept = self.buffer.soft
            old = soft_target_losses(
                logits, SoftTargets(kept.tokens[again], kept.log_probabilities[again], kept.log_rest[again])
            )
        else:
            old = cross_entropy(logits, self.buffer.labels[again], reduction="none")
        return torch.cat([new, old]).mean()

    def end(self, task: Task, number: int) -> None:
        if self.method.strength:
            started = time.perf_counter()
            parts = [
                SequenceBatch(len(part), lambda part=part: self.module(part))  # type: ignore[misc]
                for part in task.train.split(BATCH)
            ]
            self.state = self.regulariser.on_task_end(TaskEnd(self.parameters, parts, seed=number))
            if self.method.uniform:
                values = self.state.importance
                mean = sum(float(each.sum()) for each in values.values()) / sum(
                    each.numel() for each in values.values()
                )
                even = {name: torch.full_like(each, mean) for name, each in values.items()}
                self.state = RetentionState(even, self.state.anchor, self.state.tasks)
            self.seconds["fisher"] += time.perf_counter() - started
        if self.method.replay:
            picked = torch.randperm(len(task.train), generator=self.generator)[: self.method.replay]
            inputs, labels = task.train[picked], task.train_labels[picked]
            with torch.no_grad():
                soft = soft_targets(self.module(inputs), k=10)
            kept = self.buffer
            self.buffer = (
                Buffer(inputs, labels, soft)
                if kept is None
                else Buffer(
                    torch.cat([kept.inputs, inputs]), torch.cat([kept.labels, labels]), joined([kept.soft, soft])
                )
            )

    @torch.no_grad()
    def scores(self, tasks: list[Task]) -> list[list[float]]:
        return [(self.module(task.test).argmax(-1) == task.test_labels).double().tolist() for task in tasks]


def figures(method: Method, seeds: range, epochs: int, *, validate: bool = False) -> dict[str, Any]:
    accuracies, transfers, learned, seconds = [], [], [], []
    example: dict[str, Any] = {}
    for seed in seeds:
        tasks = tasks_of(seed, validate=validate)
        sequence = Sequence(method, seed, epochs)
        if method.joint:
            accuracies.append(statistics.fmean(map(statistics.fmean, sequence.joint(tasks))))
        else:
            matrix = sequence.run(tasks)
            example = example or matrix.to_json()
            means = matrix.means
            accuracies.append(float(means[-1].mean()))
            transfers.append(statistics.fmean(means[-1, j] - means[j + 1, j] for j in range(TASKS - 1)))
            learned.append(statistics.fmean(means[j + 1, j] for j in range(TASKS)))
        seconds.append(sequence.seconds)
    result: dict[str, Any] = {"acc": across(accuracies), "acc_by_seed": [round(100 * each, 2) for each in accuracies]}
    if transfers:
        result |= {"bwt": across(transfers), "la": across(learned)}
        result |= {"matrix_of_first_seed": example}
    result["seconds"] = {key: round(statistics.fmean(each[key] for each in seconds), 2) for key in seconds[0]}
    return result


def across(values: list[float]) -> dict[str, float]:
    """Per cent, with the half width of Student's interval over seeds."""
    half = 0.0
    if len(values) > 1:
        t = _STUDENT_T.get(len(values) - 1, 1.96)
        half = t * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": round(100 * statistics.fmean(values), 2), "half_width_95": round(100 * half, 2)}


def best_strength(seeds: range, epochs: int, **fields: Any) -> tuple[float, dict[str, float]]:
    """Choose lambda on rows carved from training, on seeds that are not reported."""
    tried = {}
    for strength in (0.1, 1.0, 10.0, 100.0, 1000.0):
        method = Method("validation", strength=strength, **fields)
        tried[f"{strength:g}"] = figures(method, seeds, epochs, validate=True)["acc"]["mean"]
    return float(max(tried, key=lambda key: tried[key])), tried


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=20)
    asked = parser.parse_args()
    machine = describe_machine()
    torch.set_num_threads(1)
    seeds, unreported = range(asked.seeds), range(1000, 1002)
    chosen, grids = {}, {}
    kinds: dict[str, dict[str, Any]] = {
        "l2": {"uniform": True},
        "ewc": {},
        "soft replay 20 + ewc": {"replay": 20, "soft": True},
    }
    for name, fields in kinds.items():
        chosen[name], grids[name] = best_strength(unreported, asked.epochs, **fields)
        print(name, chosen[name], grids[name], file=sys.stderr)
    methods = [
        Method("naive"),
        Method("l2", strength=chosen["l2"], uniform=True),
        Method("ewc 10", strength=10.0),
        *([Method("ewc", strength=chosen["ewc"])] if chosen["ewc"] != 10 else []),
        Method("replay 20", replay=20),
        Method("soft replay 20", replay=20, soft=True),
        Method("replay 20 + ewc 1", replay=20, strength=1.0),
        Method("soft replay 20 + ewc", replay=20, soft=True, strength=chosen["soft replay 20 + ewc"]),
        Method("replay 60", replay=60),
        Method("soft replay 60", replay=60, soft=True),
        Method("joint", joint=True),
    ]
    results = {}
    for method in methods:
        results[method.name] = {"lambda": method.strength or None} | figures(method, seeds, asked.epochs)
        print(method.name, results[method.name]["acc"], results[method.name].get("bwt"), file=sys.stderr)
    save(
        "continual_digits",
        {
            "protocol": {"seeds": asked.seeds, "epochs": asked.epochs, "batch": BATCH, "rate": RATE, "tasks": TASKS},
            "lambda_grids_on_validation": grids,
            "methods": results,
        },
        machine,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
