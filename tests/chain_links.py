"""Links of chains as runs leave them, with small tensors, and models that stand on them: real folders and rows for
tests that train nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from terakoya.domain.models import ModelInfo
from terakoya.domain.ports import ModelRepository
from terakoya.domain.tasks import NewModel
from terakoya.storage.files import DataDir
from terakoya.training.defaults import resolve
from terakoya.training.request import TrainingRequest

BASE_SHA256 = "b" * 64


def leave_link(
    chain: Path,
    task: str,
    *,
    number: int = 1,
    parent: str | None = None,
    base_sha256: str = BASE_SHA256,
    data_sha256: str = "d" * 64,
    space: str = "lora",
    rows: int = 3,
    metrics: dict[str, Any] | None = None,
) -> tuple[str, str]:
    """Write a link with ``rows`` kept rows, one of them with soft targets; return its name and its manifest's hash."""
    import torch

    from terakoya.training.continual.chain import write_link
    from terakoya.training.continual.link import LinkFacts
    from terakoya.training.continual.replay import ReplayBuffer, ReplayExample, with_targets
    from terakoya.training.continual.soft_targets import soft_targets

    kept = [ReplayExample(task, (number, row, 7, 8), ((2, 4),)) for row in range(rows)]
    if kept:
        torch.manual_seed(number)
        kept[0] = with_targets(kept[0], soft_targets(torch.randn(2, 9), 3))
    facts = LinkFacts(
        number=number,
        task=task,
        parent=parent,
        base_sha256=base_sha256,
        tokenizer_sha256="c" * 64,
        space="full" if space == "full" else "lora",
        anchor_sha256="a" * 64,
        estimator="s_rademacher",
        label_mode="model",
        sequences=8,
        targets=16,
        reduction="sum over labels, mean over sequences",
        dtype="float32",
        seed=0,
        data_sha256=data_sha256,
        gamma=1.0,
        strength=2.5,
        trace=0.5,
        versions={"torch": "2"},
    )
    path, sha256 = write_link(
        chain, facts, importance={"w": torch.ones(4)}, replay=ReplayBuffer(tuple(kept)), metrics=metrics
    )
    return path.name, sha256


def add_chained_model(
    models: ModelRepository,
    data_dir: DataDir,
    folder: Path,
    name: str,
    *,
    chain_id: str,
    base: ModelInfo,
    after: ModelInfo | None = None,
    space: str = "lora",
    data_sha256: str | None = None,
    adapter: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
) -> ModelInfo:
    """Register a model that stands on a link of its own, as the end of a run does."""
    before = after.card["chain"] if after else None
    number = before["number"] + 1 if before else 1
    link, sha256 = leave_link(
        data_dir.chain(chain_id),
        f"{name}-abc",
        number=number,
        parent=before and before["sha256"],
        base_sha256=base.content_sha256,
        data_sha256=data_sha256 or f"{number:x}" * 64,
        space=space,
        metrics=metrics,
    )
    asked = {"model": base.name, "dataset": "inbox", "strategy": "ewc", "base": space}
    request = TrainingRequest.model_validate(asked | ({"adapter": adapter} if adapter else {}))
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(name.encode())
    card: dict[str, Any] = {
        "id": chain_id,
        "number": number,
        "link": link,
        "sha256": sha256,
        "base_sha256": base.content_sha256,
        "space": space,
        "lambda": 2.5,
        "kept_rows": 3,
        "state_bytes": 32,
        "after": after and {"id": after.id, "name": after.name, "sha256": after.content_sha256},
    }
    kind = "adapter" if space == "lora" else "full"
    return models.save_model(
        NewModel(
            *(name, kind, folder, base.id, "llama", 4000, "apache-2.0", "task:x"),
            card={
                "chain": card,
                "strategy": "ewc",
                "dataset": {"id": "data_x", "name": f"rows of {name}", "sha256": data_sha256},
                "configuration": resolve(request, parameters=1000, rows=10).to_json(),
            },
        )
    )


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def made_metrics(task: str, number: int, earlier: Sequence[dict[str, Any]], *, wrong: Sequence[int]) -> dict[str, Any]:
    """Return metrics of a link as a run writes them, of made scores: ``wrong[j]`` of 20 rows are wrong on task j + 1.

    ``earlier``: the metrics of the links before, which say the rows before these.
    """
    from terakoya.evaluation.canaries import CanaryScores
    from terakoya.evaluation.task_scores import TaskScores
    from terakoya.training.continual.scored import MATRIX, SCORED, Row, assemble, row_of

    def scores(errors: int) -> TaskScores:
        exact = [n >= errors for n in range(20)]
        likeliest = [n >= errors // 2 for n in range(20)]
        return TaskScores([0.1 + 0.9 * (not right) for right in exact], [2] * 20, exact, likeliest)

    before = [row for metrics in earlier if (row := row_of(metrics)) is not None]
    names = [row.task for row in before]
    row = Row(
        task=task,
        name=task.removesuffix("-abc"),
        dataset=f"rows of {task}",
        scores={name: scores(errors) for name, errors in zip([*names, task], wrong, strict=True)},
        base=scores(19),
        previous=scores(17 if number > 1 else 19),
        canaries={"en": CanaryScores("en", [100.0 + number] * 8, [50] * 8)},
        base_canaries={"en": CanaryScores("en", [100.0] * 8, [50] * 8)} if number == 1 else {},
        labels=5,
        likelihood_rows=20,
        heldout_rows=20,
        seconds=12.5,
        training_seconds=180.0,
        peak_bytes=2_400_000_000,
    )
    return {SCORED: row.to_json(), MATRIX: assemble([*before, row], [*names, task])}
