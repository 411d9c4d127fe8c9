"""Our training loop beside TRL and a bare loop, each in a process of its own, in turn, on the same tokens.

    python benchmarks/train_peers.py --model FOLDER --peer-python PATH [--rows clinc] [--method lora] [--repeats 3]

``FOLDER``: the starter as a Transformers folder. ``PATH``: the interpreter of an environment with TRL and PEFT.
``TERAKOYA_BENCH_DATA`` holds clinc150 and scifact. Rows: "clinc", or "long", abstracts of 50 to 1,000 tokens of which a
title is asked. The ways: TRL's SFTTrainer as its documentation starts it; TRL tuned by hand; a loop of PyTorch and
PEFT; ours. Same rows in the same order, batch, maximal length, rate, bfloat16 under float32 masters, threads.

The first steps of each process warm up and do not count. On a shared machine the clock says little, so time of the
processor is kept as well. Losses must agree within 1%. Writes ``benchmarks/results/train_peers_ROWS_METHOD.json``.
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
from pathlib import Path
from typing import Any

from machine import describe_machine, save

RATE = {"lora": 1e-3, "full": 2e-5}
WARM_UP = 2
WAYS = ("trl", "trl_tuned", "bare", "ours")
HERE = Path(__file__).parent


def examples_of(name: str, count: int) -> list[tuple[str, str]]:
    """Prompts with answers."""
    if name == "clinc":
        from train_clinc150 import clinc150_rows

        return [(row["text"], row["intent"]) for row in clinc150_rows("train", 1)[:count]]
    root = Path(os.environ["TERAKOYA_BENCH_DATA"])
    lines = (root / "scifact" / "corpus.jsonl").read_text().splitlines()
    documents = [json.loads(line) for line in random.Random(1).sample(lines, 2 * count)]
    return [(f"Write the abstract of: {each['title']}", each["text"]) for each in documents][:count]


def steps_of(options: argparse.Namespace) -> list[list[dict[str, Any]]]:
    from transformers import AutoTokenizer

    from terakoya.data.tokenization import encode_examples
    from terakoya.domain.datasets import Example, Message

    wanted = options.steps * options.batch_size
    examples = [
        Example(number, (Message("user", asked), Message("assistant", answer)))
        for number, (asked, answer) in enumerate(examples_of(options.rows, 2 * wanted), start=1)
    ]
    rows = encode_examples(examples, AutoTokenizer.from_pretrained(options.model)).complete()
    rows = [row for row in rows if len(row.input_ids) <= options.max_length][:wanted]
    ready = []
    for row in rows:
        labels = [-100] * len(row.input_ids)
        for start, end in row.label_spans:
            labels[start:end] = row.input_ids[start:end]
        ready.append({"ids": list(row.input_ids), "labels": labels, "spans": [list(span) for span in row.label_spans]})
    return [ready[start : start + options.batch_size] for start in range(0, wanted, options.batch_size)]


def measure(way: str, job: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    script, python = HERE / "peer_trainers.py", options.peer_python
    if way == "ours":
        script, python = HERE / "our_trainer.py", sys.executable
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)}
    if way != "ours":
        environment.pop("PYTHONPATH", None)
    else:
        environment["OMP_WAIT_POLICY"] = "passive"  # as workers have it
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [python, "-W", "ignore", str(script)],
            input=json.dumps(job | {"way": way, "scratch": scratch}),
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FIGURES ")]
    if not lines:
        sys.exit(f"{way} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("FIGURES "))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--rows", choices=["clinc", "long"], default="clinc")
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    machine = describe_machine()
    steps = steps_of(options)
    job = {
        "model": options.model,
        "method": options.method,
        "steps": steps,
        "batch_size": options.batch_size,
        "max_length": options.max_length,
        "threads": options.threads,
        "rate": RATE[options.method],
    }
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in options.ways}
    for repeat in range(options.repeats):
        for way in options.ways:
            found[way].append(measure(way, job, options))
            rates = rates_of(found[way][-1], steps)
            print(f"repeat {repeat} {way}: {rates}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    save(f"train_peers_{options.rows}_{options.method}", figures(found, steps, options), machine)


def rates_of(run: dict[str, Any], steps: list[list[dict[str, Any]]]) -> dict[str, float]:
    """Tokens a second by clock and by processor; tokens are those of the rows, whatever was padded or shared."""
    tokens = sum(len(row["ids"]) for step in steps[WARM_UP:] for row in step)
    return {kind: round(tokens / sum(run[kind][WARM_UP:]), 1) for kind in ("seconds", "cpu_seconds")}


def figures(
    found: dict[str, list[dict[str, Any]]], steps: list[list[dict[str, Any]]], options: argparse.Namespace
) -> dict[str, Any]:
    lengths = sorted(len(row["ids"]) for step in steps for row in step)
    config = json.loads((Path(options.model) / "config.json").read_text())
    result: dict[str, Any] = {
        "model": {name: config[name] for name in ("num_hidden_layers", "hidden_size", "vocab_size")},
        "rows": {"shortest": lengths[0], "median": lengths[len(lengths) // 2], "longest": lengths[-1]},
        "settings": {
            name: getattr(options, name)
            for name in ("method", "batch_size", "max_length", "threads", "steps", "repeats")
        },
    }
    for way, runs in found.items():
        rates = [rates_of(run, steps) for run in runs]
        result[way] = {
            "tokens_per_second": [rate["seconds"] for rate in rates],
            "tokens_per_cpu_second": [rate["cpu_seconds"] for rate in rates],
            "mean_loss": round(statistics.mean(runs[0]["losses"]), 4),
            "peak_gb": round(max(run["peak_bytes"] for run in runs) / 1e9, 2),
        }
    for way in set(found) - {"ours"} if "ours" in found else ():
        ratios = {
            kind: statistics.median(
                mine / theirs for mine, theirs in zip(result["ours"][kind], result[way][kind], strict=True)
            )
            for kind in ("tokens_per_second", "tokens_per_cpu_second")
        }
        result[f"ours_over_{way}"] = {kind: round(value, 2) for kind, value in ratios.items()}
        result[f"memory_to_{way}"] = round(result["ours"]["peak_gb"] / result[way]["peak_gb"], 2)
        gap = abs(result["ours"]["mean_loss"] / result[way]["mean_loss"] - 1)
        result[f"loss_gap_to_{way}"] = round(gap, 4)
        if gap > 0.01:
            sys.exit(f"the losses of ours and {way} differ by {gap:.1%}; nothing is written: {json.dumps(result)}")
    return result


if __name__ == "__main__":
    main()
