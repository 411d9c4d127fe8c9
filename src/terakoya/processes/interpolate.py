"""Entry point of a task that slides between the weights before and after a run: scores every point on held-out rows of
what was learned and on general text, and leaves the chosen one, if there is one, for registration.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import torch

from terakoya.domain.events import EventType, Phase
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.domain.tasks import Outcome, TaskState
from terakoya.evaluation.canaries import LANGUAGES
from terakoya.exceptions import InvalidConfig, StorageFull
from terakoya.models.artifacts import count_parameters
from terakoya.models.wire import artifact_from_json
from terakoya.storage.worker_io import WorkerContext, run_worker
from terakoya.training.points import Line, open_line
from terakoya.training.scoring import ScoredTask, general_scores

RESULT = "result"


class _Stopped(Exception):
    """Somebody asked for the end. Never leaves this module."""


def main(context: WorkerContext) -> Outcome:
    result = context.task_dir / RESULT
    shutil.rmtree(result, ignore_errors=True)
    try:
        return _interpolate(context)
    except _Stopped:
        shutil.rmtree(result, ignore_errors=True)
        return Outcome(TaskState.CANCELLED, context.attempt)


def _interpolate(context: WorkerContext) -> Outcome:
    spec = context.spec
    torch.set_num_threads(spec["threads"] or os.cpu_count() or 1)
    after = artifact_from_json(spec["after"])
    before = None if spec["before"] is None else artifact_from_json(spec["before"])
    _refuse_full_disk(context, after)
    context.observer.notify(EventType.PHASE, phase=Phase.LOADING_MODEL, detail=after.info.name)
    line = open_line(before, after)
    points = _scored(context, line)
    found: dict[str, Any] = {"points": points, "missing": spec["missing"], "kept": spec["keep"]}
    if spec["keep"] is None:
        return Outcome(TaskState.SUCCEEDED, context.attempt, result=found)
    context.observer.notify(EventType.PHASE, phase=Phase.SAVING)
    line.move_to(spec["keep"])
    directory = context.task_dir / RESULT
    directory.mkdir()
    line.save(directory)
    model = _described(context, before, after, line, points)
    return Outcome(TaskState.SUCCEEDED, context.attempt, model=model, result=found)


def _scored(context: WorkerContext, line: Line) -> list[dict[str, Any]]:
    """Raises: InvalidConfig if there is nothing to score by; _Stopped."""
    spec = context.spec
    length = int(getattr(line.module.config, "max_position_embeddings", 0)) or 1 << 20
    tasks = [ScoredTask.read(task, line.tokenizer, context=length, most=spec["rows"]) for task in spec["tasks"]]
    tasks = [task for task in tasks if task.rows]
    languages: tuple[str, ...] = LANGUAGES
    points = []
    for done, share in enumerate(spec["shares"]):
        _tick(context, done, len(spec["shares"]))
        line.move_to(share)
        general = general_scores(line.module, line.tokenizer, languages, lambda: _tick(context, None, None))
        if done == 0:  # a language the model does not have has nothing to lose
            languages = tuple(each.language for each in general if each.is_known)
            general = [each for each in general if each.is_known]
        scored = []
        for task in tasks:
            _tick(context, None, None)
            scored.append(task.score(line.module))
        points.append(
            {
                "share": share,
                "tasks": scored,
                "general": [{"language": each.language, "bits_per_byte": each.bits_per_byte} for each in general],
            }
        )
        context.observer.notify(EventType.EVAL, when="point", **points[-1])
    if not tasks and not languages:
        raise InvalidConfig("neither data sets of what was learned nor a language of the canaries is there to score by")
    return points


def _tick(context: WorkerContext, done: int | None, total: int | None) -> None:
    if context.requested_action() is not None:
        raise _Stopped
    if done is not None:
        context.observer.notify(EventType.PHASE, phase=Phase.EVALUATING_AFTER, done=done, total=total)


def _described(
    context: WorkerContext, before: ModelArtifact | None, after: ModelArtifact, line: Line, points: list[dict[str, Any]]
) -> dict[str, Any]:
    info, base = after.info, after.root.info
    is_adapter = line.kind is ModelKind.ADAPTER
    parameters = sum(each.numel() for name, each in line.module.named_parameters() if ".lora_" in name)
    card: dict[str, Any] = {
        "made_of": _named(info),
        "base": _named(base),
        "interpolation": {
            "share": context.spec["keep"],
            "before": None if before is None else _named(before.info),
            "after": _named(info),
            "points": points,
        },
    }
    if info.card.get("provenance"):
        card["provenance"] = info.card["provenance"]
    return {
        "name": context.spec["name"],
        "kind": line.kind,
        "directory": RESULT,
        "parent_id": base.id if is_adapter else info.id,
        "architecture": base.architecture,
        "parameters": parameters if is_adapter else count_parameters(context.task_dir / RESULT),
        "license": base.license,
        "source": f"interpolate:{info.name}",
        "card": card,
    }


def _named(info: ModelInfo) -> dict[str, str]:
    return {"id": info.id, "name": info.name, "sha256": info.content_sha256}


def _refuse_full_disk(context: WorkerContext, after: ModelArtifact) -> None:
    """Raises: StorageFull if the point to keep would not fit."""
    needed = 3 * after.info.size_bytes if context.spec["keep"] is not None else 0
    free = shutil.disk_usage(context.task_dir).free
    if free < needed:
        raise StorageFull(f"a point of {after.info.name!r} needs {needed >> 20} MiB; {free >> 20} are free")


if __name__ == "__main__":
    run_worker(main)
