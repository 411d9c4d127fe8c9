"""The plan's estimates against what runs then take: peak memory, training time, and the time left as told on the way.

    python benchmarks/fit.py --model FOLDER [--tiny FOLDER] [--only NAME ...] [--steps 8]

``FOLDER`` is the starter model as a Transformers folder, ``--tiny`` another whole model. Each configuration is planned
(the first time for a method this measures the machine), then run in a training process of its own; its peak is what
the system says of that process at its end. Rows are made of words, all of about one length. Results are added to
``benchmarks/results/fit.json`` configuration by configuration, so that it can be run in pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import RESULTS, describe_machine, save

from terakoya.bootstrap import Container, build_container
from terakoya.config import Settings
from terakoya.domain.tasks import NewModel
from terakoya.models.artifacts import count_parameters
from terakoya.storage.model_repository import SqlModelRepository
from terakoya.storage.worker_io import read_outcome, write_spec
from terakoya.training.request import TrainingRequest

WORDS = [
    "please",
    "order",
    "lamp",
    "parcel",
    "late",
    "return",
    "broken",
    "invoice",
    "colour",
    "size",
    "where",
    "when",
    "refund",
    "thanks",
    "number",
]


@dataclass(frozen=True, slots=True)
class Configuration:
    name: str
    model: str
    strategy: str
    batch_size: int
    words: int
    """Of each prompt: a token each, about."""
    fields: tuple[tuple[str, Any], ...] = ()


CONFIGURATIONS = (
    Configuration("starter-lora-8x40", "starter", "lora", 8, 40),
    Configuration("starter-lora-8x200", "starter", "lora", 8, 200),
    Configuration("starter-lora-2x700", "starter", "lora", 2, 700),
    Configuration("starter-lora-8x200-recomputed", "starter", "lora", 8, 200, (("gradient_checkpointing", "on"),)),
    Configuration("starter-full-8x40", "starter", "full", 8, 40),
    Configuration("starter-full-4x200", "starter", "full", 4, 200),
    Configuration("tiny-lora-8x40", "tiny", "lora", 8, 40),
    Configuration("tiny-lora-16x150", "tiny", "lora", 16, 150),
    Configuration("tiny-full-8x40", "tiny", "full", 8, 40),
    Configuration("tiny-full-16x150", "tiny", "full", 16, 150),
)


def rows_of(configuration: Configuration) -> bytes:
    drawn = random.Random(configuration.name)
    lines = []
    for number in range(configuration.batch_size * 4 + 4):
        words = [drawn.choice(WORDS) for _ in range(configuration.words)]
        split = "heldout" if number < 4 else "train"
        prompt = f"{' '.join(words)} {number}"
        lines.append(json.dumps({"prompt": prompt, "completion": drawn.choice(WORDS), "split": split}))
    return ("\n".join(lines) + "\n").encode()


def run(container: Container, configuration: Configuration, steps: int, folder: Path) -> dict[str, Any]:
    path = folder / f"{configuration.name}.jsonl"
    path.write_bytes(rows_of(configuration))
    dataset = _imported(container, path, configuration.name)
    request = TrainingRequest.model_validate(
        {"model": configuration.model, "dataset": dataset, "strategy": configuration.strategy}
        | {"batch_size": configuration.batch_size, "max_steps": steps, **dict(configuration.fields)}
    )
    plan = container.plans.plan(request)
    memory, time_ = plan.estimate.memory, plan.estimate.time
    assert memory is not None, plan.problems
    task = folder / configuration.name
    task.mkdir()
    checked = container.training.check(request)
    artifact = SqlModelRepository(container.engine, container.data_dir).load_model(checked.model.id)
    fields = request.model_dump(mode="json", exclude_unset=True)
    spec = container.training.specify("tuned", fields, checked.resolved, artifact, checked.dataset)
    write_spec(task, spec.to_json() | {"task_id": "task_x", "kind": "training", "attempt": 1, "fencing_token": 1})
    with (task / "output.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "terakoya.processes.train", str(task)], stdout=log, stderr=log
        )
        _, _, usage = os.wait4(process.pid, 0)
    outcome = read_outcome(task, 1)
    assert outcome is not None and outcome.error is None, (task / "output.log").read_text()[-2000:]  # noqa: PT018
    peak, seconds = usage.ru_maxrss * 1024, outcome.result["training_seconds"]
    events = [json.loads(line) for line in (task / "events.jsonl").read_bytes().splitlines()]
    return {
        "basis": plan.basis.name,
        "compute_type": outcome.result["effective"]["compute_type"],
        "peak_mb": {"estimated": round(memory.peak / 1e6), "actual": round(peak / 1e6)},
        "peak_error": round(memory.peak / peak - 1, 3),
        "largest_seen_mb": _largest_seen(events),
        "training_seconds": {"estimated": time_ and round(time_.training_seconds, 1), "actual": seconds},
        "time_error": time_ and round(time_.training_seconds / max(seconds, 1e-9) - 1, 3),
        "time_left_error_after_a_quarter": _time_left_error(events, steps),
        "parts_mb": {name: round(size / 1e6) for name, size in memory.to_json().items()},
    }


def _imported(container: Container, path: Path, name: str) -> str:
    from fastapi.testclient import TestClient

    from terakoya.web.app import create_app

    client = TestClient(create_app(container), base_url="http://localhost", client=("127.0.0.1", 50000))
    answer = client.put(f"/api/datasets/{name}?filename={path.name}", content=path.read_bytes())
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _largest_seen(events: list[dict[str, Any]]) -> dict[str, int]:
    """Of each phase the most that was seen of the process between its events: where the peak comes from."""
    phase, found = "start", {}
    for event in events:
        phase = event["phase"] if event["type"] == "phase" else phase
        if event["type"] == "resources":
            found[phase] = max(found.get(phase, 0), round(event["rss_bytes"] / 1e6))
    return found


def _time_left_error(events: list[dict[str, Any]], steps: int) -> float | None:
    """Compare the time left that was told after a quarter of the steps with the time those then took."""
    told = [event for event in events if event["type"] == "step"]
    early = next((event for event in told if event["step"] >= max(steps // 4, 2)), None)
    if early is None or told[-1]["step"] != steps:
        return None
    from datetime import datetime

    taken = (datetime.fromisoformat(told[-1]["time"]) - datetime.fromisoformat(early["time"])).total_seconds()
    return round(early["eta_seconds"] / taken - 1, 3) if taken > 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tiny")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--data", help="a data folder to go on with: what was measured is kept in it")
    options = parser.parse_args()
    machine = describe_machine()
    folders = {"starter": options.model} | ({"tiny": options.tiny} if options.tiny else {})
    with tempfile.TemporaryDirectory() as scratch:
        container = build_container(Settings(data_dir=options.data or Path(scratch) / "data"))
        for name, source in folders.items():
            _register(container, name, Path(source), Path(scratch))
        for configuration in CONFIGURATIONS:
            if configuration.model in folders and (not options.only or configuration.name in options.only):
                found = run(container, configuration, options.steps, Path(scratch))
                print(configuration.name, json.dumps(found), file=sys.stderr, flush=True)
                add(configuration.name, found, machine)


def _register(container: Container, name: str, source: Path, scratch: Path) -> None:
    models = SqlModelRepository(container.engine, container.data_dir)
    if any(model.name == name for model in models.list_models()):
        return
    folder = scratch / name
    folder.mkdir()
    for path in source.iterdir():
        if path.name != "manifest.json":
            (folder / path.name).write_bytes(path.read_bytes())
    parameters = count_parameters(folder)
    models.save_model(NewModel(name, "base", folder, None, "llama", parameters, "apache-2.0", f"folder:{name}"))


def add(name: str, found: dict[str, Any], machine: dict[str, Any]) -> None:
    """Add a configuration's figures to those of earlier pieces, with the errors over all."""
    path = RESULTS / "fit.json"
    figures = json.loads(path.read_text())["figures"] if path.is_file() else {"configurations": {}}
    figures["configurations"][name] = found | {"load_before": machine["load_before"]}
    every = list(figures["configurations"].values())
    for key in ("peak_error", "time_error", "time_left_error_after_a_quarter"):
        errors = [abs(each[key]) for each in every if each[key] is not None]
        if errors:
            figures[key] = {"median": round(statistics.median(errors), 3), "largest": round(max(errors), 3)}
    save("fit", figures, machine)


if __name__ == "__main__":
    main()
