"""Every objective and adapter kind once on real rows, a process each: what it learns, how fast, in how much memory.

    python benchmarks/methods.py --model FOLDER [--steps 30] [--threads 2] [--only NAME ...]

``FOLDER`` is the starter model as a Transformers folder; ``TERAKOYA_BENCH_DATA`` holds clinc150 and scifact. Questions
of 25 intents: 240 to learn from and 60 held out. Pairs are the same questions with the right intent and another one,
text is the abstracts of papers. One run each, so speeds tell orders, not percents. Writes
``benchmarks/results/methods.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import describe_machine, save

ROWS, HELDOUT = 240, 60
WAYS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora r64": {"adapter": {"kind": "rslora", "rank": 64}},
    "dora": {"adapter": {"kind": "dora"}},
    "qlora": {"adapter": {"kind": "qlora"}},
    "full": {"strategy": "full"},
    "text": {"objective": "text"},
    "dpo": {"objective": "dpo"},
    "dpo, full": {"objective": "dpo", "strategy": "full"},
    "orpo": {"objective": "orpo"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(WAYS))
    parser.add_argument("--one", choices=list(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one, options.model, options.steps, options.threads)))
        return
    machine, found = describe_machine(), {}
    for name in options.only or WAYS:
        command = [sys.executable, *sys.argv, "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, json.dumps(found[name]), flush=True)
    save("methods", {"steps": options.steps, "threads": options.threads, "ways": found}, machine)


def run(name: str, model: Path, steps: int, threads: int) -> dict[str, Any]:
    from terakoya.data.examples import to_line
    from terakoya.training.defaults import resolve
    from terakoya.training.objectives.methods import OBJECTIVES
    from terakoya.training.request import TrainingRequest
    from terakoya.training.run import TrainingRun
    from terakoya.training.spec import RunSpec

    request = TrainingRequest.model_validate(
        {"model": "m", "dataset": "d", "max_steps": steps, "evaluation": {"max_examples": HELDOUT}} | WAYS[name]
    )
    kind = OBJECTIVES.load(request.objective or "supervised").learns_from[0]
    told: list[dict[str, Any]] = []

    class Ears:
        def notify(self, type: str, /, **fields: Any) -> None:
            told.append({"type": str(type), **fields})

    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_bytes(b"".join(map(to_line, examples(str(kind)))))
        spec = RunSpec(
            name="tuned",
            request={},
            resolved=resolve(request, parameters=134_515_008, rows=ROWS, kind=kind),
            model=artifact(model),
            dataset_id="data",
            dataset_name="rows",
            dataset_sha256=hashlib.sha256(rows.read_bytes()).hexdigest(),
            rows_path=rows,
            evaluation_cache=Path(folder) / "cache",
            threads=threads,
        )
        outcome = TrainingRun(
            spec, task_id="task", task_dir=Path(folder), attempt=1, observer=Ears(), requested_action=lambda: None
        ).execute()
        report = json.loads((Path(folder) / "report.json").read_bytes())
        adapter = Path(folder) / "result"
        size = sum(file.stat().st_size for file in adapter.glob("*.safetensors"))
    assert outcome.result is not None
    measures = ("exact_match", "loss", "preference_accuracy", "preference_margin")
    return {
        **{
            measure: [round(report["heldout"][measure][side]["value"], 4) for side in ("before", "after")]
            for measure in measures
            if report["heldout"].get(measure)
        },
        "tokens_per_second": report["cost"]["tokens_per_second"],
        "training_seconds": report["cost"]["training_seconds"],
        "peak_rss_bytes": report["cost"]["peak_rss_bytes"],
        "learning_rate": spec.resolved.learning_rate,
        "compute_type": outcome.result["effective"]["compute_type"],
        "forward": outcome.result["effective"]["forward"],
        "trained_parameters": outcome.result["effective"]["trained_parameters"],
        "result_bytes": size,
        "steps": [event["loss"] for event in told if event["type"] == "step"][:: max(steps // 6, 1)],
    }


def examples(kind: str) -> list[Any]:
    from train_clinc150 import clinc150_rows

    from terakoya.domain.datasets import Example, Message, Split

    made: list[Any] = []
    if kind == "text":
        path = Path(os.environ["TERAKOYA_BENCH_DATA"]) / "scifact" / "corpus.jsonl"
        with path.open(encoding="utf-8") as file:
            for number, line in zip(range(1, ROWS + HELDOUT + 1), file, strict=False):
                text = json.loads(line)["text"]
                made.append(Example(number, (), Split.HELDOUT if number > ROWS else Split.TRAIN, text=text))
        return made
    rows = clinc150_rows("train", 1)[: ROWS + HELDOUT]
    intents = sorted({row["intent"] for row in rows})
    for number, row in enumerate(rows, start=1):
        other = intents[(intents.index(row["intent"]) + 1 + number % (len(intents) - 1)) % len(intents)]
        turns = (Message("user", row["text"]), Message("assistant", row["intent"]))
        split = Split.HELDOUT if number > ROWS else Split.TRAIN
        made.append(Example(number, turns, split, rejected=other if kind == "preference" else None))
    return made


def artifact(folder: Path) -> Any:
    from datetime import UTC, datetime

    from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind

    info = ModelInfo(
        id="model",
        name=folder.name,
        kind=ModelKind.BASE,
        architecture="llama",
        parameters=134_515_008,
        size_bytes=0,
        content_sha256=hashlib.sha256(str(folder).encode()).hexdigest(),
        source="folder",
        license="Apache-2.0",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return ModelArtifact(info, folder, None)


if __name__ == "__main__":
    main()
