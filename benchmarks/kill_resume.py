"""Whether a run that is killed again and again ends as if it had not been: SIGKILL to trainers at random moments, and
to the web server under a run, each followed by what the server does by itself. No step may be lost, and the weights at
the end must have the SHA-256 of an uninterrupted run.

    python benchmarks/kill_resume.py --trainer-kills 20 --server-kills 20
    python benchmarks/kill_resume.py --strategies full --trainer-kills 2 --model FOLDER --steps 12 --batch-size 2

``--model`` is a folder with a Transformers model; without it a tiny Llama is made. Each call adds its runs to
``benchmarks/results/kill_resume.json``, so that a long series can be taken in pieces; ``--seconds`` ends a piece early.
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
ENDED = ("succeeded", "failed", "cancelled")
WEIGHTS = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}


class Bench:
    """A data folder with one model, the server on it, and the runs that are compared."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.data_dir = folder / "data"
        self.options = options
        models = folder / "models"
        if options.model is None:
            build_tiny_model(models / "base", hidden=256)  # wide enough for two probes to choose the same type
        else:
            shutil.copytree(options.model, models / "base")
        os.environ["HF_HUB_OFFLINE"] = "1"
        self.settings = {
            "TERAKOYA_IMPORT_DIR": str(models),
            "TERAKOYA_TRAINING_MAX_RESTARTS": "100",
            "TERAKOYA_RESTART_PAUSE_SECONDS": "0",
            "TERAKOYA_TRAINING_THREADS": "1",
        }
        self.references: dict[tuple[str, str], str] = {}
        self.deadline = time.monotonic() + options.seconds

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.deadline

    def server(self) -> Any:
        return server(self.data_dir, **self.settings)

    def prepare(self) -> None:
        with self.server() as (url, _, _), Client(url) as client:
            wait_for_end(client, client.models.pull("folder:base", name="base"))

    def start(self, client: Client, strategy: str) -> str:
        return client.train(
            "base",
            DATASET,
            strategy=strategy,
            max_steps=self.options.steps,
            batch_size=self.options.batch_size,
            learning_rate=1e-3,
            schedule={"checkpoint_minutes": self.options.checkpoint_seconds / 60},
            evaluation={"max_examples": 4, "max_new_tokens": 4},
        )

    def verdict(self, client: Client, task_id: str, strategy: str) -> dict[str, Any]:
        """What a run came to, beside an uninterrupted one."""
        ending = self.ending(client, task_id, strategy)
        reference = self.reference(client, strategy, ending["computed_as"])
        return ending | {
            "strategy": strategy,
            "steps_lost": self.options.steps - ending["steps"],
            "sha256_uninterrupted": reference,
            "identical": ending["sha256"] == reference,
        }

    def ending(self, client: Client, task_id: str, strategy: str) -> dict[str, Any]:
        """The weights are hashed as they lie in the store."""
        run = client.runs.get(task_id)
        if run["state"] != "succeeded":
            sys.exit(f"the run {run['state']}: {run['error']}")
        card = f"run `{task_id}`"
        (weights,) = (
            file
            for file in self.data_dir.glob(f"models/*/{WEIGHTS[strategy]}")
            if card in (file.parent / "README.md").read_text(encoding="utf-8")
        )
        effective = run["result"]["effective"]
        return {
            "steps": effective["steps"],
            "computed_as": f"{effective['compute_type']}, {effective['forward']}",
            "attempts": run["attempt"],
            "finished_events": sum(event["type"] == "finished" for event in client.tasks.events(task_id)),
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        }

    def reference(self, client: Client, strategy: str, computed_as: str) -> str:
        """The hash of an uninterrupted run that computed in the same type: on a small model two probes may differ."""
        for _ in range(4):
            if (strategy, computed_as) in self.references:
                return self.references[strategy, computed_as]
            task_id = self.start(client, strategy)
            wait_for_end(client, task_id)
            whole = self.ending(client, task_id, strategy)
            self.references[strategy, whole["computed_as"]] = whole["sha256"]
        sys.exit(f"no uninterrupted run computed as {computed_as!r}; others: {list(self.references)}")


def wait_for_end(client: Client, task_id: str) -> None:
    *_, last = client.watch(task_id)
    if last.get("status") != "succeeded":
        sys.exit(json.dumps(last))


# -- trainers --------------------------------------------------------------------------------------


