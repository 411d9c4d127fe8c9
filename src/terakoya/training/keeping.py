"""What is kept of a run: the model's files, its tokenizer and a model card made of facts. Knows nothing of the
registry that takes them over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from torch import nn

from terakoya.training.spec import RunSpec
from terakoya.training.strategy import TrainingStrategy

_CARD_FILE = "README.md"


def keep(
    directory: Path,
    spec: RunSpec,
    strategy: TrainingStrategy,
    module: nn.Module,
    tokenizer: Any,
    *,
    task_id: str,
    report: dict[str, Any] | None,
    effective: dict[str, Any],
) -> dict[str, Any]:
    """Write the result into an empty directory and return how it is to be registered."""
    strategy.save(module, directory)
    tokenizer.save_pretrained(directory)
    info = spec.model.info
    card: dict[str, Any] = {
        "strategy": spec.resolved.strategy,
        "base": {"id": info.id, "name": info.name, "sha256": info.content_sha256, "source": info.source},
        "dataset": {"id": spec.dataset_id, "name": spec.dataset_name, "sha256": spec.dataset_sha256},
        "configuration": spec.resolved.to_json(),
        "effective": effective,
        "heldout": report["heldout"] if report else None,
        "verdict": report["verdict"] if report else None,
    }
    (directory / _CARD_FILE).write_text(_model_card(spec, card, task_id), encoding="utf-8")
    return {
        "name": spec.name,
        "kind": strategy.kind,
        "parent_id": info.id,
        "architecture": info.architecture,
        "parameters": sum(parameter.numel() for parameter in strategy.trained_parameters(module).values()),
        "license": info.license,
        "source": f"task:{task_id}",
        "card": card,
    }


def _model_card(spec: RunSpec, card: dict[str, Any], task_id: str) -> str:
    """Facts only, with the metadata block that model hubs read."""
    info = spec.model.info
    metadata = {
        "license": info.license.lower() or "unknown",
        "base_model": info.name,
        "library_name": "peft" if card["strategy"] != "full" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["terakoya", card["strategy"]],
    }
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in metadata.items()), "---", ""]
    lines += [f"# {spec.name}", ""]
    lines += [
        f"Made by Terakoya, run `{task_id}`.",
        "",
        f"- Base: {info.name} (`{info.id}`), from {info.source}, licence {info.license}",
        f"- Data: {spec.dataset_name}, {card['effective']['rows']:,} rows, SHA-256 `{spec.dataset_sha256}`",
        f"- Strategy: {card['strategy']}, {card['effective']['trained_parameters']:,} trained parameters, "
        f"{card['effective']['steps']:,} steps",
        f"- Base weights: SHA-256 of the manifest `{info.content_sha256}`. An adapter fits these weights only.",
        "",
        *_results(card),
        "## Configuration",
        "",
        "```json",
        json.dumps(card["configuration"], indent=1, ensure_ascii=False),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _results(card: dict[str, Any]) -> list[str]:
    if card["heldout"] is None:
        return ["No rows were held out, so nothing is known of how well it answers.", ""]
    heldout = cast(dict[str, Any], card["heldout"])
    rows = [
        f"| {name} | {_cell(heldout[key]['before'])} | {_cell(heldout[key]['after'])} |"
        for key, name in (("exact_match", "exact match"), ("loss", "loss per label token (nats)"))
    ]
    return [
        f"## {heldout['examples']:,} held-out examples",
        "",
        "| | before | after |",
        "|---|---|---|",
        *rows,
        "",
        f"{card['verdict']['text']} Intervals are of 95%.",
        "",
    ]


def _cell(interval: dict[str, float | None]) -> str:
    if interval["low"] is None or interval["high"] is None:
        return f"{interval['value']:.3f}"
    return f"{interval['value']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"
