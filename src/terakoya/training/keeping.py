"""What is kept of a run: the model's files, its tokenizer and its card. Knows nothing of the registry that takes them
over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from terakoya.domain.models import ModelKind
from terakoya.models.model_card import write_card
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
    chain: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the result into an empty directory and return how it is to be registered.

    ``chain`` says where its link is, if it is a task of one. An adapter that went on from another has the same base.
    """
    strategy.save(module, directory)
    tokenizer.save_pretrained(directory)
    info = (spec.model.root if strategy.kind is ModelKind.ADAPTER else spec.model).info
    judged = report or {}
    card: dict[str, Any] = {
        "strategy": spec.resolved.strategy,
        "base": {"id": info.id, "name": info.name, "sha256": info.content_sha256, "source": info.source},
        "dataset": {"id": spec.dataset_id, "name": spec.dataset_name, "sha256": spec.dataset_sha256},
        "configuration": spec.resolved.to_json(),
        "effective": effective,
        **{part: judged.get(part) for part in ("heldout", "verdict", "flips", "canaries", "forgetting", "cost")},
    }
    if chain is not None:
        before = spec.model.info
        after = {"id": before.id, "name": before.name, "sha256": before.content_sha256}
        card["chain"] = chain | {"after": after if chain["number"] > 1 else None}
    if strategy.loader is not None:
        card["loader"] = strategy.loader
    parameters = sum(parameter.numel() for parameter in strategy.trained_parameters(module).values())
    text = write_card(
        name=spec.name,
        kind=strategy.kind,
        license=info.license,
        source=f"task:{task_id}",
        parameters=parameters,
        content_sha256=None,
        notes="",
        card=card,
    )
    (directory / _CARD_FILE).write_text(text, encoding="utf-8")
    return {
        "name": spec.name,
        "kind": strategy.kind,
        "parent_id": info.id,
        "architecture": info.architecture,
        "parameters": parameters,
        "license": info.license,
        "source": f"task:{task_id}",
        "card": card,
    }
