"""What a person may ask of a chain: the fields of a training request, of which a chain knows some itself."""

from __future__ import annotations

from typing import Any, Literal

from terakoya.training.request import Reference, TrainingRequest


class BeginRequest(TrainingRequest):
    """The first task of a new chain."""

    strategy: Literal["ewc"] = "ewc"
    after: None = None


class ExtendRequest(TrainingRequest):
    """The next task of a chain."""

    strategy: Literal["ewc"] = "ewc"
    model: Reference | None = None  # type: ignore[assignment]
    """By default the one the chain stays with; another is refused."""
    after: Reference | None = None
    """The model to go on from; by default the one that nothing has gone on from yet, or the one the chain was named
    by."""
    branch: bool = False
    """Begin a branch where another task has gone on from the same model; otherwise the second is refused."""

    def fields_given(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_unset=True, exclude={"branch"})
