"""Replay when no old data is left: the model that learned the earlier tasks writes examples itself, before it learns
the next, and says what it thinks of each token. Knows how to ask; who writes and who judges is given.

Source: Sun et al. 2020 (LAMOL); Huang et al. 2024 (self-synthesized rehearsal). No prompt is kept here but what the
caller still has: the opening of the chat format is enough for a model to begin a user's turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from terakoya.exceptions import TrainingError
from terakoya.training.continual.replay import ReplayBuffer, ReplayExample, with_targets
from terakoya.training.continual.soft_targets import SoftTargets

Write = Callable[[int], Sequence[ReplayExample]]
"""Writes so many examples by sampling, without targets; some may come out unusable, then fewer come back."""
SaidOf = Callable[[ReplayExample], SoftTargets]
"""What the model as it is now says of each label of an example."""
_ROUNDS = 4


def self_generated(count: int, write: Write, said_of: SaidOf) -> ReplayBuffer:
    """Return ``count`` different examples with soft targets. Raises: TrainingError if the model only repeats itself."""
    buffer = ReplayBuffer()
    for _ in range(_ROUNDS):
        missing = count - len(buffer.examples)
        if missing <= 0:
            break
        buffer = buffer.with_task(write(missing))
    if len(buffer.examples) < count:
        raise TrainingError(
            f"the model wrote only {len(buffer.examples)} different examples where {count} were asked for; "
            "a higher temperature or fewer examples would do"
        )
    return ReplayBuffer(tuple(with_targets(each, said_of(each)) for each in buffer.examples[:count]))
