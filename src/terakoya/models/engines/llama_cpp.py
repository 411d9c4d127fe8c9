"""Answers with llama.cpp, through ``xllamacpp``: several at once in one batch, adapters added to the base request by
request, answers held to a JSON schema. Weights are GGUF files, kept by ``gguf_files``. Knows nothing of HTTP, queues
or processes.

llama.cpp opens adapters together with their base. One more means that the base is opened anew with it, in the time
that mapping the file takes; answers under way end on the instance they began with.

It says how likely a piece of text was, not a token: of tokens that make one character together it tells the last's.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import AppException, ContextOverflow, InvalidConfig, ModelLoadError, Unavailable
from terakoya.models.budget import Budget
from terakoya.models.context import context_window
from terakoya.models.engines.base import Event, OpenModel, Say, Task, prepare
from terakoya.models.engines.gguf_files import GGUFFiles
from terakoya.models.engines.json_schema import check_schema
from terakoya.models.prompt_writer import PromptWriter
from terakoya.models.wire import ChatRequest

NAME = "llama.cpp"
SLOTS = 8
"""Answers written at once."""
POOL_TOKENS = 16_384
"""What all of them may have together, prompts included, unless one model's window is larger. At 46 KB a token of the
starter that is 377 MB."""
MAX_ADAPTERS = 16
"""On one base at once; the one used longest ago makes room."""
_BYTES_A_NUMBER = 2
_SOCKET = "llama-"
_SAMPLERS = ["penalties", "temperature", "top_p"]


@dataclass(eq=False)
class _Instance:
    """One base with the adapters it was opened with."""

    whole: ModelArtifact
    server: Any
    adapters: dict[str, int]
    """Content hash -> llama.cpp's number of it."""
    size_bytes: int
    used: int
    socket: Path
    leases: int = 0
    is_replaced: bool = False
    adapter_used: dict[str, int] = field(default_factory=dict)

    def close(self) -> None:
        self.server = None  # its destructor ends the threads
        self.socket.unlink(missing_ok=True)


