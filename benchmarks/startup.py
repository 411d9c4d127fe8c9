"""How long a person waits: for the command line, for the web process, for the first step of a run.

    python benchmarks/startup.py [--repeats 5]

Uses real servers on data folders of their own and the real starter model, which is fetched once. Writes
``benchmarks/results/startup.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import describe_machine, save
from serving import DATASET, STARTER, server

from terakoya import Client

IDLE_SECONDS = 5.0


def help_seconds() -> float:
    command = [str(Path(sys.executable).with_name("terakoya")), "--help"]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def idle_memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1000


def first_step(client: Client) -> dict[str, float]:
    """Start a run on the bundled sample, return the seconds to each phase's start and to the first step event."""
    started = time.perf_counter()
    task_id = client.train(STARTER, DATASET)
    seconds: dict[str, float] = {}
    for event in client.watch(task_id):
        name = event["phase"] if event["type"] == "phase" else event["type"]
        seconds.setdefault(name, round(time.perf_counter() - started, 2))
        if event["type"] == "finished":
            sys.exit(f"the run ended before its first step: {client.tasks.get(task_id)['error']}")
        if event["type"] == "step":
            client.tasks.cancel(task_id)
            break
    for _ in client.watch(task_id):
        pass  # until it has ended
    return seconds


def summary(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "n": len(values),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3, help="training runs to time; 0 leaves the model out")
    options = parser.parse_args()
    machine = describe_machine()
    figures: dict[str, Any] = {}
    help_seconds()  # the first one reads the files from disk
    figures["help_seconds"] = summary([help_seconds() for _ in range(options.repeats)])
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        with server(data_dir) as (url, pid, seconds):
            figures["first_web_ready_seconds"] = round(seconds, 3)
        ready = []
        for _ in range(options.repeats):
            with server(data_dir) as (url, pid, seconds):
                ready.append(seconds)
        figures["web_ready_seconds"] = summary(ready)
        with server(data_dir) as (url, pid, _), Client(url) as client:
            client.datasets.list()
            time.sleep(IDLE_SECONDS)
            figures["web_idle_rss_mb"] = round(idle_memory_mb(pid), 1)
            figures["web_maps_torch"] = "torch" in Path(f"/proc/{pid}/maps").read_text()
            if options.runs:
                *_, last = client.watch(client.models.pull(STARTER))
                if last.get("status") != "succeeded":
                    sys.exit(json.dumps(last))
                runs = [first_step(client) for _ in range(options.runs)]
                figures["first_step_seconds"] = summary([run["step"] for run in runs])
                figures["first_step_phases_seconds"] = runs
    print(f"\nwritten to {save('startup', figures, machine)}", file=sys.stderr)


if __name__ == "__main__":
    main()
