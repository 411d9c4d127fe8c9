"""The contract of an objective: which rows of tokens it is about, and the loss of a step over them. Knows nothing of
strategies, optimizers or files of a run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from terakoya.models.label_forward import LabelForward
from terakoya.models.packing import Row, label_count
from terakoya.training.objectives.encodings import ANSWERS, Encoding


@dataclass(frozen=True, slots=True)
class StepSize:
    """What a step's loss is divided by."""

    examples: int
    labels: int


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Some of a step's examples, each with its rows."""

    numbers: Sequence[int]
    """Which examples they are, among all that are trained on."""
    examples: Sequence[Sequence[Row]]

    @property
    def rows(self) -> list[Row]:
        return [row for example in self.examples for row in example]


@dataclass(frozen=True, slots=True)
class Share:
    """A micro-batch's part of a step: the parts of a step's micro-batches add up to the step's values."""

    loss: Tensor
    """Scalar, differentiable."""
    facts: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars for people to read, told with the step."""


@dataclass(frozen=True, slots=True)
class Start:
    """The model as it is before the first step, for objectives that compare with it."""

    module: nn.Module
    forward: LabelForward
    rows: Sequence[Row]
    """Of all examples, one example's after the other's."""
    examples: Sequence[int]
    """Numbers of the examples that the run will see."""
    autocast: Callable[[], AbstractContextManager[Any]]
    store: Path
    """Where what is computed now may be kept, for when the run is resumed."""
    fingerprint: str
    """Of the run: what was kept under another one is not used."""
    tick: Callable[[int, int], None]
    """Tells progress; raises if the run is to end."""


class Objective(ABC):
    """One per run. A new one is a subclass and a row in ``methods.py``."""

    encoding: ClassVar[Encoding] = ANSWERS

    def __init__(self, settings: Mapping[str, float]) -> None:
        self.settings = settings

    def start(self, start: Start) -> None:  # noqa: B027 - most have nothing to see
        """Look at the model before it is trained."""

    def count_labels(self, example: Sequence[Row]) -> int:
        """How many labels of an example its loss is averaged over."""
        return sum(map(label_count, example))

    @abstractmethod
    def share(self, forward: LabelForward, batch: MicroBatch, size: StepSize) -> Share:
        """Return the micro-batch's part of the loss of a step of that size."""
