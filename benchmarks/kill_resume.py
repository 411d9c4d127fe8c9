"""Whether a run that is killed again and again ends as if it had not been: SIGKILL to trainers at random moments, and
to the web server under a run, each followed by what the server does by itself. No step may be lost, and the weights at
the end must have the SHA-256 of an uninterrupted run.

    python benchmarks/kill_resume.py trainer --strategy lora --kills 10
    python benchmarks/kill_resume.py trainer --strategy full --kills 2 --model FOLDER --steps 12
    python benchmarks/kill_resume.py server --kills 20

``--model`` is a folder with a Transformers model; without it a tiny Llama is made. Each call adds its cases to
``benchmarks/results/kill_resume.json``, so that long series can be taken in pieces.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from machine import RESULTS, describe_machine, save
from serving import DATASET, server

from terakoya import Client

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.tiny_model import build_tiny_model

NAME = "kill_resume"
WEIGHTS = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}


class Bench:
    """A data folder with one model, the server on it, and the runs that are compared."""

    def __init__(self, folder: Path, model: Path | None, options: argparse.Namespace) -> None:
        self.data_dir = folder / "data"
        self.options = options
        models = folder / "models"
        if model is None:
            build_tiny_model(models / "base", layers=4, hidden=128)
        else:
            shutil.copytree(model, models / "base")
        os.environ["HF_HUB_OFFLINE"] = "1"
        self.settings = {
            "TERAKOYA_IMPORT_DIR": str(models),
            "TERAKOYA_TRAINING_MAX_RESTARTS": "100",
            "TERAKOYA_RESTART_PAUSE_SECONDS": "0",
            "TERAKOYA_TRAINING_THREADS": "1",
        }
        self.references: dict[str, str] = {}

    def server(self) -> Any:
        return server(self.data_dir, **self.settings)

    def prepare(self) -> None:
        with self.server() as (url, _, _), Client(url) as client:
            wait_for_end(client, client.models.pull("folder:base", name="base"))

    def start(self, client: Client) -> str:
        return client.train(
            "base",
            DATASET,
            strategy=self.options.strategy,
            max_steps=self.options.steps,
            learning_rate=1e-3,
            schedule={"checkpoint_minutes": self.options.checkpoint_seconds / 60},
            evaluation={"max_examples": 4, "max_new_tokens": 4},
        )

    def ending(self, client: Client, task_id: str) -> dict[str, Any]:
        """What a run came to; the weights are hashed as they lie in the store."""
        run = client.runs.get(task_id)
        if run["state"] != "succeeded":
            sys.exit(f"the run {run['state']}: {run['error']}")
        files = list(self.data_dir.glob(f"models/*/{WEIGHTS[self.options.strategy]}"))
        card = f"run `{task_id}`"
        (weights,) = (file for file in files if card in (file.parent / "README.md").read_text(encoding="utf-8"))
        effective = run["result"]["effective"]
        return {
            "steps": effective["steps"],
            "computed_as": f"{effective['compute_type']}, {effective['forward']}",
            "attempts": run["attempt"],
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        }

    def reference(self, client: Client, computed_as: str) -> str:
        """The hash of an uninterrupted run that computed in the same type: on a small model two probes may differ."""
        for _ in range(4):
            if computed_as in self.references:
                return self.references[computed_as]
            task_id = self.start(client)
            wait_for_end(client, task_id)
            whole = self.ending(client, task_id)
            self.references[whole["computed_as"]] = whole["sha256"]
        sys.exit(f"no uninterrupted run computed as {computed_as!r}; others: {list(self.references)}")


def wait_for_end(client: Client, task_id: str) -> None:
    *_, last = client.watch(task_id)
    if last.get("status") != "succeeded":
        sys.exit(json.dumps(last))


def trainer_of(task_id: str) -> psutil.Process | None:
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "terakoya.processes.train" in command and command[-1].endswith(task_id):
            return process
    return None


def kill_trainers(bench: Bench, client: Client, kills: int) -> dict[str, Any]:
    """Kill one run's trainers so often, most of them while they train, each at a random moment."""
    task_id = bench.start(client)
    log = bench.data_dir / "tasks" / task_id / "events.jsonl"
    killed: list[str] = []
    last_pid = 0
    while len(killed) < kills:
        if client.tasks.get(task_id)["state"] in ("succeeded", "failed"):
            break  # it was faster than we were
        process = trainer_of(task_id)
        if process is None or process.pid == last_pid:
            time.sleep(0.02)
            continue
        seen = log.stat().st_size
        wants_training = random.random() < 0.75
        patience = time.monotonic() + 120
        while wants_training and process.is_running() and time.monotonic() < patience:
            if b'"type":"step"' in tail(log, seen).replace(b" ", b""):
                break
            time.sleep(0.01)
        time.sleep(random.uniform(0, bench.options.spread))
        phase = phase_in(tail(log, seen))
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
        last_pid = process.pid
        killed.append(phase)
    wait_for_end(client, task_id)
    ending = bench.ending(client, task_id)
    events = client.tasks.events(task_id)
    restarts = [event for event in events if event.get("code") == "restarted"]
    return verdict(bench, client, ending) | {
        "kills": len(killed),
        "killed_in": count(killed),
        "restarts": len(restarts),
    }


