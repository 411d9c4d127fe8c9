"""Training examples and the sets they come in. Knows nothing of files or tokenizers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal


class Split(StrEnum):
    TRAIN = "train"
    HELDOUT = "heldout"


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation whose last message is the assistant's answer to learn."""

    row: int
    """Line in the uploaded file, from 1."""
    messages: tuple[Message, ...]
    split: Split | None = None
    """As the row says; None leaves it to the run's split."""

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
