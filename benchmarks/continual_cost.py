"""What retention costs on a real language model: the penalty beside a step, the Fisher pass beside an epoch, and bytes.

    python benchmarks/continual_cost.py --model FOLDER [--sequences 256] [--repeats 3] [--threads 2] [--space lora full]

``FOLDER`` is the starter model as a Transformers folder; ``TERAKOYA_BENCH_DATA`` holds clinc150. Rows are CLINC150's,
8 a step, by the way through the model that a run takes; the Fisher pass is a run's own, over the same rows. LoRA r 16
on every linear layer, and full; bfloat16 where this machine is faster in it. Long steps have 8 rows of some 190 tokens.
The state of a 7B model is computed from its shapes. Writes ``benchmarks/results/continual_cost.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from fisher_smollm2 import BATCH, encoded_rows
from machine import describe_machine, save
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from terakoya.data.tokenization import EncodedExample
from terakoya.models.label_forward import LabelForward
from terakoya.models.probe import choose_compute_type
from terakoya.training.chaining import sequence_batches
from terakoya.training.continual.diagonal_ewc import DiagonalEwc
from terakoya.training.continual.low_rank_ewc import LowRankEwc
from terakoya.training.continual.regulariser import Regulariser, TaskEnd
from terakoya.training.engine.loop import make_optimizer

BUDGET_TOKENS = 2048
LLAMA_2_7B = {"hidden": 4096, "intermediate": 11008, "layers": 32}


def cost(folder: str, rows: list[EncodedExample], repeats: int, spaces: list[str]) -> dict[str, Any]:
    kind = choose_compute_type(torch.device("cpu"), hidden=576, intermediate=1536).dtype
    long = [merged(rows, start) for start in range(0, 4 * BATCH, 4)]
    figures: dict[str, Any] = {"compute_type": str(kind), "sequences": len(rows), "repeats": repeats}
    for space in spaces:
        causal = cast(Any, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
        if space == "lora":
            causal.to(kind)
            adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
            causal = get_peft_model(causal, adapter)
        module = causal.eval()  # no dropout in either; evaluation mode is what a Fisher pass uses
        parameters = {name: each for name, each in module.named_parameters() if each.requires_grad}
        for parameter in parameters.values():
            parameter.data = parameter.data.float()
        with torch.autocast("cpu", torch.bfloat16, enabled=kind is torch.bfloat16):
            figures[space] = costs(module, parameters, rows, long, space, repeats)
        print(json.dumps({space: figures[space]}, indent=1), file=sys.stderr)
    return figures


def merged(rows: list[EncodedExample], start: int) -> EncodedExample:
    """Four rows end to end as one of about 190 tokens, as a realistic answer's length."""
    ids = [token for row in rows[start : start + 4] for token in row.input_ids]
    return EncodedExample(row=start, input_ids=ids, label_spans=((len(ids) // 2, len(ids)),))


def costs(
    module: Any,
    parameters: dict[str, nn.Parameter],
    rows: list[EncodedExample],
    long: list[EncodedExample],
    space: str,
    repeats: int,
) -> dict[str, Any]:
    forward = LabelForward.choose(module, rows[:3])
    optimizer = make_optimizer(parameters, weight_decay=0.0)
    optimizer.param_groups[0]["lr"] = 1e-5
    regulariser: Regulariser = (
        LowRankEwc(module, strength=1.0) if space == "lora" else DiagonalEwc(parameters, strength=1.0)
    )
    regulariser.on_task_start(None)
    groups = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]

    def step(group: list[EncodedExample]) -> None:
        forward.losses(group).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def epoch() -> None:
        for group in groups:
            step(group)

    def fisher() -> Any:
        batches = sequence_batches(rows, forward.through_modules(), BUDGET_TOKENS, lambda done, total: None)
        return regulariser.on_task_end(TaskEnd(parameters, batches, seed=0))

    state = fisher()
    regulariser.on_task_start(state)
    times: dict[str, list[float]] = {"epoch": [], "fisher": [], "short_step": [], "long_step": [], "penalty": []}
    for _ in range(repeats):
        times["epoch"].append(clock(epoch))
        times["fisher"].append(clock(fisher))
        times["short_step"].append(clock(lambda: step(groups[len(groups) // 2])))
        times["long_step"].append(clock(lambda: step(long)))
        for parameter in parameters.values():
            parameter.grad = torch.randn_like(parameter)  # memory that was written to, as after a backward pass
        times["penalty"].append(clock(lambda: regulariser.add_grad_(parameters, 1)))
        optimizer.zero_grad(set_to_none=True)
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "processor_seconds": {name: [round(value, 4) for value in values] for name, values in times.items()},
        "fisher_pass_in_epochs": round(median["fisher"] / median["epoch"], 2),
        "penalty_per_cent_of_a_step": {
            f"8 rows of {statistics.fmean(len(row.input_ids) for row in groups[len(groups) // 2]):.0f} tokens": round(
                100 * median["penalty"] / median["short_step"], 2
            ),
            f"8 rows of {statistics.fmean(len(row.input_ids) for row in long):.0f} tokens": round(
                100 * median["penalty"] / median["long_step"], 2
            ),
        },
        "state_bytes": {
            "importance": sum(4 * each.numel() for each in state.importance.values()),
            "anchor": sum(4 * each.numel() for each in state.anchor.values()),
        },
        "forward": str(forward.way),
    }


def clock(work: Callable[[], Any]) -> float:
    """Seconds of processor time of all threads: ratios of them hold beside other work too."""
    started = time.process_time()
    work()
    return time.process_time() - started


def state_of_7b() -> dict[str, float]:
    """MB that LoRA adds to its adapter for a model of Llama-2-7B's shapes: a row and a column sum a layer, float32."""
    hidden, intermediate = LLAMA_2_7B["hidden"], LLAMA_2_7B["intermediate"]
    sums = 4 * (hidden + hidden) + 3 * (hidden + intermediate)
    factors = 16 * sums
    return {
        "marginals_mb": round(4 * sums * LLAMA_2_7B["layers"] / 1e6, 2),
        "adapter_r16_mb": round(4 * factors * LLAMA_2_7B["layers"] / 1e6, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--space", nargs="*", choices=("lora", "full"), default=["lora", "full"])
    asked = parser.parse_args()
    machine = describe_machine()
    torch.manual_seed(0)
    torch.set_num_threads(asked.threads)
    rows = encoded_rows(asked.model, asked.sequences)
    figures = cost(asked.model, rows, asked.repeats, asked.space) | {"state_of_7b": state_of_7b()}
    save("continual_cost", figures | {"threads": asked.threads}, machine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
