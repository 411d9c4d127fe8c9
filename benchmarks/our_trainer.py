"""Our side of ``train_peers.py``: the training loop as a worker runs it, in a process of its own."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from terakoya.data.tokenization import EncodedExample
from terakoya.models.label_forward import LabelForward, Way
from terakoya.training.engine import pace
from terakoya.training.engine.batching import StepPlan, lane_count
from terakoya.training.engine.checkpoint import Checkpoints, Position
from terakoya.training.engine.loop import TrainingLoop, make_optimizer
from terakoya.training.engine.schedule import Schedule
from terakoya.training.objectives.supervised import SupervisedObjective


class InOrder(StepPlan):
    """Rows as they come, so that every peer sees the same steps."""

    def rows_of(self, step: int) -> list[int]:
        return list(range((step - 1) * self.batch_size, step * self.batch_size))


class Clock:
    def __init__(self) -> None:
        self.figures: dict[str, list[float]] = {"seconds": [], "cpu_seconds": [], "losses": []}
        self.start()

    def start(self) -> None:
        self._now, self._cpu = time.perf_counter(), time.process_time()

    def notify(self, type: str, /, **fields: Any) -> None:
        if type == "step":
            self.figures["seconds"].append(time.perf_counter() - self._now)
            self.figures["cpu_seconds"].append(time.process_time() - self._cpu)
            self.figures["losses"].append(fields["loss"])
            self.start()


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    rows = [
        EncodedExample(number, row["ids"], tuple(map(tuple, row["spans"])))
        for number, row in enumerate(row for step in job["steps"] for row in step)
    ]
    torch.manual_seed(0)
    module: Any = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    if job["method"] == "lora":
        module.to(torch.bfloat16)
        config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        module = get_peft_model(module, config)
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    with accelerator.autocast():
        forward = LabelForward.choose(module, rows[:3])
    parameters = {name: each for name, each in module.named_parameters() if each.requires_grad}
    plan = InOrder(len(rows), job["batch_size"], 0, total_steps=len(job["steps"]))
    clock = Clock()
    tokens = sum(len(row.input_ids) for row in rows) / plan.steps_per_epoch
    loop = TrainingLoop(
        module=module,
        parameters=parameters,
        rows=rows,
        objective=SupervisedObjective({}),
        forward=forward,
        plan=plan,
        schedule=Schedule(job["rate"], plan.total_steps, 0.0, "constant"),
        accelerator=accelerator,
        optimizer=make_optimizer(parameters, weight_decay=0.0),
        max_grad_norm=1.0,
        checkpoints=Checkpoints(Path(job["scratch"]), fingerprint="benchmark"),
        checkpoint_seconds=1e9,
        observer=clock,
        requested_action=lambda: None,
        lanes=lane_count(threads=job["threads"], tokens_per_step=tokens) if forward.way is Way.FUSED else 1,
    )
    pace._STEP_EVENT_SECONDS = 0.0  # every step is told, so that every step is timed
    clock.start()
    loop.run(Position(budget_tokens=2048))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        "\nFIGURES " + json.dumps({**clock.figures, "peak_bytes": peak, "way": forward.way, "lanes": loop.lanes.count})
    )


if __name__ == "__main__":
    main()
