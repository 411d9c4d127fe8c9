"""The web process's side of the model server: starts it with the first question, restarts it after a crash, stops it
when nobody asks. Never imports torch; knows nothing of how answers are made.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from terakoya.domain.datasets import Message
from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import InvalidConfig, Unavailable
from terakoya.models.server_process import ModelServerProcess
from terakoya.models.wire import (
    AS_USUAL,
    ChatRequest,
    Embedded,
    EmbedRequest,
    Reranked,
    RerankRequest,
    Sampling,
    artifact_to_json,
    embed_request_to_json,
    embedded_from_json,
    error_from_json,
    request_to_json,
    rerank_request_to_json,
    reranked_from_json,
)

_SILENCE_SECONDS = 60.0
"""The server writes at least an empty line every five; a loaded machine gets some slack."""

MAX_EMBED_TEXTS = 32
"""Of one request: so many, that is a few seconds' work."""
MAX_EMBED_CHARS = 100_000
"""Of one text."""
MAX_RERANKED = 256
"""Passages of one request."""
MAX_RERANK_CHARS = 20_000
"""Of the query or one passage: far more than a cross-encoder reads."""
_LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """A piece of text, or with ``reason`` the end of the answer."""

    delta: str = ""
    tokens: int = 0
    """Of the whole answer; set at its end."""
    prompt_tokens: int = 0
    """Of the whole conversation before it; set at its end."""
    reason: str | None = None
    """"stop", "length" or "context" at the end."""
    logprobs: tuple[dict[str, Any], ...] = ()
    """Of the piece's tokens, where they were asked for: "token", "logprob", "bytes" and "top_logprobs"."""
    engine: str = ""
    """Which wrote it, and from weights of which type; set at its end."""


