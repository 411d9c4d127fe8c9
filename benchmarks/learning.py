"""What a run with default settings teaches the starter model, and how long a person waits for it.

    python benchmarks/learning.py clinc150      1,000 rows of 25 intents (needs TERAKOYA_BENCH_DATA)
    python benchmarks/learning.py sample        the bundled inbox
    options: --set learning_rate=5e-4 --set epochs=2 ...  other fields of the request, as JSON

The whole way through a real server: upload, POST /api/train, report card. Figures are the report card's own; wall
seconds count from the request to the finished event, evaluation before and after included. Writes
``benchmarks/results/learning-<data>.json``.

CLINC150: clinc/oos-eval on GitHub, CC BY 3.0; ``$TERAKOYA_BENCH_DATA/clinc150/{train,test}.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import describe_machine, save
from serving import DATASET, STARTER, server

from terakoya import Client

INTENTS, ROWS, HELDOUT_ROWS, SEED = 25, 1000, 400, 0


def clinc150(target: Path) -> Path:
    """Write rows of 25 intents drawn by seed, 1,000 to learn from and 400 held out of the set's own test split."""
    root = os.environ.get("TERAKOYA_BENCH_DATA")
    if root is None:
        sys.exit("set TERAKOYA_BENCH_DATA to the folder that holds clinc150/train.jsonl and clinc150/test.jsonl")
    read = {split: _lines(Path(root) / "clinc150" / f"{split}.jsonl") for split in ("train", "test")}
    draw = random.Random(SEED)
    intents = set(draw.sample(sorted({row["intent"] for row in read["train"]}), INTENTS))
    with target.open("w", encoding="utf-8") as file:
        for split, kind, most in (("train", "train", ROWS), ("test", "heldout", HELDOUT_ROWS)):
            rows = [row for row in read[split] if row["intent"] in intents]
            for row in draw.sample(rows, min(most, len(rows))):
                fields = {"prompt": row["text"], "completion": row["intent"], "split": kind}
                file.write(json.dumps(fields, ensure_ascii=False) + "\n")
    return target


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(client: Client, dataset: str, settings: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    task_id = client.train(STARTER, dataset, **settings)
    phases: dict[str, float] = {}
    for event in client.watch(task_id):
        if event["type"] in ("phase", "step"):
            phases.setdefault(event.get("phase", "first_step"), round(time.perf_counter() - started, 1))
            if event["type"] == "step":
                print(
                    f"\rstep {event['step']}/{event['total_steps']} loss {event['loss']:.3f}", end="", file=sys.stderr
                )
    wall = time.perf_counter() - started
    found = client.runs.get(task_id)
    if found["state"] != "succeeded":
        sys.exit(f"the run {found['state']}: {found['error']}")
    report = found["report"]
    return {
        "wall_seconds": round(wall, 1),
        "phases_began_at_seconds": phases,
        "heldout": report["heldout"],
        "flips": report["flips"],
        "verdict": report["verdict"],
        "cost": report["cost"],
        "settings": settings,
        "resolved": found["resolved"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["clinc150", "sample"])
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=JSON")
    options = parser.parse_args()
    settings = {name: json.loads(value) for name, _, value in (each.partition("=") for each in options.set)}
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "data") as (url, _, _), Client(url) as client:
        *_, last = client.watch(client.models.pull(STARTER))
        if last.get("status") != "succeeded":
            sys.exit(json.dumps(last))
        dataset = DATASET
        if options.data == "clinc150":
            dataset = client.datasets.add(clinc150(Path(folder) / "clinc150.jsonl"), name="clinc150")["name"]
        figures = run(client, dataset, settings)
    print(f"\nwritten to {save(f'learning-{options.data}', figures, machine)}", file=sys.stderr)


if __name__ == "__main__":
    main()