class LlamaCppEngine:
    name = NAME

    def __init__(
        self,
        budget: Budget,
        prompts: PromptWriter,
        files: GGUFFiles,
        *,
        threads: int,
        prompt_threads: int | None = None,
        sockets: Path,
    ) -> None:
        """``prompt_threads``: for reading prompts, if others than for writing. ``sockets``: where it may listen, which
        llama.cpp insists on; on sockets that only their owner can open."""
        self._budget = budget
        self._prompts = prompts
        self._files = files
        self._threads = threads
        self._prompt_threads = prompt_threads or threads
        self._sockets = sockets
        self._instances: dict[str, _Instance] = {}
        self._replaced: list[_Instance] = []
        self._opening = threading.Lock()
        """Taken before the budget's lock."""
        for left in sockets.glob(f"{_SOCKET}*.sock"):  # by a process that was killed
            left.unlink(missing_ok=True)
        budget.join(self)

    def answer(self, request: ChatRequest, is_cancelled: Callable[[], bool], say: Say) -> None:
        schema = request.sampling.json_schema
        if schema is not None:
            check_schema(schema)
        with self._lease(request.artifact) as instance:
            task = prepare(request, self._prompts)
            _Writing(request, task, self._label(request.artifact), is_cancelled, say).run(
                instance.server, _body(request, task, instance.adapters)
            )

    def load(self, artifact: ModelArtifact) -> None:
        with self._lease(artifact):
            pass

    def unload(self, artifact: ModelArtifact) -> bool:
        with self._budget.lock:
            instance = self._instances.get(artifact.root.info.content_sha256)
            if instance is not None and instance.leases:
                return False
            if instance is not None:
                self._drop(instance)
            return True

    @property
    def is_opening(self) -> bool:
        return self._opening.locked()

    def open_models(self) -> list[OpenModel]:
        with self._budget.lock:
            return [
                OpenModel(instance.whole, self._label(instance.whole), instance.size_bytes, len(instance.adapters))
                for instance in self._instances.values()
            ]

    # -- what the budget asks of a holder --

    def held_bytes(self) -> int:
        return sum(instance.size_bytes for instance in [*self._instances.values(), *self._replaced])

    def oldest(self, at_work: object | None) -> tuple[int, Callable[[], None]] | None:
        unused = [instance for instance in self._instances.values() if instance.leases == 0]
        if not unused:
            return None
        oldest = min(unused, key=lambda instance: instance.used)
        return oldest.used, lambda: self._drop(oldest)

    # -- opening --

    def _label(self, artifact: ModelArtifact) -> str:
        return f"{NAME} {self._files.weight_type(artifact)}"

    @contextmanager
    def _lease(self, artifact: ModelArtifact) -> Iterator[_Instance]:
        instance = self._leased(artifact)
        if instance is None:
            with self._opening:
                instance = self._leased(artifact) or self._opened(artifact)
        try:
            yield instance
        finally:
            with self._budget.lock:
                instance.leases -= 1
                if instance.is_replaced and instance.leases == 0:
                    self._replaced.remove(instance)
                    instance.close()

    def _leased(self, artifact: ModelArtifact) -> _Instance | None:
        with self._budget.lock:
            instance = self._instances.get(artifact.root.info.content_sha256)
            adapter = None if artifact.base is None else artifact.info.content_sha256
            if instance is None or (adapter is not None and adapter not in instance.adapters):
                return None
            instance.leases += 1
            instance.used = self._budget.tick()
            if adapter is not None:
                instance.adapter_used[adapter] = instance.used
            return instance

    def _opened(self, artifact: ModelArtifact) -> _Instance:
        whole = artifact.root
        model = self._files.model(whole)
        adapters = self._adapters_with(artifact)
        size = model.stat().st_size + _cache_bytes(whole) + sum(path.stat().st_size for path in adapters.values())
        self._retire(whole.info.content_sha256)
        self._budget.make_room(artifact.info.name, size)
        socket = self._sockets / f"{_SOCKET}{secrets.token_hex(4)}.sock"
        server, _ = open_server(
            model,
            list(adapters.values()),
            tokens=_pool_tokens(whole),
            slots=SLOTS,
            threads=self._threads,
            prompt_threads=self._prompt_threads,
            socket=socket,
        )
        with self._budget.lock:
            now = self._budget.tick()
            numbers = {sha256: number for number, sha256 in enumerate(adapters)}
            instance = _Instance(whole, server, numbers, size, now, socket, leases=1)
            instance.adapter_used = dict.fromkeys(numbers, now)
            self._instances[whole.info.content_sha256] = instance
        return instance

    def _adapters_with(self, artifact: ModelArtifact) -> dict[str, Path]:
        """Return the GGUF files of the adapters to be on the base: those that are, and the new one."""
        with self._budget.lock:
            now = self._instances.get(artifact.root.info.content_sha256)
            known = dict(now.adapter_used) if now is not None else {}
        recent = sorted(known, key=lambda sha256: -known[sha256])[: MAX_ADAPTERS - 1]
        files = {sha256: path for sha256 in recent if (path := self._files.known_adapter(artifact.root, sha256))}
        if artifact.base is not None:
            files[artifact.info.content_sha256] = self._files.adapter(artifact)
        return files

    def _retire(self, sha256: str) -> None:
        """Take the instance of that base out of use: at once, or when the last answer on it has ended."""
        with self._budget.lock:
            instance = self._instances.pop(sha256, None)
            if instance is None:
                return
            if instance.leases:
                instance.is_replaced = True
                self._replaced.append(instance)
            else:
                instance.close()

    def _drop(self, instance: _Instance) -> None:
        self._instances.pop(instance.whole.info.content_sha256, None)
        instance.close()