class ModelServerClient:
    """All methods are to be called on one event loop."""

    def __init__(
        self,
        *,
        socket_path: Path,
        log_path: Path,
        cache_bytes: int,
        threads: int = 0,
        files: Path | None = None,
        leases: Path | None = None,
        idle_seconds: float = 600.0,
        timeout_seconds: float = 120.0,
        start_seconds: float = 120.0,
    ) -> None:
        self._process = ModelServerProcess(
            socket_path, log_path, cache_bytes=cache_bytes, threads=threads, files=files, leases=leases
        )
        self._idle_seconds = idle_seconds
        self._timeout_seconds = timeout_seconds
        self._start_seconds = start_seconds
        self._http: httpx.AsyncClient | None = None
        self._changing = asyncio.Lock()
        """Held while the process is started or stopped, so that neither meets the other half-way."""
        self._starting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._asking = 0
        self._last_used = time.monotonic()

    @property
    def is_running(self) -> bool:
        return self._process.is_alive

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process.is_alive else None

    async def start(self) -> None:
        """Make sure that the server runs. Raises: Unavailable with its last log lines if it dies at once."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._started)
        # Shielded: a caller who goes away must not leave a half-started server behind.
        await asyncio.shield(self._starting)

    async def stop(self) -> None:
        """Stop the process; a later question starts it again."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        await self._stop(grace_seconds=5.0)

    async def stream(
        self,
        artifact: ModelArtifact,
        messages: Sequence[Message],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        sampling: Sampling = AS_USUAL,
        text: str | None = None,
    ) -> AsyncGenerator[AnswerPart, None]:
        """Yield pieces of the answer, then its end. Closing the iterator stops the work.

        With ``text``, that is gone on with in place of ``messages``.
        Raises: ModelLoadError, InvalidConfig, ContextOverflow from the server; TooBusy if too many wait; Unavailable
        if it is too slow, or dies.
        """
        if not artifact.root.info.can_answer:
            kind = artifact.root.info.kind.value
            raise InvalidConfig(
                f"{artifact.info.name!r} is of the kind {kind!r} and answers nothing; choose a chat model"
            )
        request = ChatRequest(
            artifact,
            tuple(messages),
            max_new_tokens,
            temperature,
            seed,
            timeout_seconds=self._timeout_seconds,
            sampling=sampling,
            text=text,
        )
        self._asking += 1
        try:
            await self.start()
            async with contextlib.aclosing(self._lines("/chat", request_to_json(request))) as lines:
                async for line in lines:
                    fields = json.loads(line)
                    if "error" in fields:
                        raise error_from_json(fields)
                    if fields.get("finished"):
                        await _read_to_the_end(lines)
                        yield AnswerPart(
                            tokens=fields["tokens"],
                            prompt_tokens=fields["prompt_tokens"],
                            reason=fields["reason"],
                            engine=fields["engine"],
                        )
                        return
                    yield AnswerPart(delta=fields["delta"], logprobs=tuple(fields.get("logprobs", ())))
            raise Unavailable("the model server ended the answer without saying why; ask again")
        finally:
            self._asking -= 1
            self._last_used = time.monotonic()

    async def load(self, artifact: ModelArtifact) -> dict[str, Any]:
        """Open the model; return the engine and the seconds it took. Raises as ``stream`` does."""
        return await self._answer_of("/load", {"artifact": artifact_to_json(artifact)})

    async def unload(self, artifact: ModelArtifact) -> None:
        """Close the model if it is open. Raises: Unavailable while it answers."""
        if self.is_running:
            await self._first("/unload", {"artifact": artifact_to_json(artifact)})

    async def open_models(self) -> dict[str, Any]:
        """What is open ("models") and what is being made for that ("opening"); nothing while no server runs.

        Waits for two seconds at most, and leaves a server that does not answer alone: whoever waits for an answer
        of its finds out. Raises: Unavailable if it does not say.
        """
        if not self.is_running:
            return {"models": [], "opening": []}
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                return await self._first("/models", None)
        except TimeoutError as error:
            raise Unavailable(f"the model server did not say within {_LOOK_SECONDS:g} s what is open") from error

    async def embed(self, artifact: ModelArtifact, texts: Sequence[str], *, is_query: bool) -> Embedded:
        """Return the texts' vectors, in order, and which of them were cut. Cancelling the call stops the work.

        Queries go before what is not. Texts are read as they are: prefixes are the caller's.
        Raises: InvalidConfig if there are too many texts or one is too long; ModelLoadError from the server;
        TooBusy if too many wait; Unavailable if it hangs or dies.
        """
        longest = max(map(len, texts), default=0)
        if len(texts) > MAX_EMBED_TEXTS or longest > MAX_EMBED_CHARS:
            raise InvalidConfig(
                f"at most {MAX_EMBED_TEXTS} texts of {MAX_EMBED_CHARS} characters are embedded at once; "
                f"got {len(texts)}, the longest of {longest}"
            )
        request = EmbedRequest(artifact, tuple(texts), is_query)
        return embedded_from_json(await self._answer_of("/embed", embed_request_to_json(request)))

    async def rerank(self, artifact: ModelArtifact, query: str, passages: Sequence[str]) -> Reranked:
        """Return how well each passage answers the query. Cancelling the call stops the work.

        Raises: InvalidConfig if there are too many passages, or a text is too long; ContextOverflow for a query that
        leaves no room; ModelLoadError, TooBusy, Unavailable as ``embed`` does.
        """
        longest = max(map(len, (query, *passages)))
        if len(passages) > MAX_RERANKED or longest > MAX_RERANK_CHARS:
            raise InvalidConfig(
                f"at most {MAX_RERANKED} passages of {MAX_RERANK_CHARS} characters are reranked at once; "
                f"got {len(passages)}, the longest text of {longest}"
            )
        request = RerankRequest(artifact, query, tuple(passages))
        return reranked_from_json(await self._answer_of("/rerank", rerank_request_to_json(request)))

    async def _answer_of(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the one line of JSON that the server answers with, which is started if need be."""
        self._asking += 1
        try:
            await self.start()
            return await self._first(path, body)
        finally:
            self._asking -= 1
            self._last_used = time.monotonic()

    async def _first(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """Raises: the error that the line tells; Unavailable if there is none."""
        async with contextlib.aclosing(self._lines(path, body)) as lines:
            async for line in lines:
                fields: dict[str, Any] = json.loads(line)
                if "error" in fields:
                    raise error_from_json(fields)
                await _read_to_the_end(lines)
                return fields
        raise Unavailable(f"the model server ended without an answer to {path!r}; try again")

    async def _lines(self, path: str, body: dict[str, Any] | None) -> AsyncGenerator[str, None]:
        try:
            async with self._connections().stream("GET" if body is None else "POST", path, json=body) as response:
                if response.status_code != 200:
                    raise error_from_json(json.loads(await response.aread()))
                async for line in response.aiter_lines():
                    if line:
                        yield line
        except httpx.TimeoutException as error:
            await self._stop(grace_seconds=0.0)
            raise Unavailable("the model server hung and was stopped; ask again: it restarts") from error
        except httpx.TransportError as error:
            await asyncio.sleep(0.2)  # a process that has just died is not always known to be dead
            died = "" if self._process.is_alive else f" {self._process.death()}"
            raise Unavailable(f"the model server broke off the answer{died}; ask again: it restarts") from error

    def _connections(self) -> httpx.AsyncClient:
        """Return what keeps connections to the server open between requests."""
        if self._http is None:
            # A Unix socket has no TLS: reading the certificates all the same would cost 27 ms.
            transport = httpx.AsyncHTTPTransport(
                uds=str(self._process.socket_path),
                verify=False,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=2.0),
            )
            timeout = httpx.Timeout(_SILENCE_SECONDS, connect=10.0)
            self._http = httpx.AsyncClient(transport=transport, base_url="http://model-server", timeout=timeout)
        return self._http

    async def _disconnect(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def _start(self) -> None:
        async with self._changing:
            if not self._process.is_alive:
                await self._disconnect()
                await asyncio.to_thread(self._process.start, timeout_seconds=self._start_seconds)

    async def _stop(self, *, grace_seconds: float) -> None:
        async with self._changing:
            await self._disconnect()
            await asyncio.to_thread(self._process.stop, grace_seconds=grace_seconds)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting = None
        if not task.cancelled() and task.exception() is None and self._watching is None:
            self._watching = asyncio.create_task(self._stop_when_idle())

    async def _stop_when_idle(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._idle_seconds / 4))
            async with self._changing:  # whoever asks from here on waits for the lock, then starts it anew
                is_idle = self._asking == 0 and time.monotonic() - self._last_used > self._idle_seconds
                if is_idle and self._process.is_alive:
                    await self._disconnect()
                    await asyncio.to_thread(self._process.stop)


async def _read_to_the_end(lines: AsyncGenerator[str, None]) -> None:
    """The answer is over, and so its connection can be used again; one that is left before its end is closed."""
    async for _ in lines:
        pass
