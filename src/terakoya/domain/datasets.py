"""Training examples and the sets they come in. Knows nothing of files or tokenizers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal


class Split(StrEnum):
    TRAIN = "train"
    HELDOUT = "heldout"


class DatasetKind(StrEnum):
    """What a row of a data set is, and so which objectives can learn from it. All rows of a set are of one kind."""

    CONVERSATION = "conversation"
    """Messages, the last one the assistant's: supervised."""
    TEXT = "text"
    """Running text: continued pre-training."""
    PREFERENCE = "preference"
    """Messages, and another last answer that is worse: DPO, ORPO; supervised on the better one."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant", "tool"]
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One row: a conversation whose last message is the assistant's answer to learn, or running text."""

    row: int
    """Line in the uploaded file, from 1."""
    messages: tuple[Message, ...]
    """Empty for running text."""
    split: Split | None = None
    """As the row says; None leaves it to the run's split."""
    rejected: str | None = None
    """The answer that was liked less than the last message, in preference data."""
    text: str | None = None
    """Running text, of a row that is no conversation."""

    @property
    def prompt(self) -> tuple[Message, ...]:
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    id: str
    name: str
    rows: int
    heldout_rows: int
    """Rows that say ``"split": "heldout"``; 0 means that each run splits off its own."""
    format: str
    encoding: str
    """As found in the upload, such as "utf-8" or "cp932"; stored as UTF-8."""
    size_bytes: int
    content_sha256: str
    created_at: datetime
    notices: tuple[str, ...] = ()
    """What was converted or noticed on the way in, in words."""
    statistics: dict[str, Any] = field(default_factory=dict)
    kind: DatasetKind = DatasetKind.CONVERSATION
