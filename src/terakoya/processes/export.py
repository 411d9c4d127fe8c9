"""Entry point of a merge or export task: writes a registered model in another form, opens what was written in its own
engine, compares it with the model it was made of, and leaves it for registration only if they agree.
"""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

from terakoya.data.chat_template import ChatFormat, chat_format
from terakoya.domain.datasets import Message
from terakoya.domain.events import EventType, Phase
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.domain.tasks import Outcome, TaskState
from terakoya.evaluation.canaries import canary_set
from terakoya.exceptions import InvalidConfig, StorageFull
from terakoya.models.artifacts import check_folder, count_parameters
from terakoya.models.base_loader import LoadedModel
from terakoya.models.engines.llama_reader import reading
from terakoya.models.export_formats import ExportFormat, WeightType, export_format
from terakoya.models.factory import create_model_loader
from terakoya.models.full_loader import FullModelLoader
from terakoya.models.generation import generate_batch, stop_ids_of
from terakoya.models.gguf_writer import check_writable, write_model
from terakoya.models.merging import open_merged, write_folder
from terakoya.models.ollama import modelfile, turn_parts
from terakoya.models.self_check import ANSWER_TOKENS, Check, Reader, TorchReader, check, refuse_failed, texts_of
from terakoya.models.wire import artifact_from_json
from terakoya.storage.worker_io import WorkerContext, run_worker

RESULT = "result"
WEIGHTS = "model.gguf"
_QUESTIONS = (
    "What is the capital of France?",
    "Say hello.",
    "Name a colour.",
    "How many legs does a cat have?",
    "Is water wet?",
    "Write one short sentence about the sea.",
    "What is two plus two?",
    "Which day comes after Monday?",
)


def main(context: WorkerContext) -> Outcome:
    work, result = context.task_dir / "work", context.task_dir / RESULT
    for leftover in (work, result):
        shutil.rmtree(leftover, ignore_errors=True)
    work.mkdir()
    try:
        model = _export(context, artifact_from_json(context.spec["model"]), work, result)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if model is None:
        shutil.rmtree(result, ignore_errors=True)
        return Outcome(TaskState.CANCELLED, context.attempt)
    return Outcome(TaskState.SUCCEEDED, context.attempt, model=model, result={"check": model["card"]["check"]})


def _export(context: WorkerContext, artifact: ModelArtifact, work: Path, result: Path) -> dict[str, Any] | None:
    form = export_format(context.spec["format"])
    _refuse_full_disk(artifact, work)
    if form.weights is not None:
        check_writable(artifact.root.path)  # before the model is opened, which takes longer
    context.observer.notify(EventType.PHASE, phase=Phase.LOADING_MODEL, detail=artifact.info.name)
    import transformers

    transformers.logging.disable_progress_bar()
    original = create_model_loader("lora" if artifact.base else "full").load(artifact)
    reference = _reader(original)
    written = chat_format(original.tokenizer)
    answered = _answered(original, written)
    if context.requested_action() is not None:
        return None
    context.observer.notify(EventType.PHASE, phase=Phase.CONVERTING, detail=form)
    folder = _whole_folder(artifact, result if form.weights is None else work / "whole")
    if form.weights is not None:
        _write_gguf(context, folder, result, form.weights, written, original, artifact)
    check_folder(result)
    if context.requested_action() is not None:
        return None
    # An adapter's module is opened again: merging has changed the one above nowhere, but its memory is to be free.
    with _opened_again(form, artifact, result, work) as exported:
        found = check(
            reference,
            exported,
            format=form,
            texts=texts_of([*canary_set("en").passages, *canary_set("ja").passages]),
            answered=answered,
            progress=lambda done, total: context.observer.notify(
                EventType.PHASE, phase=Phase.CHECKING, done=done, total=total
            ),
        )
    refuse_failed(found, artifact.info.name)
    return _described(context, artifact, folder, form, found)


def _whole_folder(artifact: ModelArtifact, directory: Path) -> Path:
    """Return a folder with all weights: the model's own, or one with the adapter merged in."""
    if artifact.base is None:
        if directory.name != RESULT:
            return artifact.path
        shutil.copytree(artifact.path, directory, ignore=shutil.ignore_patterns("manifest.json"))
        return directory
    write_folder(open_merged(artifact), directory)
    return directory


