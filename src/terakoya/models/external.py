"""Asks OpenAI-compatible endpoints that the administrator named, and reads their streams. A key is sent to its own
endpoint and shown nowhere. Knows nothing of the registry, nor of models here.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import ssl
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import httpx
import numpy as np

from terakoya.domain.datasets import Message
from terakoya.domain.documents import Vector
from terakoya.domain.models import ModelArtifact
from terakoya.domain.names import name_key
from terakoya.exceptions import AppException, BadGateway, ContextOverflow, InvalidConfig, TooBusy
from terakoya.models.client import AnswerPart
from terakoya.models.endpoints import Endpoint, Use
from terakoya.models.wire import AS_USUAL, Sampling

ENGINE = "external"
_CONNECT_SECONDS = 10.0
_MAX_ERROR_BYTES, _MAX_SAID_CHARS = 20_000, 300
_MAX_EMBEDDINGS_BYTES = 200_000_000
_MAX_LINE_BYTES = 2_000_000
"""Of a stream: one piece of an answer, with the likelihoods of twenty other tokens, has some thousand."""
_ENDS = {"length": "length"}
"""Reasons for an end that are not "stop" to us either."""
_RETRY_AFTER = re.compile(r"[0-9]{1,4}")


class ExternalClient:
    """Any event loop; holds no connection between calls."""

    def __init__(self, endpoints: Sequence[Endpoint] = ()) -> None:
        self._endpoints = {name_key(endpoint.name): endpoint for endpoint in endpoints}

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
        """Yield pieces of the answer, then its end. Closing the iterator hangs up, which stops the work there.

        Raises: InvalidConfig for what it does not serve or refuses; ContextOverflow; TooBusy; BadGateway if it is down,
        silent, refuses the administrator's key or makes no sense.
        """
        endpoint = self._of(artifact, "chat" if text is None else "completions")
        body: dict[str, Any] = {"model": endpoint.model, "max_tokens": max_new_tokens, "temperature": temperature}
        body |= {"seed": seed, "stream": True, "stream_options": {"include_usage": True}}
        body |= _options(sampling, is_chat=text is None)
        if text is None:
            body["messages"] = [{"role": message.role, "content": message.content} for message in messages]
            path = "/chat/completions"
        else:
            body["prompt"] = text
            path = "/completions"
        reading = _Reading(endpoint, is_chat=text is None)
        async with aclosing(self._lines(endpoint, path, body)) as lines:
            async for line in lines:
                if line == "data: [DONE]":
                    break
                if line.startswith("data:"):
                    for part in reading.take(line.removeprefix("data:")):
                        yield part
        yield reading.end()

    async def load(self, artifact: ModelArtifact) -> dict[str, Any]:
        """Ask whether it is there. Raises: BadGateway."""
        endpoint = self._of(artifact, None)
        started = time.monotonic()
        async with aclosing(self._lines(endpoint, "/models", None)) as lines:
            async for _ in lines:
                break
        return {"engine": ENGINE, "seconds": round(time.monotonic() - started, 3)}

    async def unload(self, artifact: ModelArtifact) -> None:
        raise InvalidConfig(f"{artifact.info.name!r} answers elsewhere: there is nothing here to be closed")

    async def embed(self, name: str, texts: Sequence[str]) -> tuple[Vector, int]:
        """Return the texts' vectors as the endpoint gives them, [texts, dimension], and the tokens it counted."""
        endpoint = self._named(name, "embeddings")
        raw: list[str] = []
        size = 0
        body = {"model": endpoint.model, "input": list(texts), "encoding_format": "float"}
        async with aclosing(self._lines(endpoint, "/embeddings", body, most=_MAX_EMBEDDINGS_BYTES)) as lines:
            async for line in lines:
                raw.append(line)
                size += len(line)
                if size > _MAX_EMBEDDINGS_BYTES:
                    raise _too_much(endpoint, _MAX_EMBEDDINGS_BYTES)
        try:
            return await asyncio.to_thread(_vectors, "".join(raw), len(texts))  # a second for some megabytes
        except _NONSENSE as error:
            raise _no_sense(endpoint, error) from error

    async def _lines(
        self, endpoint: Endpoint, path: str, body: dict[str, Any] | None, *, most: int = _MAX_LINE_BYTES
    ) -> AsyncGenerator[str, None]:
        headers = {} if endpoint.api_key is None else {"Authorization": f"Bearer {endpoint.api_key}"}
        timeout = httpx.Timeout(endpoint.timeout_seconds, connect=min(_CONNECT_SECONDS, endpoint.timeout_seconds))
        try:
            async with (
                httpx.AsyncClient(verify=_certificates(), timeout=timeout, follow_redirects=False) as client,
                client.stream(
                    "GET" if body is None else "POST", endpoint.url + path, json=body, headers=headers
                ) as response,
            ):
                if response.status_code != 200:
                    raise await _refusal(endpoint, response)
                held: list[bytes] = []
                size = 0
                async for chunk in response.aiter_bytes():
                    *ends, rest = chunk.split(b"\n")
                    for end in ends:
                        if line := b"".join([*held, end]).decode(errors="replace").rstrip("\r"):
                            yield line
                        held, size = [], 0
                    held.append(rest)
                    size += len(rest)
                    if size > most:  # httpx' own lines have no limit
                        raise _too_much(endpoint, most)
                if line := b"".join(held).decode(errors="replace"):
                    yield line
        except httpx.TimeoutException as error:
            seconds = timeout.connect if isinstance(error, httpx.ConnectTimeout) else endpoint.timeout_seconds
            raise BadGateway(f"the endpoint {endpoint.name!r} was silent for {seconds:g} s; try again later") from error
        except httpx.HTTPError as error:
            raise BadGateway(
                f"the endpoint {endpoint.name!r} cannot be reached or broke off: "
                f"{_without_key(endpoint, str(error)) or type(error).__name__}; is it running?"
            ) from error

    def _of(self, artifact: ModelArtifact, use: Use | None) -> Endpoint:
        return self._named(artifact.info.name, use)

    def _named(self, name: str, use: Use | None) -> Endpoint:
        endpoint = self._endpoints.get(name_key(name))
        if endpoint is None:
            raise BadGateway(f"the endpoint {name!r} is in the registry but not in the file of endpoints; start again")
        if use is not None and use not in endpoint.serves:
            raise InvalidConfig(f"{name!r} serves {', '.join(endpoint.serves)}, not {use}")
        return endpoint


