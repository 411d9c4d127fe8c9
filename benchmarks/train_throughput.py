"""Our training loop beside loops written by hand, in one process and in turn, on the same rows.

    python benchmarks/train_throughput.py --model FOLDER [--repeats 5] [--steps 6] [--batch-size 8] [--threads 2]

``FOLDER`` is the starter model as a Transformers folder; ``TERAKOYA_BENCH_DATA`` holds clinc150. Three ways to train
the same LoRA adapter (r 16, all linear layers) with AdamW, the same steps of the same rows, float32, clip 1.0:

- bare: PyTorch and PEFT as their documentation shows them, rows padded to the step's longest, ``model(labels=...)``;
- lean: the same, but the head only where a label is, as a careful person would write it;
- ours: ``terakoya.training.engine.loop``.

The repeats of the three alternate, so a noisy machine is noisy for all. Tokens are those of the rows, padding and
sharing left out, so tokens/s compare. Losses must agree within 1%. Writes ``benchmarks/results/train_throughput.json``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from machine import describe_machine, save
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.functional import cross_entropy
from train_clinc150 import clinc150_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from terakoya.data.tokenization import EncodedExample, encode_examples
from terakoya.domain.datasets import Example, Message
from terakoya.models.label_forward import LabelForward
from terakoya.training.engine.batching import StepPlan
from terakoya.training.engine.checkpoint import Checkpoints, Position
from terakoya.training.engine.loop import TrainingLoop, make_optimizer
from terakoya.training.engine.schedule import Schedule
from terakoya.training.objectives.supervised import SupervisedObjective

RATE = 1e-3
Step = Callable[[list[EncodedExample]], float]


class Silent:
    """An observer that only keeps losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def notify(self, type: str, /, **fields: Any) -> None:
        if type == "step":
            self.losses.append(fields["loss"])


@dataclass
class Figures:
    tokens_per_second: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def adapted(folder: str) -> Any:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(base, config).train()


def rows_of(folder: str, count: int) -> list[EncodedExample]:
    examples = [
        Example(number, (Message("user", row["text"]), Message("assistant", row["intent"])))
        for number, row in enumerate(clinc150_rows("train", 1)[:count], start=1)
    ]
    return encode_examples(examples, AutoTokenizer.from_pretrained(folder)).complete()


def padded(rows: list[EncodedExample]) -> tuple[Tensor, Tensor, Tensor]:
    longest = max(len(row.input_ids) for row in rows)
    rest = [longest - len(row.input_ids) for row in rows]
    ids = torch.tensor([row.input_ids + [0] * more for row, more in zip(rows, rest, strict=True)])
    mask = torch.tensor([[1] * len(row.input_ids) + [0] * more for row, more in zip(rows, rest, strict=True)])
    labels = torch.tensor(
        [[-100] * row.labels_start + row.answer_ids + [-100] * more for row, more in zip(rows, rest, strict=True)]
    )
    return ids, mask, labels


