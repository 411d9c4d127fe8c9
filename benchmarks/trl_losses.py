"""What TRL's own trainers compute on one small batch, to check our preference losses against.

Run in an environment of its own with ``torch trl`` (1.16), from the repository's root:

    PYTHONPATH=src:. python benchmarks/trl_losses.py > tests/data/trl_losses.json

The models are the tests' tiny one under two seeds; the batch is written down here. ORPO's supervised part in TRL covers
the prompt too, which the paper's does not, so its prompts are one token long: then both mean the same.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset
from tests.tiny_model import build_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

BETA = 0.3
PAIRS = [
    {"prompt_ids": [1, 40, 41, 42], "chosen_ids": [50, 51, 52, 2], "rejected_ids": [60, 2]},
    {"prompt_ids": [1, 43], "chosen_ids": [53, 2], "rejected_ids": [61, 62, 63, 64, 2]},
    {"prompt_ids": [1, 44, 45], "chosen_ids": [54, 55, 2], "rejected_ids": [54, 65, 2]},
]
SHORT = [pair | {"prompt_ids": [1]} for pair in PAIRS]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reference = build_tiny_model(folder / "reference", seed=0)
        policy = build_tiny_model(folder / "policy", seed=1)
        told = {
            "versions": {each.__name__: each.__version__ for each in (torch, transformers, trl)},
            "beta": BETA,
            "policy_seed": 1,
            "reference_seed": 0,
            "dpo": {"pairs": PAIRS, **dpo(policy, reference, folder)},
            "orpo": {"pairs": SHORT, **orpo(policy, folder)},
        }
    json.dump(told, sys.stdout, indent=1)
    print()


def dpo(policy: Path, reference: Path, folder: Path) -> dict[str, float]:
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32),
        args=DPOConfig(output_dir=str(folder / "dpo"), beta=BETA, bf16=False, use_cpu=True, report_to=[]),
        train_dataset=some_text(),
        processing_class=AutoTokenizer.from_pretrained(policy),
    )
    batch = DataCollatorForPreference(pad_token_id=0)(PAIRS)
    trainer.model.eval()
    loss = trainer.compute_loss(trainer.model, batch)
    metrics = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    return {
        "loss": loss.item(),
        "reward_chosen": metrics["rewards/chosen"],
        "reward_rejected": metrics["rewards/rejected"],
        "reward_margin": metrics["rewards/margins"],
        "reward_accuracy": metrics["rewards/accuracies"],
    }


def orpo(policy: Path, folder: Path) -> dict[str, float]:
    trainer = ORPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32),
        args=ORPOConfig(output_dir=str(folder / "orpo"), beta=BETA, bf16=False, use_cpu=True, report_to=[]),
        train_dataset=some_text(),
        processing_class=AutoTokenizer.from_pretrained(policy),
    )
    trainer.model.eval()
    loss, metrics = trainer.get_batch_loss_metrics(trainer.model, orpo_batch(), train_eval="eval")
    found = {name.removeprefix("eval_"): float(value) for name, value in metrics.items()}
    return {
        "loss": loss.item(),
        "supervised_loss": found["nll_loss"],
        "preference_loss": -found["log_odds_ratio"],
        "log_odds_ratio": found["log_odds_chosen"],
        "preference_accuracy": found["rewards/accuracies"],
    }


def orpo_batch() -> dict[str, Any]:
    """Padded on the right, labels -100 on the prompt, as ORPOTrainer's collator gives them."""
    batch: dict[str, Any] = {}
    for side in ("chosen", "rejected"):
        rows = [pair["prompt_ids"] + pair[f"{side}_ids"] for pair in SHORT]
        longest = max(map(len, rows))
        rest = [longest - len(row) for row in rows]
        batch[f"{side}_input_ids"] = torch.tensor([row + [0] * more for row, more in zip(rows, rest, strict=True)])
        batch[f"{side}_attention_mask"] = torch.tensor(
            [[1] * len(row) + [0] * more for row, more in zip(rows, rest, strict=True)]
        )
        batch[f"{side}_labels"] = torch.tensor(
            [[-100, *row[1:], *[-100] * more] for row, more in zip(rows, rest, strict=True)]
        )
    return batch


def some_text() -> Dataset:
    """The trainers want a data set; none of it is used."""
    return Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])


if __name__ == "__main__":
    main()
