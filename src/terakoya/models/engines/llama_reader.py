"""A GGUF file as the self-check reads it: llama.cpp, asked for one token at a time. Knows nothing of what it is
compared with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from terakoya.exceptions import ModelLoadError
from terakoya.models.engines.llama_cpp import open_server
from terakoya.models.self_check import TOP, Place

_CANDIDATES = 4 * TOP


class LlamaReader:
    def __init__(self, server: Any, socket: Path, key: str) -> None:
        self._server = server
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)),
            base_url="http://llama",
            headers={"Authorization": f"Bearer {key}"},
            timeout=60.0,
        )
        (self._letter, *_) = self.tokenize("a")

    def next_after(self, prompts: Sequence[Sequence[int]]) -> list[Place]:
        return [self._place(prompt) for prompt in prompts]

    def stops_after(self, prompt: Sequence[int]) -> bool:
        choice = self._ask(prompt, {})
        return choice["finish_reason"] == "stop" and not choice["text"]

    def tokenize(self, text: str) -> list[int]:
        answer = self._http.post("/tokenize", json={"content": text, "add_special": False})
        tokens: list[int] = answer.raise_for_status().json()["tokens"]
        return tokens

    def close(self) -> None:
        self._http.close()

    def _place(self, prompt: Sequence[int]) -> Place:
        # Made to say a letter: of a token without a text of its own llama.cpp tells no likelihoods. Those it tells are
        # of the model, before anything is chosen.
        entries = self._ask(prompt, {"logit_bias": [[self._letter, 1e6]]})["logprobs"]["content"]
        return Place(tuple((entry["id"], entry["logprob"]) for entry in entries[0]["top_logprobs"]))

    def _ask(self, prompt: Sequence[int], more: dict[str, Any]) -> dict[str, Any]:
        heard: list[dict[str, Any]] = []
        body = {"prompt": list(prompt), "max_tokens": 1, "temperature": 0.0, "logprobs": _CANDIDATES, **more}

        def hear(text: str) -> bool:
            heard.append(json.loads(text))
            return False

        self._server.handle_completions(json.dumps(body), hear)
        if not heard or "error" in heard[0]:
            raise ModelLoadError(f"llama.cpp does not read the file that was written: {heard}")
        choice: dict[str, Any] = heard[0]["choices"][0]
        return choice


@contextmanager
def reading(path: Path, folder: Path, *, threads: int) -> Iterator[LlamaReader]:
    """Open the file; ``folder``: where llama.cpp may listen. Raises: ModelLoadError."""
    socket = folder / "check.sock"
    server, key = open_server(path, [], tokens=2048, slots=1, threads=threads, socket=socket)
    reader = LlamaReader(server, socket, key)
    try:
        yield reader
    finally:
        reader.close()
        del reader, server
        socket.unlink(missing_ok=True)
