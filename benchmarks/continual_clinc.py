"""A small language model through the five domains of CLINC150, one after another: what it keeps, and what that takes.

    python benchmarks/continual_clinc.py --model FOLDER --work FOLDER [--tier cpu|full] [--threads 1]

``FOLDER`` after ``--model`` is the starter model as a Transformers folder; ``TERAKOYA_BENCH_DATA`` holds clinc150. Two
protocols: the request names its domain, or it does not (class-incremental: answers of all tasks compete). Methods:
naive (the same chain without penalty and replay), EWC alone, soft replay alone, the default (both, with a forgetting
budget), and joint training on all tasks. Every method takes the same number of steps and rows; earlier rows count.

Each cell (protocol, method, order) is a process of its own and leaves a file in ``--work``; a later call goes on with
the cells that are missing, and sums up those that are there. Exact match is teacher-forced, which for greedy decoding
is the same: an answer is written as it stands if each of its tokens is the likeliest after all before. Beside it, the
likelihood of all tasks' answers: knowledge without form.

``cpu``: LoRA at 1e-3, two orders, three intents a domain; lambda of EWC alone chosen on validation rows of two tasks.
``full``: LoRA and full fine-tuning, all intents, three seeds, rates and lambdas chosen on validation rows for every
method. Writes ``benchmarks/results/continual_clinc.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from continual_cell import Cell, Size
from machine import describe_machine, save

SIZES = {
    "cpu": Size(intents=3, rows=20, scored=10, epochs=2.4),
    "full": Size(intents=15, rows=100, scored=30, epochs=4),
}
PROTOCOLS = ("named", "unnamed")
METHODS = ("naive", "ewc", "soft replay", "default")
STRENGTHS = {"cpu": (10.0, 1e3, 1e5), "full": (1.0, 10.0, 1e2, 1e3, 1e4, 1e5)}
RATES = {"lora": (3e-4, 1e-3, 3e-3), "full": (2e-5, 5e-5, 1e-4)}
_RESAMPLES = 2000


class Cells:
    """Runs cells that have no file yet and reads those that have."""

    def __init__(self, size: Size, model: Path, work: Path, threads: int, *, may_run: bool) -> None:
        self.size, self.model, self.work, self.threads, self.may_run = size, model, work, threads, may_run
        work.mkdir(parents=True, exist_ok=True)

    def of(self, cell: Cell) -> dict[str, Any] | None:
        path = self.work / f"{cell.name}.json"
        if not path.exists() and self.may_run:
            job = {"cell": asdict(cell), "size": asdict(self.size), "model": str(self.model), "threads": self.threads}
            done = subprocess.run(
                [sys.executable, __file__, "--cell", json.dumps(job)], stdout=subprocess.PIPE, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"{cell.name} failed; the cells before it are kept")
            aside = path.with_suffix(".tmp")
            aside.write_text(done.stdout.splitlines()[-1])
            aside.replace(path)
            print("done", cell.name, file=sys.stderr, flush=True)
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text())
        if found["size"] != asdict(self.size):
            sys.exit(f"{path} is of another size; take another --work folder, or remove it")
        return found


def cpu_cells(cells: Cells) -> Iterator[Cell]:
    """What says most comes first: the budget of time may end before the list does."""
    for order in (0, 1):
        for protocol in PROTOCOLS:
            yield Cell(protocol, "naive", order)
            yield Cell(protocol, "default", order)
            if order == 0:  # these know no order
                yield Cell(protocol, "joint", order)
                yield Cell(protocol, "base", order)
        strength = chosen_strength(cells, STRENGTHS["cpu"], Cell("named", "ewc", 0, judged_on="val", tasks=2))
        for protocol in PROTOCOLS:
            if strength is not None:
                yield Cell(protocol, "ewc", order, strength=strength)
            yield Cell(protocol, "soft replay", order)


def full_cells(cells: Cells) -> Iterator[Cell]:
    for space, rates in RATES.items():
        for protocol in PROTOCOLS:
            yield Cell(protocol, "base", 0, space=space)
            for method in ("joint", *METHODS):
                start = Cell(protocol, method, 0, space=space, judged_on="val")
                best = chosen(cells, [replace(start, rate=rate) for rate in rates])
                if best is None:
                    continue
                if method == "ewc":
                    strength = chosen_strength(cells, STRENGTHS["full"], best)
                    best = replace(best, strength=strength)
                for order in (0, 1) if method != "joint" else (0,):
                    for seed in (0, 1, 2):
                        yield replace(best, order=order, seed=seed, judged_on="test")


def chosen_strength(cells: Cells, grid: tuple[float, ...], like: Cell) -> float | None:
    best = chosen(cells, [replace(like, strength=strength) for strength in grid])
    return None if best is None else best.strength


def chosen(cells: Cells, tried: list[Cell]) -> Cell | None:
    """The one with the best accuracy after the last task on validation rows; None while one is missing."""
    found = [(cell, cells.of(_with_strength(cell))) for cell in tried]
    if any(result is None for _, result in found):
        return None
    return max(found, key=lambda each: final_accuracy(each[1] or {}))[0]


def _with_strength(cell: Cell) -> Cell:
    """A rate of EWC is chosen at the middle of the grid of lambdas."""
    return replace(cell, strength=STRENGTHS["full"][3]) if cell.method == "ewc" and cell.strength is None else cell


def final_accuracy(result: dict[str, Any]) -> float:
    return float(np.mean([np.mean(part) for part in result["rows"][-1]["exact"]]))


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """By space and protocol, then method; orders and seeds are averaged."""
    told: dict[str, Any] = {}
    for key in sorted({(each["cell"]["space"], each["cell"]["protocol"]) for each in found}):
        here = [each for each in found if (each["cell"]["space"], each["cell"]["protocol"]) == key]
        by_method = {
            method: [each for each in here if each["cell"]["method"] == method]
            for method in ("base", "joint", *METHODS)
            if any(each["cell"]["method"] == method for each in here)
        }
        told[" ".join(key)] = {
            method: figures(results, by_method.get("naive"), by_method.get("joint"), by_method.get("base"))
            for method, results in by_method.items()
        }
    return told


def figures(
    results: list[dict[str, Any]],
    naive: list[dict[str, Any]] | None,
    joint: list[dict[str, Any]] | None,
    base: list[dict[str, Any]] | None,
) -> dict[str, Any]:
    """Per cent, with 95% intervals from drawing the judged examples anew within each task."""
    cell = results[0]["cell"]
    told: dict[str, Any] = {"cells": len(results), "rate": cell["rate"], "lambda": cell["strength"]}
    told["acc"] = interval(lambda pick: mean_final(results, pick), results)
    if len(results[0]["rows"]) > 1:
        for name, of in (("bwt", backward_transfer), ("forgetting", forgetting), ("la", learned)):
            told[name] = interval(lambda pick, of=of: of(results, pick), results)  # type: ignore[misc]
        told["r_exact"] = [r_of(each) for each in results]
    if naive and joint and cell["method"] not in ("base", "joint"):

        def closed(pick: Picker) -> float:
            low, high = mean_final(naive, pick), mean_final(joint, pick)
            return (mean_final(results, pick) - low) / (high - low)

        told["gap_closed"] = interval(closed, results)
    told["likeliest_answer_right"] = round(
        100 * float(np.mean([np.mean(part) for each in results for part in each["rows"][-1]["likeliest"]])), 1
    )
    if base:
        before = sum(base[0]["rows"][-1]["canary_nats"])
        after = float(np.mean([sum(each["rows"][-1]["canary_nats"]) for each in results]))
        told["general_text_loss_rise_percent"] = round(100 * (after / before - 1), 2)
    told["seconds"] = [each["seconds"] for each in results]
    told["training_seconds"] = [round(sum(cost["training_seconds"] for cost in each["costs"]), 1) for each in results]
    told["peak_rss_gb"] = round(max(each["peak_rss_bytes"] for each in results) / 1e9, 2)
    if any(each.get("chain") for each in results):
        told["lambdas_at_the_end_of_a_task"] = [
            [float(f"{link['lambda']:.3g}") for link in each["chain"]] for each in results
        ]
        told["kept_rows"] = [[link["kept_rows"] for link in each["chain"]] for each in results]
    return told


class Picker:
    """Draws the examples of each domain anew, alike for all results that are compared."""

    def __init__(self, seed: int | None) -> None:
        self._seed = seed

    def mean(self, domain: str, scores: list[float]) -> float:
        values = np.asarray(scores)
        if self._seed is None:
            return float(values.mean())
        drawn = np.random.default_rng([self._seed, *domain.encode()]).integers(len(values), size=len(values))
        return float(values[drawn].mean())


def interval(of: Any, results: list[dict[str, Any]]) -> dict[str, float]:
    drawn = [of(Picker(seed)) for seed in range(_RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        name: round(100 * float(each), 1) for name, each in (("mean", of(Picker(None))), ("low", low), ("high", high))
    }


def mean_final(results: list[dict[str, Any]], pick: Picker) -> float:
    return _mean(
        pick.mean(domain, part)
        for each in results
        for domain, part in zip(each["order"], each["rows"][-1]["exact"], strict=True)
    )


def backward_transfer(results: list[dict[str, Any]], pick: Picker) -> float:
    return _mean(
        pick.mean(domain, each["rows"][-1]["exact"][j]) - pick.mean(domain, each["rows"][j]["exact"][j])
        for each in results
        for j, domain in enumerate(each["order"][:-1])
    )


def forgetting(results: list[dict[str, Any]], pick: Picker) -> float:
    """From the best an earlier task ever had."""
    return _mean(
        max(pick.mean(domain, row["exact"][j]) for row in each["rows"][j:-1])
        - pick.mean(domain, each["rows"][-1]["exact"][j])
        for each in results
        for j, domain in enumerate(each["order"][:-1])
    )


def learned(results: list[dict[str, Any]], pick: Picker) -> float:
    return _mean(
        pick.mean(domain, each["rows"][j]["exact"][j]) for each in results for j, domain in enumerate(each["order"])
    )


def r_of(result: dict[str, Any]) -> list[list[float]]:
    """R of the tasks learned so far; the tasks ahead are not scored."""
    return [[round(float(np.mean(part)), 3) for part in row["exact"]] for row in result["rows"]]


def _mean(values: Iterator[float]) -> float:
    return float(np.mean(list(values)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--tier", choices=list(SIZES), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--protocol", choices=PROTOCOLS, nargs="*", default=list(PROTOCOLS), help="run only these")
    parser.add_argument("--report", action="store_true", help="only sum up the cells that are there")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.cell:
        from continual_cell import run_cell

        job = json.loads(asked.cell)
        result = run_cell(Cell(**job["cell"]), Size(**job["size"]), Path(job["model"]), job["threads"])
        print("\n" + json.dumps(result | {"machine": describe_machine()}))
        return 0
    if asked.model is None or asked.work is None:
        parser.error("--model and --work are needed")
    cells = Cells(SIZES[asked.tier], asked.model, asked.work, asked.threads, may_run=not asked.report)
    listed = (cpu_cells if asked.tier == "cpu" else full_cells)(cells)
    found = [result for cell in listed if cell.protocol in asked.protocol and (result := cells.of(cell)) is not None]
    every = [json.loads(path.read_text()) for path in sorted(asked.work.glob("*_val.json"))]
    save(
        "continual_clinc",
        {
            "tier": asked.tier,
            "size": asdict(cells.size),
            "protocols": summary(found),
            "validation": {Cell(**each["cell"]).name: round(100 * final_accuracy(each), 1) for each in every},
        },
        found[0]["machine"] if found else describe_machine(),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