class _Reading:
    """The chunks of one answer become its parts."""

    def __init__(self, endpoint: Endpoint, *, is_chat: bool) -> None:
        self._endpoint, self._is_chat = endpoint, is_chat
        self._pieces = self._tokens = self._prompt_tokens = 0
        self._reason: str | None = None

    def take(self, written: str) -> list[AnswerPart]:
        try:
            chunk = json.loads(written)
            if "error" in chunk:
                said = _message(chunk)
                raise BadGateway(f"the endpoint {self._endpoint.name!r} failed: {_without_key(self._endpoint, said)}")
            if usage := chunk.get("usage"):
                self._tokens, self._prompt_tokens = int(usage["completion_tokens"]), int(usage["prompt_tokens"])
            return [part for choice in chunk.get("choices", ())[:1] if (part := self._part(choice)) is not None]
        except _NONSENSE as error:
            raise _no_sense(self._endpoint, error) from error

    def end(self) -> AnswerPart:
        if self._reason is None:
            raise BadGateway(f"the endpoint {self._endpoint.name!r} ended the answer without saying why; ask again")
        return AnswerPart(
            tokens=self._tokens or self._pieces,
            prompt_tokens=self._prompt_tokens,
            reason=self._reason,
            engine=f"{ENGINE} {self._endpoint.model}",
        )

    def _part(self, choice: dict[str, Any]) -> AnswerPart | None:
        if (reason := choice.get("finish_reason")) is not None:
            self._reason = _ENDS.get(reason, "stop")
        delta = (choice.get("delta") or {}).get("content") if self._is_chat else choice.get("text")
        given = choice.get("logprobs") or {}
        logprobs = tuple(given.get("content") or ()) if self._is_chat else _completion_logprobs(given)
        if not delta and not logprobs:
            return None
        if delta is not None and not isinstance(delta, str):
            raise TypeError(f"a piece of text is {type(delta).__name__}")
        self._pieces += 1
        return AnswerPart(delta=delta or "", logprobs=logprobs)