def kill_servers(bench: Bench, kills: int) -> dict[str, Any]:
    """Kill the web server so often under one run, at random moments; each next one finds the run."""
    task_id = ""
    done = 0
    while done < kills:
        with bench.server() as (url, pid, _), Client(url) as client:
            task_id = task_id or bench.start(client)
            while client.tasks.get(task_id)["state"] in ("queued", "preparing"):
                time.sleep(0.02)
            if client.tasks.get(task_id)["state"] == "succeeded":
                sys.exit(f"the run ended after {done} kills; give it more --steps")
            time.sleep(random.uniform(0, bench.options.spread))
            os.kill(pid, signal.SIGKILL)
            done += 1
    with bench.server() as (url, _, _), Client(url) as client:
        wait_for_end(client, task_id)
        ending = bench.ending(client, task_id)
        return verdict(bench, client, ending) | {"kills": done, "finished_events": finished(client, task_id)}


def verdict(bench: Bench, client: Client, ending: dict[str, Any]) -> dict[str, Any]:
    reference = bench.reference(client, ending["computed_as"])
    return {
        "steps": ending["steps"],
        "steps_lost": bench.options.steps - ending["steps"],
        "computed_as": ending["computed_as"],
        "attempts": ending["attempts"],
        "sha256": ending["sha256"],
        "sha256_uninterrupted": reference,
        "identical": ending["sha256"] == reference,
    }


def finished(client: Client, task_id: str) -> int:
    return sum(event["type"] == "finished" for event in client.tasks.events(task_id))


def tail(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read()


def phase_in(text: bytes) -> str:
    phases = [json.loads(line).get("phase") for line in text.splitlines()[:-1] if b'"phase"' in line]
    return next((phase for phase in reversed(phases) if phase), "starting")


def count(names: list[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}


def add_case(case: dict[str, Any], machine: dict[str, Any]) -> None:
    path = RESULTS / f"{NAME}.json"
    cases = json.loads(path.read_text(encoding="utf-8"))["figures"]["cases"] if path.is_file() else []
    cases.append(case)
    totals = {
        f"{what}_kills": sum(each["kills"] for each in cases if each["killed"] == what)
        for what in ("trainer", "server")
    }
    totals |= {
        "steps_lost": sum(each["steps_lost"] for each in cases),
        "all_identical": all(each["identical"] for each in cases),
    }
    save(NAME, {"totals": totals, "cases": cases}, machine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("killed", choices=("trainer", "server"))
    parser.add_argument("--strategy", choices=tuple(WEIGHTS), default="lora")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--checkpoint-seconds", type=float, default=1.0)
    parser.add_argument("--spread", type=float, default=2.0, help="a kill comes so many seconds late at most")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    random.seed(options.seed)
    machine = describe_machine()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.model, options)
        bench.prepare()
        if options.killed == "server":
            case = kill_servers(bench, options.kills)
        else:
            with bench.server() as (url, _, _), Client(url) as client:
                case = kill_trainers(bench, client, options.kills)
    model = "tiny Llama, 4 layers of 128" if options.model is None else options.model.name
    facts = {"killed": options.killed, "strategy": options.strategy, "model": model}
    add_case(facts | case | {"seconds": round(time.monotonic() - started, 1)}, machine)
    if not case["identical"] or case["steps_lost"]:
        sys.exit("the killed run did not end as the uninterrupted one")


if __name__ == "__main__":
    main()