class HandWritten:
    """The loop of a tutorial; ``lean`` skips the head where nothing is learned."""

    def __init__(self, folder: str, rows: list[EncodedExample], plan: StepPlan, *, lean: bool) -> None:
        self.module = adapted(folder)
        self.rows, self.plan, self.lean = rows, plan, lean
        trained = [each for each in self.module.parameters() if each.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
        self.trained = trained

    def run(self, first: int, last: int) -> tuple[float, list[float]]:
        seconds, losses = 0.0, []
        for step in range(first, last + 1):
            started = time.perf_counter()
            loss = self.loss([self.rows[row] for row in self.plan.rows_of(step)])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses.append(loss.item())
            seconds += time.perf_counter() - started
        return seconds, losses

    def loss(self, rows: list[EncodedExample]) -> Tensor:
        ids, mask, labels = padded(rows)
        if not self.lean:
            result: Tensor = self.module(input_ids=ids, attention_mask=mask, labels=labels).loss
            return result
        causal = self.module.get_base_model()
        states = causal.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        learned = labels[:, 1:] != -100
        return cross_entropy(causal.lm_head(states[:, :-1][learned]), labels[:, 1:][learned])


class Ours:
    def __init__(self, folder: str, rows: list[EncodedExample], plan: StepPlan, checkpoints: Path) -> None:
        module = adapted(folder)
        self.observer = Silent()
        parameters = {name: each for name, each in module.named_parameters() if each.requires_grad}
        self.loop = TrainingLoop(
            module=module,
            parameters=parameters,
            rows=rows,
            objective=SupervisedObjective({}),
            forward=LabelForward.choose(module, rows[:3]),
            plan=plan,
            schedule=Schedule(RATE, plan.total_steps, 0.0, "constant"),
            accelerator=Accelerator(cpu=True),
            optimizer=make_optimizer(parameters, weight_decay=0.0),
            max_grad_norm=1.0,
            checkpoints=Checkpoints(checkpoints, fingerprint="benchmark"),
            checkpoint_seconds=1e9,
            observer=self.observer,
            requested_action=lambda: None,
        )
        self.batch_size = plan.batch_size

    def run(self, first: int, last: int) -> tuple[float, list[float]]:
        self.observer.losses.clear()
        plan = self.loop.plan
        self.loop.plan = StepPlan(plan.rows, plan.batch_size, plan.seed, total_steps=last)
        done = self.loop.run(Position(step=first - 1, budget_tokens=4096)).position
        self.loop.plan = plan
        return done.training_seconds, list(self.observer.losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps of each way in each repeat")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = describe_machine()
    rows = rows_of(options.model, 1000)
    steps = options.steps * (options.repeats + 1)
    plan = StepPlan.of(rows=len(rows), batch_size=options.batch_size, seed=0, epochs=None, max_steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, HandWritten | Ours] = {
            "bare": HandWritten(options.model, rows, plan, lean=False),
            "lean": HandWritten(options.model, rows, plan, lean=True),
            "ours": Ours(options.model, rows, plan, Path(folder)),
        }
        measured = {name: Figures() for name in ways}
        for repeat in range(options.repeats + 1):
            first = repeat * options.steps + 1
            last = first + options.steps - 1
            tokens = sum(len(rows[row].input_ids) for step in range(first, last + 1) for row in plan.rows_of(step))
            for name, way in ways.items():
                seconds, losses = way.run(first, last)
                measured[name].losses += losses
                if repeat:  # the first is to warm up
                    measured[name].tokens_per_second.append(tokens / seconds)
                print(f"repeat {repeat} {name}: {tokens / seconds:.0f} tokens/s", file=sys.stderr, flush=True)
    save("train_throughput", figures(measured, ways["ours"], options), machine)


def figures(measured: dict[str, Figures], ours: Any, options: argparse.Namespace) -> dict[str, Any]:
    speed = {name: each.tokens_per_second for name, each in measured.items()}
    mean_loss = {name: statistics.mean(each.losses[-len(each.losses) // 2 :]) for name, each in measured.items()}
    result: dict[str, Any] = {
        "batch_size": options.batch_size,
        "threads": options.threads,
        "repeats": options.repeats,
        "steps_per_repeat": options.steps,
        "way": str(ours.loop.forward.way),
        "tokens_per_second_median": {name: round(statistics.median(values), 1) for name, values in speed.items()},
        "mean_loss_of_second_half": {name: round(value, 4) for name, value in mean_loss.items()},
    }
    for other in ("bare", "lean"):
        ratios = [mine / theirs for mine, theirs in zip(speed["ours"], speed[other], strict=True)]
        result[f"ours_over_{other}"] = {
            "median": round(statistics.median(ratios), 3),
            "min": round(min(ratios), 3),
            "max": round(max(ratios), 3),
        }
        gap = abs(mean_loss["ours"] / mean_loss[other] - 1)
        result[f"loss_gap_to_{other}"] = round(gap, 5)
        if gap > 0.01:
            sys.exit(f"the losses of ours and {other} differ by {gap:.1%}: {mean_loss}; nothing is written")
    return result


if __name__ == "__main__":
    main()
