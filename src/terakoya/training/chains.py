"""Which model a run begins with, and where in which chain of tasks it stands. Knows models and their cards; never
imports torch. What a chain holds is read and verified by the run itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from terakoya.domain.datasets import DatasetInfo
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.domain.ports import ModelRepository
from terakoya.domain.tasks import Task
from terakoya.exceptions import InvalidConfig
from terakoya.storage.files import new_id
from terakoya.training.continual.link import KeptRow, LinkFacts, kept_lengths, lineage, link_facts
from terakoya.training.defaults import ResolvedAdapter, ResolvedTraining
from terakoya.training.request import TrainingRequest
from terakoya.training.retention import ChainPlace, link_name

CHAIN = "chain"
"""In a model's card, where the link is that its run left; in a task, the chain's id."""


def refuse_learned(facts: LinkFacts, data_sha256: str) -> None:
    """Raises: InvalidConfig if this task of the chain has learned the data already."""
    if facts.data_sha256 == data_sha256:
        raise InvalidConfig(
            f"task {facts.number} of this chain ({facts.task!r}) has learned this dataset already; "
            "learning it again is more epochs, not another task"
        )


class ChainFolders(Protocol):
    def chain(self, chain_id: str) -> Path: ...


class Chains:
    def __init__(self, models: ModelRepository, folders: ChainFolders) -> None:
        self._models = models
        self._folders = folders

    def begins_with(self, request: TrainingRequest) -> tuple[ModelInfo, TrainingRequest, ResolvedAdapter | None]:
        """Return the model a run starts from and the request with the chain's base; with ``after`` also the adapter's
        settings, which go on as they are.

        Raises: ModelNotFound; InvalidConfig for a model that is in no chain, or in one of another model or base.
        """
        asked = self._models.find(request.model)
        if request.after is None:
            return asked, request, None
        after = self._models.find(request.after)
        if CHAIN not in after.card:
            raise InvalidConfig(
                f"{after.name!r} was not made by strategy 'ewc', so nothing says which of its weights matter; "
                "begin a chain with strategy 'ewc' and no 'after'"
            )
        whole = self.whole(after)
        if asked.id not in (after.id, whole.id):
            raise InvalidConfig(
                f"{after.name!r} is of {whole.name!r}, not of {asked.name!r}; "
                f"a chain stays with its model: give {whole.name!r} as 'model'"
            )
        space = after.card[CHAIN]["space"]
        if (request.base or space) != space:
            raise InvalidConfig(f"the chain of {after.name!r} has base {space!r}; it cannot go on as {request.base!r}")
        if request.adapter is not None:
            raise InvalidConfig(f"the adapter of {after.name!r} goes on as it is; leave 'adapter' out")
        settings = ResolvedTraining.from_json(after.card["configuration"]).adapter
        return after, request.model_copy(update={"base": space}), settings

    def check_links(self, after: ModelInfo, dataset: DatasetInfo) -> None:
        """See by its manifests that a chain can be gone on from with this dataset, before anything is queued.

        Raises: DamagedChain if a link is gone or another; InvalidConfig if a task has learned the dataset already.
        """
        before = after.card[CHAIN]
        folder = self._folders.chain(before["id"])
        for path, _ in lineage(folder / before["link"], before["sha256"]):
            refuse_learned(link_facts(path), dataset.content_sha256)

    def kept_behind(self, after: ModelInfo) -> tuple[KeptRow, ...]:
        """Return the rows that the tasks up to a model keep, task by task. Raises: DamagedChain."""
        before = after.card[CHAIN]
        links = lineage(self._folders.chain(before["id"]) / before["link"], before["sha256"])
        return tuple(row for path, _ in links for row in kept_lengths(path))

    def whole(self, model: ModelInfo) -> ModelInfo:
        """The model with all its weights beneath: itself, or an adapter's base."""
        if model.kind is not ModelKind.ADAPTER or model.parent_id is None:
            return model
        return self.whole(self._models.find(model.parent_id))

    @staticmethod
    def id_for(request: TrainingRequest, model: ModelInfo) -> str | None:
        if request.strategy != "ewc":
            return None
        return str(model.card[CHAIN]["id"]) if request.after is not None else new_id("chain")

    def base_of(self, task: Task) -> ModelArtifact | None:
        """The model a chain of whole models began with, to measure what a task gained before it was learned; None if
        it was deleted, for a first task, which starts from it, and for adapters, which lie on it.
        """
        if task.resolved.get(CHAIN) is None or not task.request.get("after"):
            return None
        before = self._models.find(task.resolved["model"]).card[CHAIN]
        if before["space"] != "full":
            return None
        known = self._models.list_models()
        base = next((model for model in known if model.content_sha256 == before["base_sha256"]), None)
        return self._models.load_model(base.id) if base else None

    def place(self, task: Task) -> ChainPlace | None:
        """Two runs after one model give two branches of its chain: each writes a link of its own."""
        if (chain := task.resolved.get(CHAIN)) is None:
            return None
        model = self._models.find(task.resolved["model"])
        before = model.card[CHAIN] if task.request.get("after") else None
        return ChainPlace(
            directory=self._folders.chain(chain),
            number=before["number"] + 1 if before else 1,
            name=link_name(task.name, task.id),
            base_sha256=before["base_sha256"] if before else model.content_sha256,
            parent=before and before["link"],
            parent_sha256=before and before["sha256"],
        )