def _write_gguf(
    context: WorkerContext,
    folder: Path,
    result: Path,
    weights: WeightType,
    written: ChatFormat,
    original: LoadedModel,
    artifact: ModelArtifact,
) -> None:
    result.mkdir()
    write_model(
        folder,
        result / WEIGHTS,
        weights=weights,
        progress=lambda done, total: context.observer.notify(
            EventType.PHASE, phase=Phase.CONVERTING, done=done, total=total
        ),
    )
    for file in folder.iterdir():  # what writes its prompts
        if file.suffix in (".json", ".jinja") and file.name not in ("manifest.json", "model.safetensors.index.json"):
            shutil.copyfile(file, result / file.name)
    tokenizer: Any = original.tokenizer

    def render(messages: Any, opens: bool) -> str:
        plain = [{"role": message.role, "content": message.content} for message in messages]
        text: str = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=opens)
        return text

    if not tokenizer.chat_template:
        return
    try:
        parts = turn_parts(render)
    except InvalidConfig as error:
        context.observer.notify(EventType.WARNING, code="no_modelfile", message=f"no Modelfile was written: {error}")
        return
    stops = [tokenizer.decode([written.end_token_id])]
    text = modelfile(parts, file=WEIGHTS, stops=stops, license=artifact.root.info.license)
    (result / "Modelfile").write_text(text, encoding="utf-8")


def _answered(original: LoadedModel, written: ChatFormat) -> list[tuple[list[int], list[int]]]:
    """Return the questions with their answers, of those that the original ends by itself."""
    prompts = written.prompts([[Message("user", question)] for question in _QUESTIONS])
    answers = generate_batch(
        original.module,
        original.tokenizer,
        prompts,
        max_new_tokens=ANSWER_TOKENS,
        stop_ids=stop_ids_of(original.module, original.tokenizer) | {written.end_token_id},
    )
    return [(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True) if len(answer) < ANSWER_TOKENS]


def _reader(loaded: LoadedModel) -> TorchReader:
    stops = stop_ids_of(loaded.module, loaded.tokenizer) | {chat_format(loaded.tokenizer).end_token_id}
    return TorchReader(loaded.module, loaded.tokenizer, frozenset(stops))


def _opened_again(
    form: ExportFormat, artifact: ModelArtifact, result: Path, work: Path
) -> AbstractContextManager[Reader]:
    if form.weights is not None:
        return reading(result / WEIGHTS, work, threads=os.cpu_count() or 1)
    unregistered = ModelArtifact(artifact.root.info, result)
    return nullcontext(_reader(FullModelLoader().load(unregistered)))


def _described(
    context: WorkerContext, artifact: ModelArtifact, folder: Path, form: ExportFormat, found: Check
) -> dict[str, Any]:
    info = artifact.info
    base = artifact.root.info
    is_merge = form is ExportFormat.SAFETENSORS and artifact.base is not None
    card: dict[str, Any] = {
        "made_of": _named(info),
        "base": _named(base),
        "format": form.value,
        "check": found.to_json(),
    }
    warnings = [warning for part in (base, info) if (warning := part.card.get("provenance"))]
    if info.card.get("loader") == "qlora":
        warnings.append("The adapter was trained beside 4-bit weights and is merged into the whole ones.")
    if warnings:
        card["provenance"] = " ".join(dict.fromkeys(warnings))
    return {
        "name": context.spec["name"],
        "kind": ModelKind.MERGED if is_merge else ModelKind.EXPORT,
        "directory": RESULT,
        "parent_id": info.id,
        "architecture": base.architecture,
        "parameters": count_parameters(folder),
        "license": info.license,
        "source": f"{'merge' if is_merge else 'export'}:{info.name}",
        "card": card,
    }


def _named(info: ModelInfo) -> dict[str, str]:
    return {"id": info.id, "name": info.name, "sha256": info.content_sha256}


def _refuse_full_disk(artifact: ModelArtifact, work: Path) -> None:
    needed = 3 * artifact.root.info.size_bytes
    free = shutil.disk_usage(work).free
    if free < needed:
        raise StorageFull(f"exporting {artifact.info.name!r} needs {needed >> 20} MiB; {free >> 20} are free")


if __name__ == "__main__":
    run_worker(main)
