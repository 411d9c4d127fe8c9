from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_model import build_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from terakoya.data.tokenization import EncodedExample, encode_examples
from terakoya.domain.datasets import Example, Message
from terakoya.domain.events import EventType

INSTRUCTION = "Answer with one word. "


@dataclass
class Recorder:
    """An observer that remembers."""

    events: list[tuple[EventType, dict[str, Any]]] = field(default_factory=list)

    def notify(self, type: EventType, /, **fields: Any) -> None:
        self.events.append((type, fields))

    def of(self, type: EventType) -> list[dict[str, Any]]:
        return [fields for each, fields in self.events if each is type]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Models this small only wait for each other on more; and rounding must not depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def tiny(tiny_folder: Path) -> Any:
    """A fresh copy of the tiny model."""
    return AutoModelForCausalLM.from_pretrained(tiny_folder)


@pytest.fixture(scope="session")
def encode(tiny_folder: Path) -> Callable[..., list[EncodedExample]]:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)

    def encoded(*pairs: tuple[str, str]) -> list[EncodedExample]:
        examples = [
            Example(row, (Message("user", INSTRUCTION + prompt), Message("assistant", answer)))
            for row, (prompt, answer) in enumerate(pairs, start=1)
        ]
        return encode_examples(examples, tokenizer).complete()

    return encoded


@pytest.fixture(scope="session")
def rows(encode: Callable[..., list[EncodedExample]]) -> list[EncodedExample]:
    """Ten rows of different lengths behind one shared instruction."""
    return encode(
        *(
            (f"{'very ' * (number % 4)}long number {number}?", "even odd"[5 * (number % 2) :][:4])
            for number in range(10)
        )
    )
