"""What a large training file costs: seconds and memory of the web process while it comes in, and of the child that
checks it.

    python benchmarks/dataset_import.py [--gigabytes 5] [--folder /tmp]

Writes the file itself, chats of a few turns in English and Japanese with a known number of bad and of repeated rows,
sends it to a real server, and removes everything. Writes ``benchmarks/results/dataset_import.json``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

import psutil
from machine import describe_machine, save
from serving import server

from terakoya import Client

BAD_EVERY, REPEATED_EVERY = 50_000, 20_000
SAMPLE_SECONDS = 0.05
MB = 1e6
_PHRASES = (
    *("the order has not arrived yet,", "please check when", "my bicycle will be repaired", "and what it costs."),
    *("注文した自転車が", "まだ届きません。", "修理の日程と料金を", "教えてください。", "請求書を再発行して"),
)


def write_rows(path: Path, size_bytes: int) -> dict[str, int]:
    """Write chats until the size is reached; return how many rows there are, and how many of them are what."""
    source = random.Random(1)
    turns = [" ".join(source.choices(_PHRASES, k=source.randint(20, 70))) for _ in range(2000)]
    rows = bad = repeated = written = 0
    last = b""
    with path.open("wb", buffering=2**22) as file:
        while written < size_bytes:
            rows += 1
            if rows % BAD_EVERY == 0:
                line = json.dumps({"messages": [{"role": "user", "content": f"{rows}"}]}).encode() + b"\n"
                bad += 1
            elif rows % REPEATED_EVERY == 1 and rows > 1:
                line = last
                repeated += 1
            else:
                said = source.choices(turns, k=source.choice((2, 2, 4, 6)))
                roles = ("user", "assistant") * 3
                messages = [
                    {"role": role, "content": f"{rows} {text}" if place == 0 else text}
                    for place, (role, text) in enumerate(zip(roles, said, strict=False))
                ]
                line = last = json.dumps({"messages": messages}, ensure_ascii=False).encode() + b"\n"
            file.write(line)
            written += len(line)
    return {"rows": rows, "bad": bad, "repeated": repeated, "bytes": written}


class Watch:
    """Samples the memory of the web process, and of the import's child while there is one."""

    def __init__(self, pid: int) -> None:
        self._web = psutil.Process(pid)
        self.before = self._web.memory_info().rss
        self.web_receiving = self.web_importing = self.child = 0
        self.child_began: float | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._is_over.wait(SAMPLE_SECONDS):
            children = [each for each in self._web.children() if "import_rows" in " ".join(_command(each))]
            grown = self._web.memory_info().rss - self.before
            if children:
                self.child_began = self.child_began or time.perf_counter()
                self.child = max(self.child, _rss(children[0]))
                self.web_importing = max(self.web_importing, grown)
            elif self.child_began is None:
                self.web_receiving = max(self.web_receiving, grown)
            else:
                self.web_importing = max(self.web_importing, grown)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _rss(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, default=None, help="where 3 times the file's size is free")
    options = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        file = Path(folder) / "large.jsonl"
        written = write_rows(file, int(options.gigabytes * 1e9))
        print(f"written: {written}", file=sys.stderr)
        with server(Path(folder) / "data") as (url, pid, _), Client(url) as client:
            small = Path(folder) / "small.jsonl"
            write_rows(small, 3_000_000)
            client.datasets.add(small)  # what the first request of its kind loads is not the file's
            with Watch(pid) as watch:
                began = time.perf_counter()
                info = client.datasets.add(file, skip_bad_rows=True)
                ended = time.perf_counter()
            report = client.datasets.report(info["id"])
    found = {"rows": report["rows"]["read"], "bad": report["rows"]["bad"], "repeated": report["repeats"]["rows"]}
    if found != {name: written[name] for name in found}:
        sys.exit(f"the report is wrong: {found} of {written}")
    assert watch.child_began is not None
    receiving, importing = watch.child_began - began, ended - watch.child_began
    figures: dict[str, Any] = {
        "file_bytes": written["bytes"],
        "rows": written["rows"],
        "receive": {
            "seconds": round(receiving, 1),
            "mb_per_second": round(written["bytes"] / MB / receiving, 1),
            "web_grew_mb": round(watch.web_receiving / MB, 1),
        },
        "check": {
            "seconds": round(importing, 1),
            "mb_per_second": round(written["bytes"] / MB / importing, 1),
            "web_grew_mb": round(watch.web_importing / MB, 1),
            "child_peak_rss_mb": round(watch.child / MB, 1),
        },
        "web_rss_before_mb": round(watch.before / MB, 1),
        "found": found,
    }
    print(f"\nwritten to {save('dataset_import', figures, machine)}", file=sys.stderr)


if __name__ == "__main__":
    main()
