"""One trainer of ``train_peers.py`` in a process of its own; reads a job from standard input, prints its figures.

Knows PyTorch, Transformers, PEFT and, where a way asks for it, TRL: not Terakoya, whose packages a peer's environment
does not have. Every setting in which a way departs from its documentation is in ``WAYS``.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

WAYS = {
    "trl": {"bf16": True},
    "trl_tuned": {
        "bf16": True,
        "loss_type": "nll",
        "train_sampling_strategy": "sequential",
        "dataloader_pin_memory": False,
        "gradient_checkpointing": False,
        "logging_steps": 1000,
        "optim": "adamw_torch_fused",
        "base in bfloat16 (LoRA)": True,
        "compute_loss": "plain cross-entropy, head at labels only",
    },
    "bare": {"autocast": "bfloat16", "base in bfloat16 (LoRA)": True, "optim": "AdamW fused"},
}


class Clock(TrainerCallback):
    """Seconds of each step on the clock and of the processor, and its loss."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.losses: list[float] = []

    def begin(self) -> None:
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def end(self) -> None:
        self.seconds.append(time.perf_counter() - self._started)
        self.cpu_seconds.append(time.process_time() - self._cpu_started)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.end()


def model_of(job: dict[str, Any], *, low: bool) -> Any:
    torch.manual_seed(0)
    lora = job["method"] == "lora"
    model = AutoModelForCausalLM.from_pretrained(
        job["model"], dtype=torch.bfloat16 if low and lora else torch.float32, attn_implementation="sdpa"
    )
    if not lora:
        return model
    adapted = get_peft_model(model, lora_config())
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def lora_config() -> LoraConfig:
    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def label_loss(causal: Any, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor, count: Any) -> torch.Tensor:
    """The head where a label is, as a careful person would write it."""
    states = causal.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    learned = labels[:, 1:] != -100
    logits = causal.lm_head(states[:, :-1][learned]).float()
    return cross_entropy(logits, labels[:, 1:][learned], reduction="sum") / count


def run_trl(job: dict[str, Any], clock: Clock, *, tuned: bool) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    class Tuned(SFTTrainer):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            causal = self.accelerator.unwrap_model(model)
            causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
            loss = label_loss(
                causal, inputs["input_ids"], inputs["attention_mask"], inputs["labels"], num_items_in_batch
            )
            clock.losses.append(loss.item())
            return loss

    class Documented(SFTTrainer):  # type: ignore[misc]
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            clock.losses.append(loss.item())
            return loss

    options: dict[str, Any] = {
        "output_dir": job["scratch"],
        "per_device_train_batch_size": job["batch_size"],
        "max_steps": len(job["steps"]),
        "max_length": job["max_length"],
        "learning_rate": job["rate"],
        "lr_scheduler_type": "constant",
        "bf16": True,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",
    }
    if tuned:
        skipped = {"base in bfloat16 (LoRA)", "compute_loss"}
        options |= {name: value for name, value in WAYS["trl_tuned"].items() if name not in skipped}
    rows = [row for step in job["steps"] for row in step]
    labelled = [{"input_ids": row["ids"], "labels": row["labels"]} for row in rows]
    model: Any = model_of(job, low=True) if tuned or job["method"] == "full" else job["model"]
    config = lora_config() if job["method"] == "lora" and not tuned else None
    trainer = (Tuned if tuned else Documented)(
        model=model,
        args=SFTConfig(**options),
        train_dataset=Dataset.from_list(labelled),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        peft_config=config,
        callbacks=[clock],
    )
    trainer.train()


def run_bare(job: dict[str, Any], clock: Clock) -> None:
    model = model_of(job, low=True).train()
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=job["rate"], weight_decay=0.0, fused=True)
    for step in job["steps"]:
        clock.begin()
        longest = max(len(row["ids"]) for row in step)
        ids = torch.tensor([row["ids"] + [0] * (longest - len(row["ids"])) for row in step])
        mask = torch.tensor([[1] * len(row["ids"]) + [0] * (longest - len(row["ids"])) for row in step])
        labels = torch.tensor([row["labels"] + [-100] * (longest - len(row["labels"])) for row in step])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.losses.append(loss.item())
        clock.end()


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    clock = Clock()
    if job["way"] == "bare":
        run_bare(job, clock)
    else:
        run_trl(job, clock, tuned=job["way"] == "trl_tuned")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures = {"seconds": clock.seconds, "cpu_seconds": clock.cpu_seconds, "losses": clock.losses, "peak_bytes": peak}
    print("\nFIGURES " + json.dumps(figures))


if __name__ == "__main__":
    main()
