"""Turns messages into a prompt's tokens in a child process, which is killed when a model's chat template takes too
long. Knows the child's protocol (``processes/prompts.py``), nothing of templates.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terakoya.domain.datasets import Message
from terakoya.exceptions import ModelLoadError, Unavailable
from terakoya.models.wire import error_from_json

_MODULE = "terakoya.processes.prompts"
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Prompt:
    ids: list[int]
    end_token_id: int
    """What ends the answer."""


class PromptWriter:
    """Thread-safe; one prompt at a time. The child starts with the first use, or with ``start``."""

    def __init__(self, *, timeout_seconds: float = 10.0) -> None:
        self._timeout_seconds = timeout_seconds
        self._child: _Child | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the child without waiting for it: it gets ready while a model is opened."""
        with self._lock:
            if self._child is None:
                self._child = _Child()

    def write(self, folder: Path, messages: Sequence[Message]) -> Prompt:
        """Return the tokens up to where the answer begins, by the tokenizer in ``folder``.

        Raises: ModelLoadError if the tokenizer cannot be opened, or its template is too slow or too hungry;
        InvalidConfig if the template refuses the messages.
        """
        plain = [{"role": message.role, "content": message.content} for message in messages]
        return self._prompt({"folder": str(folder), "messages": plain})

    def tokenize(self, folder: Path, text: str) -> Prompt:
        """Return the tokens of a text that is to be gone on with as it is. Raises as ``write`` does."""
        return self._prompt({"folder": str(folder), "text": text})

    def _prompt(self, request: dict[str, Any]) -> Prompt:
        with self._lock:
            reply = self._ask(request)
        if "error" in reply:
            raise error_from_json(reply)
        return Prompt(reply["ids"], reply["end_token_id"])

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        child = self._child = self._child or _Child()
        try:
            child.wait_until_ready(_START_SECONDS)
            return child.ask(request, self._timeout_seconds)
        except (TimeoutError, EOFError, BrokenPipeError) as error:
            self._stop()
            if not child.is_ready:
                raise Unavailable("the process that writes prompts does not start; the log says why") from error
            reason = f"took over {self._timeout_seconds:g} s" if isinstance(error, TimeoutError) else "crashed"
            raise ModelLoadError(f"the model's chat template {reason} and was stopped") from error

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


class _Child:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", _MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._buffer = b""
        self.is_ready = False

    def wait_until_ready(self, seconds: float) -> None:
        if not self.is_ready:
            self._read_line(seconds)
            self.is_ready = True

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        waiting = memoryview(json.dumps(request).encode() + b"\n")
        while waiting:  # unbuffered: a pipe takes what fits
            waiting = waiting[self._process.stdin.write(waiting) :]
        reply: dict[str, Any] = json.loads(self._read_line(seconds))
        return reply

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _read_line(self, seconds: float) -> bytes:
        """Raises: TimeoutError; EOFError if the child is gone."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                if not (chunk := os.read(self._process.stdout.fileno(), 1 << 16)):
                    raise EOFError
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line
