"""What two processes that compute on the same cores take from each other, by OpenMP's wait policy.

    .venv/bin/python benchmarks/contention.py

Matrix products of the starter model's size, every core a thread, alone and beside a second process that does the
same; interleaved repeats. Shows why workers get OMP_WAIT_POLICY=passive.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from machine import describe_machine, save

SECONDS = 4
REPEATS = 5
WORK = f"""
import time, torch
a, b, c = torch.randn(300, 576), torch.randn(576, 1536), torch.randn(300, 1536)
done, start = 0, time.monotonic()
while time.monotonic() - start < {SECONDS}:
    (a @ b).mul_(c)
    done += 1
print(2 * 300 * 576 * 1536 * done / (time.monotonic() - start) / 1e9)
"""


def start(policy: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_WAIT_POLICY": policy}
    if policy == "default":
        del environment["OMP_WAIT_POLICY"]
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", WORK], env=environment, stdout=-1, text=True)


def rate(processes: list[subprocess.Popen[str]]) -> float:
    """Mean GFLOP/s of one process."""
    return statistics.mean(float(process.communicate()[0]) for process in processes)


def main() -> None:
    machine = describe_machine()
    found: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        for policy in ("default", "passive"):
            found.setdefault(f"{policy}, alone", []).append(rate([start(policy)]))
            found.setdefault(f"{policy}, two at once", []).append(rate([start(policy), start(policy)]))
    medians = {name: round(statistics.median(values), 1) for name, values in found.items()}
    result = {
        "gflops_per_process": medians,
        "passive_to_default_alone": round(medians["passive, alone"] / medians["default, alone"], 2),
        "passive_to_default_two_at_once": round(medians["passive, two at once"] / medians["default, two at once"], 2),
    }
    save("contention", result, machine)


if __name__ == "__main__":
    main()
