"""The whole promise, measured: a server, a dataset, one call, a report card.

    python benchmarks/train_clinc150.py [--dataset clinc150|sample] [--draws 0 1 2] [--option epochs=2 ...]

``clinc150`` needs ``TERAKOYA_BENCH_DATA``: 1,000 training rows of 25 intents, judged on their test requests (CLINC150,
CC BY 3.0, https://github.com/clinc/oos-eval). Which 25 of the 150 intents decides much, so several draws are taken, a
run each, and told one by one and together. ``sample`` is the bundled inbox. Everything goes through the API, with
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
from terakoya.evaluation.statistics import wilson_interval

INTENTS = 25


def clinc150_rows(split: str, seed: int, draw: int = 0) -> list[dict[str, str]]:
    """Rows of 25 intents, chosen by ``draw`` and shuffled by ``seed``."""
    root = os.environ.get("TERAKOYA_BENCH_DATA")
    path = Path(root or "") / "clinc150" / f"{split}.jsonl"
    if not root or not path.is_file():
        sys.exit("set TERAKOYA_BENCH_DATA to the folder that holds clinc150/train.jsonl and test.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    intents = sorted({row["intent"] for row in rows})
    chosen = set(random.Random(draw).sample(intents, INTENTS))
    rows = [row for row in rows if row["intent"] in chosen]
    random.Random(seed).shuffle(rows)
    return rows


def write_clinc150(path: Path, *, rows: int, heldout: int, draw: int) -> None:
    parts = [("train", clinc150_rows("train", 1, draw)[:rows]), ("heldout", clinc150_rows("test", 2, draw)[:heldout])]
    with path.open("w") as file:
        for split, part in parts:
            for row in part:
                file.write(json.dumps({"prompt": row["text"], "completion": row["intent"], "split": split}) + "\n")


def measure(client: Client, dataset: str, options: dict[str, Any], *, model: str = STARTER) -> dict[str, Any]:
    """Train, and return what the report card says with the clock's figures."""
    started = time.perf_counter()
    task_id = client.train(model, dataset, **options)
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
    parser.add_argument("--heldout", type=int, default=500, help="requests of each draw")
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--option", type=parsed_option, action="append", default=[], help="a TrainingRequest field as JSON"
    )
    arguments = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with server(root / "data") as (url, _, _), Client(url) as client:
            wait_for_starter(client)
            options = dict(arguments.option)
            if arguments.dataset == "sample":
                figures = measure(client, DATASET, options)
            else:
                figures = {"draws": {}}
                for draw in arguments.draws:
                    path = root / f"clinc150-{draw}.jsonl"
                    write_clinc150(path, rows=arguments.rows, heldout=arguments.heldout, draw=draw)
                    client.datasets.add(path, name=path.stem)
                    figures["draws"][draw] = measure(client, path.stem, options)
                    print(f"draw {draw}: {figures['draws'][draw]['verdict']}", file=sys.stderr, flush=True)
                figures["together"] = together(list(figures["draws"].values()))
    save(f"train_{arguments.dataset}", figures, machine)


def together(draws: list[dict[str, Any]]) -> dict[str, Any]:
    """Exact match over the requests of all draws, and the longest of their times."""
    examples = [draw["heldout"]["examples"] for draw in draws]
    found: dict[str, Any] = {"examples": sum(examples)}
    for moment in ("before", "after"):
        right = [
            round(draw["heldout"]["exact_match"][moment]["value"] * count)
            for draw, count in zip(draws, examples, strict=True)
        ]
        interval = wilson_interval(sum(right), sum(examples))
        found[moment] = {"value": interval.value, "low": interval.low, "high": interval.high}
    found["longest_training_seconds"] = max(draw["cost"]["training_seconds"] for draw in draws)
    found["longest_wall_seconds"] = max(draw["wall_seconds"] for draw in draws)
    return found


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