_NONSENSE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def _vectors(raw: str, count: int) -> tuple[Vector, int]:
    """Raises: one of ``_NONSENSE`` for what is no vector a text."""
    answer = json.loads(raw)
    rows = {int(row["index"]): row["embedding"] for row in answer["data"]}
    vectors = np.array([rows[index] for index in range(count)], dtype=np.float32)
    if vectors.ndim != 2 or len(rows) != count or not np.isfinite(vectors).all():
        raise ValueError(f"vectors of shape {vectors.shape} for {count} texts")
    return vectors, int((answer.get("usage") or {}).get("prompt_tokens", 0))


def _too_much(endpoint: Endpoint, most: int) -> BadGateway:
    return BadGateway(f"the endpoint {endpoint.name!r} sends more than {most} bytes at once")


def _options(sampling: Sampling, *, is_chat: bool) -> dict[str, Any]:
    """What is asked for besides the usual: endpoints know some options and not others, and refuse by name."""
    options: dict[str, Any] = {}
    for name in ("top_p", "presence_penalty", "frequency_penalty"):
        if (value := getattr(sampling, name)) != getattr(AS_USUAL, name):
            options[name] = value
    if sampling.stop:
        options["stop"] = list(sampling.stop)
    if sampling.top_logprobs is not None:
        options |= (
            {"logprobs": True, "top_logprobs": sampling.top_logprobs}
            if is_chat
            else {"logprobs": sampling.top_logprobs}
        )
    if sampling.json_schema is not None:
        schema = {"name": "answer", "schema": sampling.json_schema, "strict": True}
        options["response_format"] = {"type": "json_schema", "json_schema": schema}
    return options


def _completion_logprobs(given: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    tops = given.get("top_logprobs") or [{}] * len(given.get("tokens") or ())
    return tuple(
        _likelihood(token, logprob) | {"top_logprobs": [_likelihood(*pair) for pair in (top or {}).items()]}
        for token, logprob, top in zip(given.get("tokens") or (), given.get("token_logprobs") or (), tops, strict=False)
    )


def _likelihood(token: str, logprob: float | None) -> dict[str, Any]:
    return {"token": token, "logprob": 0.0 if logprob is None else float(logprob), "bytes": list(token.encode())}


async def _refusal(endpoint: Endpoint, response: httpx.Response) -> AppException:
    """Return the error that a status stands for: ours to mend, the caller's, or the endpoint's."""
    raw = b""
    async for chunk in response.aiter_bytes():
        raw += chunk
        if len(raw) > _MAX_ERROR_BYTES:
            break
    status, name = response.status_code, endpoint.name
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    said = _without_key(endpoint, _message(body) or response.reason_phrase)
    if status in (401, 403):
        return BadGateway(f"the endpoint {name!r} refuses the key that the administrator set for it (status {status})")
    if status == 429:
        wait = response.headers.get("Retry-After", "")
        headers = {"Retry-After": wait} if _RETRY_AFTER.fullmatch(wait) else {}
        return TooBusy(f"the endpoint {name!r} is asked too often: {said}", headers=headers)
    if status in (400, 404, 413, 422):
        is_long = isinstance(body, dict) and "context_length" in json.dumps(body.get("error"))
        kind = ContextOverflow if is_long else InvalidConfig
        return kind(f"the endpoint {name!r} refuses this (status {status}): {said}")
    if response.has_redirect_location:
        return BadGateway(f"the endpoint {name!r} points elsewhere (status {status}), which is not followed")
    return BadGateway(f"the endpoint {name!r} failed (status {status}): {said}")


def _message(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message[:_MAX_SAID_CHARS] if isinstance(message, str) else ""


def _without_key(endpoint: Endpoint, text: str) -> str:
    return text if endpoint.api_key is None else text.replace(endpoint.api_key, "***")


def _no_sense(endpoint: Endpoint, error: Exception) -> BadGateway:
    return BadGateway(
        f"the endpoint {endpoint.name!r} does not answer as OpenAI's API does ({type(error).__name__}: "
        f"{_without_key(endpoint, str(error))[:_MAX_SAID_CHARS]})"
    )


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Read once: it takes some 30 ms."""
    return httpx.create_ssl_context()
