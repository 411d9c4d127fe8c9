"""Stand-ins at the two ports behind which models are: an embedder that compares words, and a chat model that follows a
script. Everything else in the tests of answers is real.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import numpy as np

from terakoya.domain.datasets import Message
from terakoya.domain.documents import Vector
from terakoya.domain.models import ModelArtifact
from terakoya.models.client import AnswerPart

DIMENSION = 65
"""64 for words; the last is the same in all, so that cosines lie where those of E5 do, from .74 up."""
_PIECE = re.compile(r"[a-z0-9]+|[^\W\da-z_]")


class WordEmbedder:
    """Vectors of hashed words and characters: texts that share them are near."""

    def __init__(self) -> None:
        self.embedded: list[str] = []

    async def embed_passages(self, model_id: str, texts: Sequence[str]) -> Vector:
        self.embedded += texts
        return _vectors(texts)

    async def embed_queries(self, model_id: str, texts: Sequence[str]) -> Vector:
        return _vectors(texts)


def _vectors(texts: Sequence[str]) -> Vector:
    vectors = np.full((len(texts), DIMENSION - 1), 0.05, dtype=np.float32)
    for row, text in zip(vectors, texts, strict=True):
        for piece in _PIECE.findall(text.lower()):
            row[zlib.crc32(piece.encode()) % row.size] += 1.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.hstack([vectors * 0.5, np.full((len(texts), 1), 0.85, dtype=np.float32)])
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


Script = Callable[[Sequence[Message]], str]
"""Conversation -> the whole answer."""


class ScriptedChat:
    """Writes what its script says, a few characters at a time; remembers whether it was stopped."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[list[Message]] = []
        self.stopped = 0

    async def stream(
        self, artifact: ModelArtifact, messages: Sequence[Message], **options: Any
    ) -> AsyncGenerator[AnswerPart, None]:
        self.asked.append(list(messages))
        text = self.script(messages)
        finished = False
        try:
            for place in range(0, len(text), 4):
                yield AnswerPart(delta=text[place : place + 4])
            yield AnswerPart(tokens=len(text) // 4 + 1, reason="stop")
            finished = True
        finally:
            self.stopped += not finished


def numbered_lines(messages: Sequence[Message]) -> dict[int, str]:
    """The sentences of a prompt by their number."""
    lines = (re.match(r"\[(\d+)\] (.*)", line) for line in messages[-1].content.splitlines())
    return {int(match[1]): match[2] for match in lines if match}


def question_of(messages: Sequence[Message]) -> str:
    return re.split(r"(?:Question|質問): ", messages[-1].content)[-1]


def honest(messages: Sequence[Message]) -> str:
    """Answer with the sentence that shares most with the question, copied and cited; refuse where little is shared."""
    question = set(_PIECE.findall(question_of(messages).lower()))
    lines = numbered_lines(messages)
    best = max(lines, key=lambda number: len(question & set(_PIECE.findall(lines[number].lower()))))
    return f"{lines[best]} [{best}]"
