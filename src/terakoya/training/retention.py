"""What a run does to keep what earlier tasks taught, as resolved, and where its chain is. Plain values: no torch."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from terakoya.exceptions import InvalidConfig
from terakoya.training.request import RetentionRequest

DEFAULT_BUDGET = 0.05
"""Nats a label."""
DEFAULT_HELDOUT_ROWS = 200

NO_OLD_DATA = (
    "no row of this task is kept (retention.replay.share=0): when later tasks are learned, only the penalty and rows "
    "that the model writes itself speak for it, and what it forgets then cannot be measured on its own rows. What that "
    "costs is in docs/continual-learning.md"
)


@dataclass(frozen=True, slots=True)
class ResolvedRetention:
    strength: float | None
    """A fixed lambda; 0 for no penalty."""
    budget: float | None
    """Rise of the loss on earlier examples that is acceptable, nats a label; lambda then follows from measurements."""
    gamma: float
    fisher_sequences: int
    replay_share: float
    replay_mix: float
    soft_targets: bool
    top_k: int
    max_replay_bytes: int
    heldout_rows: int = 0
    """Kept with the task to be scored again later, in as many bytes as replay may take at most."""
    general_budget: float | None = None
    """Rise of the loss on general text that is acceptable, nats a token; None only shows it."""
    generated_rows: int = 0
    """Rows that the model writes itself before it learns, for each earlier task that has none left."""

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Read back; what an earlier version did not store has its default."""
        return cls(**{name: fields[name] for name in cls.__slots__ if name in fields})

    def as_request(self) -> dict[str, Any]:
        """The request that resolves to this."""
        fixed = {"strength": self.strength} if self.strength is not None else {}
        budgets = {"budget": self.budget, "general_budget": self.general_budget}
        budget = {name: value for name, value in budgets.items() if value is not None}
        mix: dict[str, Any] = {"soft_targets": self.soft_targets} if self.replay_share else {}
        if self.replay_share or self.generated_rows:
            mix["mix"] = self.replay_mix
        return {
            "regulariser": {**fixed, "gamma": self.gamma, "sequences": self.fisher_sequences},
            "replay": {
                "share": self.replay_share,
                **mix,
                "top_k": self.top_k,
                "max_megabytes": self.max_replay_bytes >> 20,
                "generate": self.generated_rows,
            },
            "heldout_rows": self.heldout_rows,
            **budget,
        }


def resolve_retention(request: RetentionRequest) -> ResolvedRetention:
    """Raises: InvalidConfig when two settings contradict each other."""
    regulariser, replay = request.regulariser, request.replay
    if request.budget is not None and regulariser.strength is not None:
        raise InvalidConfig(
            f"retention.budget={request.budget:g} and retention.regulariser.strength={regulariser.strength:g} "
            "contradict each other: a budget chooses lambda; give one of them"
        )
    if replay.share == 0 and replay.soft_targets:
        raise InvalidConfig(
            "retention.replay.share=0 keeps no earlier examples, so there are none that could have soft_targets; "
            "leave soft_targets out"
        )
    shows = replay.share > 0 or replay.generate > 0
    if not shows and replay.mix and "mix" in replay.model_fields_set:
        raise InvalidConfig(
            f"retention.replay.share=0 switches replay off, so earlier rows cannot be mix={replay.mix:g} of a step; "
            "leave mix out"
        )
    budget = request.budget
    if regulariser.strength is None and not shows:
        raise InvalidConfig(
            "a forgetting budget is measured on kept rows, and retention.replay.share=0 keeps none; "
            "give a fixed lambda as retention.regulariser.strength, or let the model write rows itself with "
            "retention.replay.generate"
        )
    if regulariser.strength is not None and request.general_budget is not None:
        raise InvalidConfig(
            f"retention.general_budget={request.general_budget:g} steers lambda, and "
            f"retention.regulariser.strength={regulariser.strength:g} fixes it; give one of them"
        )
    if budget is None and regulariser.strength is None:
        budget = DEFAULT_BUDGET
    return ResolvedRetention(
        strength=regulariser.strength,
        budget=budget,
        gamma=regulariser.gamma,
        fisher_sequences=regulariser.sequences,
        replay_share=replay.share,
        replay_mix=replay.mix if shows else 0.0,
        soft_targets=replay.share > 0 if replay.soft_targets is None else replay.soft_targets,
        top_k=replay.top_k,
        max_replay_bytes=replay.max_megabytes << 20,
        heldout_rows=_heldout_rows(request),
        general_budget=request.general_budget,
        generated_rows=replay.generate,
    )


def _heldout_rows(request: RetentionRequest) -> int:
    if request.heldout_rows is not None:
        return request.heldout_rows
    return DEFAULT_HELDOUT_ROWS if request.replay.share else 0


@dataclass(frozen=True, slots=True)
class ChainPlace:
    """Where in which chain a run stands. Links are folders in ``directory``."""

    directory: Path
    number: int
    """Of the task it learns, from 1."""
    name: str
    """Of the link it writes."""
    base_sha256: str
    """The model that the chain began with."""
    parent: str | None = None
    """The link before."""
    parent_sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"directory": str(self.directory)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        return cls(**{name: fields[name] for name in cls.__slots__} | {"directory": Path(fields["directory"])})


def link_name(run_name: str, task_id: str) -> str:
    """What a run's link is called: readable where the name is, and no other run's."""
    readable = re.sub(r"[^a-z0-9]+", "-", run_name.lower()).strip("-")[:40].strip("-")
    return f"{readable or 'task'}-{task_id[-10:]}"


def task_of_link(name: str) -> str:
    """The readable part of a link's name."""
    return name.rpartition("-")[0] or name
