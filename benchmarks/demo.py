"""How long the whole way takes: ``terakoya demo`` on an empty data folder, both starter models fetched on the way.

    python benchmarks/demo.py

Fails unless the demo does. Writes ``benchmarks/results/demo.json``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time

from machine import describe_machine, save


def main() -> None:
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-m", "terakoya", "demo", "--json"],
            env=os.environ | {"TERAKOYA_DATA_DIR": f"{folder}/data"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        seconds = time.perf_counter() - started
    if ended.returncode != 0:
        sys.exit(f"the demo ended with status {ended.returncode}")
    told = json.loads(ended.stdout.splitlines()[-1])
    stages = {row["stage"]: row["seconds"] for row in told["stages"]}
    expected = [answer["as_expected"] for answer in told["answers"]]
    save("demo", {"seconds": round(seconds, 1), "stages": stages, "answers_as_expected": expected}, machine)


if __name__ == "__main__":
    main()
