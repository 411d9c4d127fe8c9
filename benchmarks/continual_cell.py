"""One method through one order of tasks, for ``continual_clinc.py``: real training runs of strategy ``ewc``, one after
another in this process, each going on from the last, with every task scored after each. Knows no other cell.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from methods import artifact
from torch import nn
from transformers import AutoTokenizer

from terakoya.data.examples import to_line
from terakoya.data.tokenization import EncodedExample, encode_examples
from terakoya.domain.datasets import Example, Message, Split
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.evaluation.canaries import canary_set, evaluate_canaries
from terakoya.models.evaluating import evaluating
from terakoya.models.factory import create_model_loader, loader_type
from terakoya.models.label_forward import LabelForward
from terakoya.models.packing import label_count
from terakoya.models.row_likelihood import row_sums
from terakoya.training.defaults import resolve
from terakoya.training.request import TrainingRequest
from terakoya.training.retention import ChainPlace
from terakoya.training.run import Prepared, TrainingRun
from terakoya.training.spec import RunSpec

DOMAINS = ("banking", "credit_cards", "kitchen_and_dining", "travel", "utility")
PARAMETERS = 134_515_008
_SCORED_AT_ONCE = 48
"""Rows."""
_LIKELIHOOD_ROWS = 12
"""Of each task, by how likely every answer is to them; that is 20 to 75 answers a row."""


@dataclass(frozen=True)
class Size:
    """How much of CLINC150 a tier takes."""

    intents: int
    """Of each domain."""
    rows: int
    """Training rows of an intent."""
    scored: int
    """Held-out rows of an intent."""
    epochs: float
    """Over a task's own rows, were there no earlier ones among them."""
    batch: int = 8


@dataclass(frozen=True)
class Cell:
    """What is run: everything that a result depends on, beside size and model."""

    protocol: str
    """"named": the request says its domain; "unnamed": it does not, so answers of all tasks compete."""
    method: str
    order: int
    seed: int = 0
    space: str = "lora"
    rate: float = 1e-3
    strength: float | None = None
    """A fixed lambda; None where the method has none, or a budget."""
    judged_on: str = "test"
    tasks: int = len(DOMAINS)

    @property
    def name(self) -> str:
        parts = [self.space, self.protocol, self.method.replace(" ", "-"), f"order{self.order}", f"seed{self.seed}"]
        strength = [] if self.strength is None else [f"lambda{self.strength:g}"]
        short = [] if self.tasks == len(DOMAINS) else [f"{self.tasks}tasks"]
        return "_".join([*parts, f"rate{self.rate:g}", *strength, *short, self.judged_on])


RETENTION: dict[str, dict[str, Any]] = {
    "naive": {"regulariser": {"strength": 0.0, "sequences": 1}, "replay": {"share": 0.0}},
    "ewc": {"replay": {"share": 0.0}},
    "soft replay": {"regulariser": {"strength": 0.0, "sequences": 1}},
    "default": {},
}
"""What a request says; the rest are the product's defaults."""


def domain_order(order: int) -> list[str]:
    """Alphabetical for 0, then shuffled ones."""
    domains = list(DOMAINS)
    if order:
        random.Random(order).shuffle(domains)
    return domains


def examples(protocol: str, domain: str, split: str, size: Size) -> list[Example]:
    """Rows of a domain's chosen intents, the same for every cell, shuffled."""
    root = os.environ.get("TERAKOYA_BENCH_DATA")
    path = Path(root or "") / "clinc150" / f"{split}.jsonl"
    if not root or not path.is_file():
        sys.exit("set TERAKOYA_BENCH_DATA to the folder that holds clinc150/train.jsonl, val.jsonl and test.jsonl")
    rows = [row for row in map(json.loads, path.read_text().splitlines()) if row["domain"] == domain]
    intents = sorted(random.Random(0).sample(sorted({row["intent"] for row in rows}), size.intents))
    random.Random(1).shuffle(rows)
    many = size.rows if split == "train" else size.scored
    chosen = [row for intent in intents for row in [each for each in rows if each["intent"] == intent][:many]]
    random.Random(2).shuffle(chosen)
    naming = f"{domain.replace('_', ' ').capitalize()}: " if protocol == "named" else ""
    return [
        Example(number, (Message("user", naming + row["text"]), Message("assistant", row["intent"])))
        for number, row in enumerate(chosen, start=1)
    ]


class ScoredRun(TrainingRun):
    """A run that is judged on every task of the sequence instead of its own held-out rows."""

    judges: Scorer

    def _judge(self, prepared: Prepared, effective: dict[str, Any], cost: dict[str, Any]) -> tuple[None, None]:
        self.cost = cost
        self.scores = self.judges.scores(prepared.module, prepared.forward, prepared.accelerator.autocast)
        return None, None