class _Writing:
    """One answer on its way out of llama.cpp, which calls back with each piece."""

    def __init__(
        self, request: ChatRequest, task: Task, engine: str, is_cancelled: Callable[[], bool], say: Say
    ) -> None:
        self._request = request
        self._task = task
        self._engine = engine
        self._is_cancelled = is_cancelled
        self._say = say
        self._error: Exception | None = None
        self._end: Event | None = None
        self._pieces = 0
        self._text: list[str] = []

    def run(self, server: Any, body: Mapping[str, Any]) -> None:
        server.handle_completions(json.dumps(body), self._hear)
        if self._error is not None:
            raise self._error
        if self._is_cancelled():
            return
        if self._end is None:
            raise Unavailable("llama.cpp ended the answer without saying why; ask again")
        self._check_schema_was_kept(self._end["reason"])
        self._say(self._end)

    def _hear(self, text: str) -> bool:
        """Return whether to stop. What is raised in here llama.cpp would swallow."""
        try:
            self._take(json.loads(text))
            self._task.check_time(self._request, self._pieces)
        except Exception as error:  # noqa: BLE001  raised again by ``run``
            self._error = error
        return self._error is not None or self._is_cancelled()

    def _take(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            raise _refusal(chunk["error"], self._request)
        choice: dict[str, Any] = (chunk["choices"] or [{"text": "", "finish_reason": None}])[0]
        self._pieces += 1
        event: Event = {"delta": choice["text"]}
        if self._request.sampling.json_schema is not None:
            self._text.append(choice["text"])
        if self._request.sampling.top_logprobs is not None and choice.get("logprobs"):
            event["logprobs"] = [
                _likelihood(entry, self._request.sampling.top_logprobs) for entry in choice["logprobs"]["content"]
            ]
        if event["delta"] or event.get("logprobs"):
            self._say(event)
        if choice["finish_reason"] is not None:
            reason = "stop" if choice["finish_reason"] == "stop" else self._task.limit_reason
            self._end = {"finished": True, "reason": reason, "engine": self._engine}
        if (usage := chunk.get("usage")) is not None and self._end is not None:
            self._end |= {"tokens": usage["completion_tokens"], "prompt_tokens": usage["prompt_tokens"]}

    def _check_schema_was_kept(self, reason: str) -> None:
        """llama.cpp says nothing when it cannot use a schema, and writes what it likes."""
        if self._request.sampling.json_schema is None or reason != "stop":
            return
        try:
            json.loads("".join(self._text))
        except ValueError as error:
            raise InvalidConfig("llama.cpp could not hold the answer to this JSON schema; simplify it") from error


def _body(request: ChatRequest, task: Task, adapters: Mapping[str, int]) -> dict[str, Any]:
    """Return the request in llama.cpp's own words. Every adapter is named: what is not named is added in full."""
    sampling = request.sampling
    wanted = None if request.artifact.base is None else request.artifact.info.content_sha256
    body: dict[str, Any] = {
        "prompt": task.prompt.ids,
        "max_tokens": task.max_new_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": request.temperature,
        "seed": request.seed,
        "top_p": sampling.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "repeat_last_n": len(task.prompt.ids) + task.max_new_tokens,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "samplers": _SAMPLERS,
        "stop": list(sampling.stop),
        "lora": [{"id": number, "scale": float(sha256 == wanted)} for sha256, number in adapters.items()],
    }
    if sampling.top_logprobs is not None:
        body["logprobs"] = max(1, sampling.top_logprobs)
    if sampling.json_schema is not None:
        # Compact: small models otherwise write spaces without end.
        body["json_schema"] = {"x-guidance": {"whitespace_flexible": False}} | sampling.json_schema
    return body


def _likelihood(entry: dict[str, Any], top: int) -> dict[str, Any]:
    return _token(entry) | {"top_logprobs": [_token(other) for other in entry["top_logprobs"][:top]]}


def _token(entry: dict[str, Any]) -> dict[str, Any]:
    return {"token": entry["token"], "logprob": entry["logprob"], "bytes": entry["bytes"]}


def _refusal(error: dict[str, Any], request: ChatRequest) -> AppException:
    if error.get("type") == "exceed_context_size_error":
        return ContextOverflow(f"the prompt has {error['n_prompt_tokens']} tokens; {error['n_ctx']} fit")
    text = f"llama.cpp could not answer for {request.artifact.info.name!r}: {error.get('message')}"
    return InvalidConfig(text) if error.get("code") == 400 else Unavailable(text)


def _pool_tokens(whole: ModelArtifact) -> int:
    return max(POOL_TOKENS, context_window(whole))


def _cache_bytes(whole: ModelArtifact) -> int:
    """Return what keys and values of a full pool take."""
    config = json.loads((whole.path / "config.json").read_text(encoding="utf-8"))
    heads = int(config["num_attention_heads"])
    width = int(config.get("head_dim") or config["hidden_size"] // heads)
    numbers = 2 * int(config["num_hidden_layers"]) * int(config.get("num_key_value_heads") or heads) * width
    return _pool_tokens(whole) * numbers * _BYTES_A_NUMBER


_binding = threading.Lock()


def open_server(
    model: Path,
    adapters: list[Path],
    *,
    tokens: int,
    slots: int,
    threads: int,
    socket: Path,
    prompt_threads: int | None = None,
) -> tuple[Any, str]:
    """Return llama.cpp at work, and the key for who asks it over the socket. Raises: ModelLoadError."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_parallel = slots
    params.kv_unified = True
    params.n_ctx = tokens
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = prompt_threads or threads
    params.cache_ram_mib = 0  # else it keeps old conversations in up to 8 GiB that no budget knows of
    params.n_gpu_layers = 0
    params.warmup = False
    params.verbosity = 0
    params.ui = False
    params.use_jinja = False
    params.hostnames = [str(socket)]
    key = secrets.token_hex(32)
    params.api_keys = [key]
    loras = []
    for path in adapters:
        lora = xllamacpp.CommonAdapterLoraInfo()
        lora.path, lora.scale = str(path), 0.0
        loras.append(lora)
    params.lora_adapters = loras
    began = time.monotonic()
    with _binding:
        before = os.umask(0o177)
        try:
            return xllamacpp.Server(params), key
        except (RuntimeError, ValueError) as error:
            seconds = time.monotonic() - began
            raise ModelLoadError(
                f"llama.cpp cannot open {model.name!r} with {len(adapters)} adapters ({seconds:.1f} s): {error}"
            ) from error
        finally:
            os.umask(before)
