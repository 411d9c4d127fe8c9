"""The whole promise, measured: a server, a dataset, one call, a report card.

    python benchmarks/train_clinc150.py [--dataset clinc150|sample] [--heldout 300] [--option epochs=2 ...]

``clinc150`` needs ``TERAKOYA_BENCH_DATA``: 1,000 training rows of 25 intents, judged on their test requests (CLINC150,
CC BY 3.0, https://github.com/clinc/oos-eval). ``sample`` is the bundled inbox. Everything goes through the API, with
default settings unless ``--option`` says otherwise; the clock runs from POST /api/train to the end of the task. Writes
``benchmarks/results/train_<dataset>.json``.
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

INTENTS = 25


def clinc150_rows(split: str, seed: int) -> list[dict[str, str]]:
    """Rows of 25 intents, chosen once and shuffled."""
    root = os.environ.get("TERAKOYA_BENCH_DATA")
    path = Path(root or "") / "clinc150" / f"{split}.jsonl"
    if not root or not path.is_file():
        sys.exit("set TERAKOYA_BENCH_DATA to the folder that holds clinc150/train.jsonl and test.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    intents = sorted({row["intent"] for row in rows})
    chosen = set(random.Random(0).sample(intents, INTENTS))
    rows = [row for row in rows if row["intent"] in chosen]
    random.Random(seed).shuffle(rows)
    return rows


def write_clinc150(path: Path, *, rows: int, heldout: int) -> None:
    parts = [("train", clinc150_rows("train", 1)[:rows]), ("heldout", clinc150_rows("test", 2)[:heldout])]
    with path.open("w") as file:
        for split, part in parts:
            for row in part:
                file.write(json.dumps({"prompt": row["text"], "completion": row["intent"], "split": split}) + "\n")


def measure(client: Client, dataset: str, options: dict[str, Any]) -> dict[str, Any]:
    """Train, and return what the report card says with the clock's figures."""
    started = time.perf_counter()
    task_id = client.train(STARTER, dataset, **options)
    phases: dict[str, float] = {}
    for event in client.watch(task_id):
        name = event["phase"] if event["type"] == "phase" else "first_step" if event["type"] == "step" else None
        if name is not None:
            phases.setdefault(name, round(time.perf_counter() - started, 1))
    seconds = time.perf_counter() - started
    run = client.runs.get(task_id)
    if run["state"] != "succeeded":
        sys.exit(f"the run {run['state']}: {run['error']}")
    report = run["report"]
    return {
        "wall_seconds": round(seconds, 1),
        "phases_began_at": phases,
        "heldout": report["heldout"],
        "verdict": report["verdict"]["text"],
        "cost": report["cost"],
        "configuration": report["configuration"],
        "asked": options,
    }


def parsed_option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=["clinc150", "sample"], default="clinc150")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--heldout", type=int, default=300)
    parser.add_argument(
        "--option", type=parsed_option, action="append", default=[], help="a TrainingRequest field as JSON"
    )
    arguments = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with server(root / "data") as (url, _, _), Client(url) as client:
            wait_for_starter(client)
            dataset = DATASET
            if arguments.dataset == "clinc150":
                dataset = "clinc150"
                write_clinc150(root / "clinc150.jsonl", rows=arguments.rows, heldout=arguments.heldout)
                client.datasets.add(root / "clinc150.jsonl", name=dataset)
            figures = measure(client, dataset, dict(arguments.option))
    save(f"train_{arguments.dataset}", figures, machine)


def wait_for_starter(client: Client) -> None:
    """The starter model is pulled if the server has not begun that by itself."""
    pulls = [task for task in client.tasks.list() if task["kind"] == "pull"]
    if not pulls and STARTER not in {model["name"] for model in client.models.list()}:
        client.models.pull(STARTER)
        pulls = [task for task in client.tasks.list() if task["kind"] == "pull"]
    for task in pulls:
        for _ in client.watch(task["id"]):
            pass


if __name__ == "__main__":
    main()
