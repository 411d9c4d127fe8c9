"""What a chain looks like to whoever asks: its links with the models, datasets and rows that belong to them. Read from
the folders of the chain and the registries; starts and changes nothing, and never imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from terakoya.domain.datasets import DatasetInfo
from terakoya.domain.models import ModelInfo
from terakoya.domain.tasks import Task
from terakoya.exceptions import AppException
from terakoya.training.chains import CHAIN
from terakoya.training.continual.errors import DamagedChain
from terakoya.training.continual.link import (
    KeptRows,
    LinkFacts,
    kept_rows,
    link_facts,
    links_in,
    manifest_sha256,
)


@dataclass(frozen=True, slots=True)
class NamedModel:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class LinkView:
    """One task of a chain, as it lies on disk."""

    link: str
    """The name of its folder."""
    number: int
    task: str
    sha256: str
    """Of its manifest."""
    parent: str | None
    """The link before, by name; None for the first, or if it is gone."""
    problem: str | None
    """Why it cannot be gone on from as far as manifests tell; None if nothing is known to be wrong."""
    model: NamedModel | None
    """What came out; None if that was deleted, or if its run has not ended yet."""
    task_id: str | None
    """The run that wrote it, where it is known."""
    dataset: str | None
    """Its name, the one it had if it was deleted."""
    data_sha256: str
    strength: float
    gamma: float
    trace: float
    sequences: int
    scores: tuple[float, ...]
    size_bytes: int
    kept: KeptRows
    children: tuple[str, ...]
    """Links built on it: more than one where the chain branches."""


@dataclass(frozen=True, slots=True)
class ChainView:
    id: str
    name: str
    """Its first model's, or the first task's if that is deleted."""
    space: Literal["full", "lora"] | None
    base: NamedModel | None
    """The model it began with, if that is still here."""
    base_sha256: str | None
    tokenizer_sha256: str | None
    links: tuple[LinkView, ...]
    """By number, then by name."""
    heads: tuple[str, ...]
    """Names of the models that a next task may go on from without a branch."""
    running: tuple[str, ...]
    """Unfinished runs of the chain, by id."""
    size_bytes: int
    problem: str | None
    """The first thing that is wrong, as far as manifests tell."""


def view_chain(
    folder: Path, *, models: Sequence[ModelInfo], datasets: Sequence[DatasetInfo], unfinished: Sequence[Task]
) -> ChainView:
    """``models`` and ``unfinished`` may be all there are; those of other chains are passed over."""
    own = [model for model in models if model.card.get(CHAIN, {}).get("id") == folder.name]
    by_link = {str(model.card[CHAIN]["link"]): model for model in own}
    running = [task for task in unfinished if task.resolved.get(CHAIN) == folder.name]
    read = {path: _read(path) for path in links_in(folder)}
    by_sha256 = {sha256: path.name for path in read if (sha256 := manifest_sha256(path)) is not None}
    names = {dataset.content_sha256: dataset.name for dataset in datasets}
    links = [_view(path, facts, by_link, by_sha256, names) for path, facts in read.items()]
    missing = sorted(by_link.keys() - {path.name for path in read})
    links = [_with_children(link, links) for link in links]
    first = next((facts for facts in read.values() if isinstance(facts, LinkFacts)), None)
    base = next((m for m in models if first is not None and m.content_sha256 == first.base_sha256), None)
    problem = next((link.problem for link in links if link.problem), None)
    if missing:
        problem = f"the link {missing[0]!r} of the model {by_link[missing[0]].name!r} is gone"
    return ChainView(
        id=folder.name,
        name=_name(links, running[0].name if running else folder.name),
        space=first.space if first else None,
        base=NamedModel(base.id, base.name) if base else None,
        base_sha256=first.base_sha256 if first else None,
        tokenizer_sha256=first.tokenizer_sha256 if first else None,
        links=tuple(links),
        heads=tuple(link.model.name for link in links if link.model and not link.children),
        running=tuple(task.id for task in running),
        size_bytes=sum(link.size_bytes for link in links),
        problem=problem,
    )


def _name(links: Sequence[LinkView], otherwise: str) -> str:
    first = links[0] if links else None
    return otherwise if first is None else first.model.name if first.model else first.task


def _read(link: Path) -> LinkFacts | AppException:
    try:
        return link_facts(link)
    except AppException as error:
        return error


def _view(
    path: Path,
    facts: LinkFacts | AppException,
    models: Mapping[str, ModelInfo],
    by_sha256: Mapping[str, str],
    datasets: Mapping[str, str],
) -> LinkView:
    model = models.get(path.name)
    card: Mapping[str, Any] = model.card if model else {}
    sha256 = manifest_sha256(path) or ""
    kept, problem = _kept(path)
    if isinstance(facts, AppException):
        problem = str(facts)
        number, _, task = path.name.partition("-")
        facts = LinkFacts(int(number), task, None, "", "", "lora", "", "", "", 0, 0, "", "", 0, "", 0.0, 0.0, 0.0, {})
    elif model is not None and card[CHAIN]["sha256"] != sha256:
        problem = f"the manifest of {path.name!r} was changed after its run had ended"
    elif facts.parent is not None and facts.parent not in by_sha256:
        problem = f"the task before {path.name!r} is gone or was changed; the chain cannot be followed"
    return LinkView(
        link=path.name,
        number=facts.number,
        task=facts.task,
        sha256=sha256,
        parent=by_sha256.get(facts.parent or ""),
        problem=problem,
        model=NamedModel(model.id, model.name) if model else None,
        task_id=model.task_id if model else None,
        dataset=datasets.get(facts.data_sha256) or card.get("dataset", {}).get("name"),
        data_sha256=facts.data_sha256,
        strength=facts.strength,
        gamma=facts.gamma,
        trace=facts.trace,
        sequences=facts.sequences,
        scores=facts.scores,
        size_bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        kept=kept,
        children=(),
    )


def _kept(path: Path) -> tuple[KeptRows, str | None]:
    try:
        return kept_rows(path), None
    except DamagedChain as error:
        return KeptRows(0, 0, 0, 0, False), str(error)


def _with_children(link: LinkView, links: Sequence[LinkView]) -> LinkView:
    return replace(link, children=tuple(each.link for each in links if each.parent == link.link))