class Scorer:
    """Looks at all tasks after the last run, at those learned after the others."""

    def __init__(self, cell: Cell, size: Size, tokenizer: Any) -> None:
        self.rows_taken, self.rows_to_take = 0, 1 if cell.method in ("joint", "base") else cell.tasks
        self.parts: list[list[EncodedExample]] = []
        self.answers: list[str] = []
        for domain in domain_order(cell.order)[: cell.tasks]:
            rows = examples(cell.protocol, domain, cell.judged_on, size)
            self.answers += sorted({row.messages[-1].content for row in rows})
            self.parts.append(encode_examples(rows, tokenizer).complete())
        self.ends = [_answer_ids(answer, tokenizer) for answer in self.answers]
        self.tokenizer = tokenizer

    def scores(
        self, module: nn.Module, forward: LabelForward, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> dict[str, Any]:
        """Of the tasks learned so far; what is dear only at the end."""
        started = time.perf_counter()
        self.rows_taken += 1
        is_last = self.rows_taken == self.rows_to_take
        learned = self.parts if is_last else self.parts[: self.rows_taken]
        found: dict[str, Any] = {}
        with evaluating(module), torch.inference_mode(), autocast():
            told = [self.exact(forward, part) for part in learned]
            if is_last:
                found["likeliest"] = [self.likeliest(forward, part[:_LIKELIHOOD_ROWS]) for part in self.parts]
                found["canary_nats"] = [round(each, 3) for each in self.canaries(module)]
        return {
            "exact": [[float(right) for right, _, _ in part] for part in told],
            "nats": [[round(nats, 4) for _, nats, _ in part] for part in told],
            "labels": [[labels for _, _, labels in part] for part in told],
            **found,
            "seconds": round(time.perf_counter() - started, 1),
        }

    def exact(self, forward: LabelForward, rows: list[EncodedExample]) -> list[tuple[bool, float, int]]:
        """Whether greedy decoding would write the answer and end it: it does if each label is the likeliest token
        after all before it. With the nats of the answer and the number of its labels."""
        told = []
        for start in range(0, len(rows), _SCORED_AT_ONCE):
            batch = rows[start : start + _SCORED_AT_ONCE]
            losses, likeliest = forward.predict(batch)
            labels = torch.tensor([token for row in batch for token in row.answer_ids], device=likeliest.device)
            counts = [label_count(row) for row in batch]
            right = [bool(part.all()) for part in (likeliest == labels).split(counts)]
            told += list(zip(right, row_sums(losses, batch).tolist(), counts, strict=True))
        return told

    def likeliest(self, forward: LabelForward, rows: list[EncodedExample]) -> list[float]:
        """Whether the right answer is the likeliest of all tasks' answers, by the mean log-likelihood of a label."""
        found = []
        for row in rows:
            prompt = row.prompt_ids
            asked = [
                replace(row, input_ids=prompt + end, label_spans=((len(prompt), len(prompt) + len(end)),))
                for end in self.ends
            ]
            sums = row_sums(forward.losses(asked), asked)
            means = sums / torch.tensor([len(end) for end in self.ends])
            found.append(float(self.ends[int(means.argmin())] == row.answer_ids))
        return found

    def canaries(self, module: nn.Module) -> list[float]:
        """English only: the model has no Japanese to lose."""
        return evaluate_canaries(module, self.tokenizer, canary_set("en")).nats


def _answer_ids(answer: str, tokenizer: Any) -> list[int]:
    row = Example(1, (Message("user", "x"), Message("assistant", answer)))
    return list(encode_examples([row], tokenizer).complete()[0].answer_ids)


class Ears:
    """Keeps what the run told of calibration and canaries."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def notify(self, type: str, /, **fields: Any) -> None:
        if str(type) in ("canary", "warning") or "lambda" in str(fields.get("message", "")):
            self.told.append({"type": str(type), **fields})


def run_cell(cell: Cell, size: Size, model: Path, threads: int) -> dict[str, Any]:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        work = {"base": _base, "joint": _joint}.get(cell.method, _sequence)
        found = work(cell, size, model, threads, Path(folder))
    return {
        "cell": asdict(cell),
        "size": asdict(size),
        "order": domain_order(cell.order)[: cell.tasks],
        **found,
        "threads": threads,
        "seconds": round(time.perf_counter() - started, 1),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _base(cell: Cell, size: Size, model: Path, threads: int, folder: Path) -> dict[str, Any]:
    """Row 0: the model before any task."""
    torch.set_num_threads(threads)
    opened = artifact(model)
    loaded = create_model_loader(loader_type(opened)).load(opened, dtype="bfloat16", device="cpu")
    scorer = Scorer(cell, size, loaded.tokenizer)
    autocast = partial(torch.autocast, "cpu", torch.bfloat16)
    with autocast():
        forward = LabelForward.choose(loaded.module, scorer.parts[0][:3])
    return {"rows": [scorer.scores(loaded.module, forward, autocast)], "costs": []}


def _joint(cell: Cell, size: Size, model: Path, threads: int, folder: Path) -> dict[str, Any]:
    domains = domain_order(cell.order)[: cell.tasks]
    rows = [row for domain in domains for row in examples(cell.protocol, domain, "train", size)]
    run = _run(cell, size, artifact(model), rows, folder, "joint", threads, None, _steps(size) * cell.tasks)
    run.judges = Scorer(cell, size, AutoTokenizer.from_pretrained(model))
    run.execute()
    return {"rows": [run.scores], "costs": [run.cost]}


def _sequence(cell: Cell, size: Size, model: Path, threads: int, folder: Path) -> dict[str, Any]:
    base = artifact(model)
    scorer = Scorer(cell, size, AutoTokenizer.from_pretrained(model))
    before, link = base, None
    found: dict[str, list[Any]] = {"rows": [], "costs": [], "told": [], "chain": []}
    for number, domain in enumerate(domain_order(cell.order)[: cell.tasks], start=1):
        place = ChainPlace(
            directory=folder / "chain",
            number=number,
            name=domain.replace("_", "-"),
            base_sha256=base.info.content_sha256,
            parent=link and link["link"],
            parent_sha256=link and link["sha256"],
        )
        rows = examples(cell.protocol, domain, "train", size)
        run = _run(cell, size, before, rows, folder, domain, threads, place, _steps(size))
        run.judges = scorer
        outcome = run.execute()
        assert outcome.model is not None
        link = outcome.model["card"]["chain"]
        found["rows"].append(run.scores)
        found["costs"].append(run.cost)
        found["told"].append(cast(Ears, run.observer).told)
        found["chain"].append({name: link[name] for name in ("lambda", "kept_rows", "state_bytes")})
        before = _artifact_of(outcome.model, folder / domain / "result", base)
        print(cell.name, domain, [round(sum(part) / len(part), 3) for part in run.scores["exact"]], file=sys.stderr)
    return found


def _steps(size: Size) -> int:
    """Of a task, the same for every method: with earlier rows among them these are ``epochs`` over its own."""
    return round(size.epochs * size.intents * size.rows / size.batch)


def _run(
    cell: Cell,
    size: Size,
    model: ModelArtifact,
    rows: list[Example],
    folder: Path,
    name: str,
    threads: int,
    place: ChainPlace | None,
    steps: int,
) -> ScoredRun:
    retention = {"heldout_rows": 0} | RETENTION.get(cell.method, {})  # a cell scores the tasks itself
    if cell.strength is not None:
        retention["regulariser"] = {"strength": cell.strength}
    strategy = {"strategy": "ewc", "base": cell.space, "retention": retention} if place else {"strategy": cell.space}
    request = TrainingRequest.model_validate(
        {
            "model": "model",
            "dataset": name,
            "max_steps": steps,
            "batch_size": size.batch,
            "learning_rate": cell.rate,
            "seed": cell.seed,
            # one row is held out, as a run wants; it is not looked at
            "evaluation": {"max_examples": 1, "every_steps": 10_000_000},
        }
        | strategy
    )
    kept = [*rows, replace(rows[0], split=Split.HELDOUT)]
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"".join(map(to_line, kept)))
    directory = folder / name
    directory.mkdir()
    spec = RunSpec(
        name=name,
        request=request.model_dump(mode="json", exclude_unset=True),
        resolved=resolve(request, parameters=PARAMETERS, rows=len(rows)),
        model=model,
        dataset_id="data",
        dataset_name=name,
        dataset_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        rows_path=path,
        evaluation_cache=folder / "cache",
        threads=threads,
        chain=place,
    )
    return ScoredRun(
        spec, task_id="task", task_dir=directory, attempt=1, observer=Ears(), requested_action=lambda: None
    )


def _artifact_of(made: dict[str, Any], path: Path, base: ModelArtifact) -> ModelArtifact:
    """What the registry would make of a run's result."""
    fields = {name: value for name, value in made.items() if name != "directory"}
    kind = ModelKind(fields["kind"])
    info = ModelInfo(
        **fields
        | {
            "id": path.parent.name,
            "kind": kind,
            "size_bytes": 0,
            "content_sha256": hashlib.sha256(path.parent.name.encode()).hexdigest(),
            "created_at": base.info.created_at,
        }
    )
    return ModelArtifact(info, path, base if kind is ModelKind.ADAPTER else None)
