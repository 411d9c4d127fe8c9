"""Earlier examples kept to be shown again, each once, within a cap, deletable task by task. With them, what the model
that had learned them said of every label. Knows tokens; not files, batches or losses.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from terakoya.exceptions import InvalidConfig
from terakoya.training.continual.soft_targets import SoftTargets

_BYTES_PER_ID = 4


@dataclass(frozen=True, slots=True)
class ReplayExample:
    """A row as the model saw it. Fits wherever a training row does."""

    task: str
    input_ids: tuple[int, ...]
    label_spans: tuple[tuple[int, int], ...]
    """Half-open, sorted, disjoint: which tokens are labels."""
    targets: SoftTargets | None = None
    """One entry a label, in their order; None to learn the row's own tokens again."""

    @property
    def labels(self) -> int:
        return sum(end - start for start, end in self.label_spans)

    @property
    def key(self) -> str:
        """Names the row by its content: two tasks that share a row keep it once."""
        return hashlib.sha256(repr((self.input_ids, self.label_spans)).encode()).hexdigest()

    @property
    def size_bytes(self) -> int:
        kept = 0 if self.targets is None else self.labels * (2 * self.targets.tokens.shape[1] + 1) * 4
        return _BYTES_PER_ID * len(self.input_ids) + kept


@dataclass(frozen=True, slots=True)
class ReplayBuffer:
    """Immutable: every change gives another buffer."""

    examples: tuple[ReplayExample, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(example.size_bytes for example in self.examples)

    def tasks(self) -> dict[str, int]:
        """Examples of each task, in the order the tasks came."""
        return dict(Counter(example.task for example in self.examples))

    def with_task(self, examples: Iterable[ReplayExample]) -> ReplayBuffer:
        """Add what is not there yet; the first to come keeps its place and its targets."""
        seen = {example.key for example in self.examples}
        fresh = []
        for example in examples:
            if example.key not in seen:
                seen.add(example.key)
                fresh.append(example)
        return ReplayBuffer((*self.examples, *fresh))

    def without_task(self, task: str) -> ReplayBuffer:
        return ReplayBuffer(tuple(example for example in self.examples if example.task != task))

    def capped(self, most_bytes: int) -> ReplayBuffer:
        """Drop examples, always from the task that has most, newest first, until the rest fits."""
        if most_bytes <= 0:
            raise InvalidConfig(f"a replay buffer holds more than 0 bytes; got {most_bytes}")
        places: dict[str, list[int]] = {}
        for place, example in enumerate(self.examples):
            places.setdefault(example.task, []).append(place)
        size, gone = self.size_bytes, set()
        while size > most_bytes:
            place = places[max(places, key=lambda name: len(places[name]))].pop()
            gone.add(place)
            size -= self.examples[place].size_bytes
        return ReplayBuffer(tuple(example for place, example in enumerate(self.examples) if place not in gone))

    def draw(self, count: int, *, seed: int, step: int) -> list[ReplayExample]:
        """Return the examples of a step, each task equally often. They follow from (seed, step), as after a resume.

        Every example of a task comes once before any comes twice.
        """
        if not self.examples or count <= 0:
            return []
        groups = [[each for each in self.examples if each.task == task] for task in self.tasks()]
        orders: dict[int, tuple[int, list[int]]] = {}
        drawn = []
        for place in range((step - 1) * count, step * count):
            turn, which = divmod(place, len(groups))
            group = groups[which]
            lap, index = divmod(turn, len(group))
            if which not in orders or orders[which][0] != lap:
                shuffled = random.Random(f"{seed}:{which}:{lap}")  # noqa: S311 - reproducible
                orders[which] = lap, shuffled.sample(range(len(group)), len(group))
            drawn.append(group[orders[which][1][index]])
        return drawn


def replay_count(rows: int, *, share: float, soft_targets: bool) -> int:
    """How many of a task's rows to keep: its share, one at least. Raises: InvalidConfig for a contradiction."""
    if not 0 <= share <= 1:
        raise InvalidConfig(f"the share of earlier examples to keep is from 0 to 1; got {share!r}")
    if share == 0 and soft_targets:
        raise InvalidConfig("soft targets are those of kept examples; with a replay share of 0 there are none to keep")
    return 0 if share == 0 else max(1, round(share * rows))


def choose(rows: Sequence[int], count: int, *, seed: int) -> list[int]:
    """Choose rows to keep, in their order."""
    picked = random.Random(f"replay:{seed}").sample(range(len(rows)), min(count, len(rows)))  # noqa: S311 - reproducible
    return [rows[index] for index in sorted(picked)]


def choose_varied(answers: Sequence[Hashable], count: int, *, seed: int) -> list[int]:
    """Choose places of rows to keep, in their order: each different answer comes once before any comes twice.

    Where a task has few answers (labels, routes), a few rows then speak for all of them; where every answer is another
    one, this is a random choice.
    """
    order = random.Random(f"replay:{seed}").sample(range(len(answers)), len(answers))  # noqa: S311 - reproducible
    seen: Counter[Hashable] = Counter()
    ranked = []
    for rank, place in enumerate(order):
        ranked.append((seen[answers[place]], rank, place))
        seen[answers[place]] += 1
    return sorted(place for _, _, place in sorted(ranked)[:count])


def with_targets(example: ReplayExample, targets: SoftTargets) -> ReplayExample:
    """Raises: InvalidConfig if there is not one entry a label."""
    if len(targets) != example.labels:
        raise InvalidConfig(f"a row of {example.labels} labels needs as many soft targets; got {len(targets)}")
    return replace(example, targets=targets)
