"""Chains as clients see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from terakoya.training.chain_service import CheckedLink, costs_of
from terakoya.training.chain_views import ChainView


class _FromParts(BaseModel):
    model_config = ConfigDict(from_attributes=True, protected_namespaces=())


class ModelName(_FromParts):
    id: str
    name: str


class KeptOfTask(_FromParts):
    """What a link has of people's data."""

    replay_rows: int
    soft_rows: int
    """Of them with what the model said of every label."""
    heldout_rows: int
    size_bytes: int
    erased: bool


class ChainLink(_FromParts):
    link: str
    number: int
    task: str
    sha256: str
    parent: str | None
    problem: str | None
    model: ModelName | None
    task_id: str | None
    dataset: str | None
    data_sha256: str
    strength: float
    gamma: float
    trace: float
    sequences: int
    scores: list[float]
    size_bytes: int
    kept: KeptOfTask
    children: list[str]


class ChainSummary(_FromParts):
    id: str
    name: str
    space: str | None
    base: ModelName | None
    heads: list[str]
    running: list[str]
    size_bytes: int
    problem: str | None
    tasks: int
    """Links, over all branches."""

    @classmethod
    def of(cls, view: ChainView) -> ChainSummary:
        return cls.model_validate(_fields(view))


class ErasingCost(_FromParts):
    code: str
    message: str


class ChainWhole(ChainSummary):
    base_sha256: str | None
    tokenizer_sha256: str | None
    links: list[ChainLink]
    erasing_costs: list[ErasingCost]
    """What erasing the kept rows would mean; empty if there are none."""

    @classmethod
    def of(cls, view: ChainView) -> ChainWhole:
        return cls.model_validate(_fields(view) | {"erasing_costs": costs_of(view.links)})


class ChainList(BaseModel):
    chains: list[ChainSummary]


class DamagedFile(_FromParts):
    file: str
    problem: str
    """missing, changed or foreign."""


class LinkVerdict(_FromParts):
    link: str
    intact: bool
    damages: list[DamagedFile]
    problem: str | None


class ChainVerdict(BaseModel):
    intact: bool
    links: list[LinkVerdict]

    @classmethod
    def of(cls, checked: Sequence[CheckedLink]) -> ChainVerdict:
        links = [LinkVerdict.model_validate(each) for each in checked]
        return cls(intact=all(each.intact for each in links), links=links)


class ErasedRows(_FromParts):
    links: list[str]
    rows: int
    freed_bytes: int
    costs: list[ErasingCost]


class ChainMatrix(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())

    chain: str
    model: ModelName
    tasks: list[dict[str, Any]]
    """In the order they were learned."""
    measures: dict[str, Any]
    """``exact_match``, ``likelihood`` and ``loss``: each with r, its intervals, acc, bwt, fwt, forgetting and la."""


def _fields(view: ChainView) -> dict[str, Any]:
    return {name: getattr(view, name) for name in view.__slots__} | {"tasks": len(view.links)}