def kill_trainers(bench: Bench, strategy: str, kills: int) -> dict[str, Any]:
    """Kill one run's trainers up to so often, three of four while they train, each at a random moment."""
    with bench.server() as (url, _, _), Client(url) as client:
        task_id = bench.start(client, strategy)
        killed: list[str] = []
        seen: set[int] = set()
        while len(killed) < kills and not bench.is_over and client.tasks.get(task_id)["state"] not in ENDED:
            process = trainer_of(task_id)
            if process is None or process.pid in seen:
                time.sleep(0.02)
                continue
            seen.add(process.pid)
            if (phase := kill_at_random(bench, process, task_id)) is not None:
                killed.append(phase)
        wait_for_end(client, task_id)
        facts = {"killed": "trainer", "kills": len(killed), "killed_in": count(killed)}
        return facts | bench.verdict(client, task_id, strategy)


def kill_at_random(bench: Bench, process: psutil.Process, task_id: str) -> str | None:
    """Return the phase it was killed in; None if it had ended before."""
    log = bench.data_dir / "tasks" / task_id / "events.jsonl"
    before = log.stat().st_size
    while_it_trains = random.random() < 0.75
    patience = time.monotonic() + 120
    while while_it_trains and process.is_running() and time.monotonic() < patience:
        if b'"step"' in tail(log, before):
            break
        time.sleep(0.01)
    time.sleep(random.uniform(0, bench.options.spread))
    phase = phase_in(tail(log, before))
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return None
    return phase


def trainer_of(task_id: str) -> psutil.Process | None:
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "terakoya.processes.train" in command and command[-1].endswith(task_id):
            return process
    return None


def tail(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read()


def phase_in(text: bytes) -> str:
    phases = [json.loads(line).get("phase") for line in text.splitlines()[:-1] if b'"phase"' in line]
    return next((phase for phase in reversed(phases) if phase), "starting")


def count(names: list[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}


# -- web servers -----------------------------------------------------------------------------------


def kill_servers(bench: Bench, strategy: str, kills: int) -> dict[str, Any]:
    """Kill the web server up to so often while one run goes on; each next server finds the run."""
    task_id, killed = "", 0
    while killed < kills and not bench.is_over:
        with bench.server() as (url, pid, _), Client(url) as client:
            task_id = task_id or bench.start(client, strategy)
            while (state := client.tasks.get(task_id)["state"]) in ("queued", "preparing"):
                time.sleep(0.02)
            if state in ENDED:
                break
            time.sleep(random.uniform(0, bench.options.spread))
            os.kill(pid, signal.SIGKILL)
            killed += 1
    with bench.server() as (url, _, _), Client(url) as client:
        wait_for_end(client, task_id)
        return {"killed": "server", "kills": killed} | bench.verdict(client, task_id, strategy)


# -- all of it -------------------------------------------------------------------------------------


def add_run(run: dict[str, Any], machine: dict[str, Any]) -> None:
    path = RESULTS / f"{NAME}.json"
    runs = json.loads(path.read_text(encoding="utf-8"))["figures"]["runs"] if path.is_file() else []
    runs.append(run)
    totals = {f"{what}_kills": sum(each["kills"] for each in runs if each["killed"] == what) for what in KILLERS}
    totals |= {
        "runs": len(runs),
        "steps_lost": sum(each["steps_lost"] for each in runs),
        "all_identical": all(each["identical"] for each in runs),
    }
    save(NAME, {"totals": totals, "runs": runs}, machine)
    if not run["identical"] or run["steps_lost"]:
        sys.exit("the killed run did not end as the uninterrupted one")


KILLERS = {"trainer": kill_trainers, "server": kill_servers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer-kills", type=int, default=0, help="for each strategy")
    parser.add_argument("--server-kills", type=int, default=0)
    parser.add_argument("--kills-a-run", type=int, default=5)
    parser.add_argument("--strategies", nargs="+", choices=tuple(WEIGHTS), default=list(WEIGHTS))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--checkpoint-seconds", type=float, default=0.5)
    parser.add_argument("--spread", type=float, default=1.0, help="a kill comes so many seconds late at most")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin and kill nothing after so long")
    options = parser.parse_args()
    machine = describe_machine()
    model = "tiny Llama" if options.model is None else options.model.name
    wanted = [("server", options.strategies[0], options.server_kills)]
    wanted += [("trainer", strategy, options.trainer_kills) for strategy in options.strategies]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options)
        bench.prepare()
        for killer, strategy, kills in wanted:
            while kills > 0 and not bench.is_over:
                started = time.monotonic()
                most = kills if killer == "server" else min(kills, options.kills_a_run)
                run = KILLERS[killer](bench, strategy, most)
                kills -= run["kills"]
                add_run({"model": model} | run | {"seconds": round(time.monotonic() - started, 1)}, machine)


if __name__ == "__main__":
    main()
