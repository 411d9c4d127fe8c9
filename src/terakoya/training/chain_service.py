"""Chains of tasks as things of their own: begin one, go on, branch off, look, check every byte, erase what is kept of
people's rows, delete. Reaches models, tasks and datasets through their ports; what a run does in a chain is the run's.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from terakoya.domain.datasets import DatasetInfo
from terakoya.domain.models import ModelInfo
from terakoya.domain.names import did_you_mean
from terakoya.domain.ports import DatasetRepository, ModelRepository, TaskRepository
from terakoya.domain.tasks import ACTIVE_STATES, Task, TaskState
from terakoya.exceptions import Conflict, InvalidConfig, ModelNotFound, NotFound
from terakoya.storage.files import is_id
from terakoya.storage.manifest import Damage
from terakoya.training.chain_views import ChainView, LinkView, view_chain
from terakoya.training.chains import CHAIN
from terakoya.training.continual.errors import DamagedChain
from terakoya.training.continual.link import damages_of, erase_kept, link_facts, manifest_sha256, metrics_of, notes_of
from terakoya.training.request import TrainingRequest

_UNFINISHED = ACTIVE_STATES | {TaskState.QUEUED, TaskState.PAUSED}
_MOST_TASKS = 10_000


@dataclass(frozen=True, slots=True)
class Cost:
    """What erasing rows means; pages have the text of ``cost.<code>``."""

    code: str
    message: str


NO_REHEARSAL = Cost(
    "no_rehearsal",
    "later tasks no longer rehearse these rows. Only the penalty holds what they taught; where the two were compared "
    "that kept far less (docs/continual-learning.md)",
)
NO_BUDGET = Cost(
    "no_budget",
    "a forgetting budget is measured on kept rows: if none are left in the chain, the next task needs a fixed lambda "
    "(retention.regulariser.strength)",
)
NO_CELL = Cost(
    "no_cell",
    'later tasks cannot be scored again on its held-out rows: those cells of the matrix say "not measured"',
)
IRREVERSIBLE = Cost("irreversible", "the rows cannot be brought back into the chain")


class ChainFolders(Protocol):
    chains: Path

    def chain(self, chain_id: str) -> Path: ...


class Starter(Protocol):
    """What of the training service a chain needs."""

    def start(self, request: TrainingRequest) -> Task: ...


class ChainNotFound(NotFound):
    code = "chain_not_found"


class NotMeasured(NotFound):
    code = "not_measured"


@dataclass(frozen=True, slots=True)
class CheckedLink:
    link: str
    intact: bool
    damages: tuple[Damage, ...]
    problem: str | None = None
    """What is wrong with how it hangs together with the others."""


@dataclass(frozen=True, slots=True)
class Erased:
    links: tuple[str, ...]
    rows: int
    freed_bytes: int
    costs: tuple[Cost, ...]
    """What it means for the tasks to come."""


class ChainService:
    def __init__(
        self,
        *,
        folders: ChainFolders,
        models: ModelRepository,
        tasks: TaskRepository,
        datasets: DatasetRepository,
        training: Starter,
    ) -> None:
        self._folders = folders
        self._models = models
        self._tasks = tasks
        self._datasets = datasets
        self._training = training
        self._turn = threading.Lock()
        """Held while a chain is looked at and then changed: two requests must not both find it free."""

    # -- looking --

    def list(self) -> Sequence[ChainView]:
        """Newest first; with those whose first run has not ended."""
        models, datasets, unfinished = self._models.list_models(), self._datasets.list_datasets(), self._unfinished()
        ids = {path.name for path in self._folders.chains.iterdir() if is_id(path.name)} | _begun(unfinished)
        return [self._view(each, models, datasets, unfinished) for each in sorted(ids, reverse=True)]

    def get(self, chain: str) -> ChainView:
        """``chain``: its id, or id or name of a model in it. Raises: ChainNotFound."""
        models = self._models.list_models()
        return self._view(self._id_of(chain), models, self._datasets.list_datasets(), self._unfinished())

    def verify(self, chain: str) -> Sequence[CheckedLink]:
        """Hash every byte of every link anew. Raises: ChainNotFound."""
        view = self.get(chain)
        folder = self._folders.chain(view.id)
        written = {
            str(model.card[CHAIN]["link"]): str(model.card[CHAIN]["sha256"]) for model in self._models_of(view.id)
        }
        checked = []
        for link in view.links:
            sha256 = written.get(link.link) or self._as_followed(folder, link)
            damages = damages_of(folder / link.link, sha256)
            checked.append(CheckedLink(link.link, not damages and not link.problem, tuple(damages), link.problem))
        for name in sorted(written.keys() - {link.link for link in view.links}):
            checked.append(CheckedLink(name, False, (Damage("manifest.json", "missing"),)))
        return checked

    def matrix(self, chain: str, *, model: str | None = None) -> dict[str, Any]:
        """Return R of the tasks up to a model, as its run measured it.

        ``model`` may be left out where the chain has one head, or is named by a model.
        Raises: ChainNotFound, ModelNotFound; InvalidConfig where it branches; NotMeasured; DamagedChain.
        """
        view = self.get(chain)
        head = self._head(view, model or self._model_named(chain))
        found = metrics_of(self._folders.chain(view.id) / str(head.card[CHAIN]["link"])).get("matrix")
        if found is None:
            raise NotMeasured(f"the run of {head.name!r} scored no earlier tasks; runs of this version do")
        return {"chain": view.id, "model": {"id": head.id, "name": head.name}, **found}

    def matrix_or_none(self, chain: str, model: str) -> dict[str, Any] | None:
        """Return the matrix up to a model where there is one. Raises: ChainNotFound, ModelNotFound."""
        try:
            return self.matrix(chain, model=model)
        except (NotMeasured, DamagedChain):
            return None

    # -- going on --

    def begin(self, request: TrainingRequest) -> Task:
        """Begin a chain with its first task. Raises: InvalidConfig; whatever starting a run raises."""
        if request.after is not None:
            raise InvalidConfig(f"a new chain comes after nothing; to go on from {request.after!r} extend its chain")
        return self._training.start(request)

    def extend(self, chain: str, fields: dict[str, Any], *, branch: bool = False) -> Task:
        """Queue the next task of a chain; ``fields`` are those of a request, ``after`` and ``model`` left out at will.

        Raises: Conflict if another task has gone on from there, or is about to, unless it is to ``branch``;
        ChainNotFound, ModelNotFound, InvalidConfig; whatever starting a run raises.
        """
        with self._turn:
            view = self.get(chain)
            after = self._head(view, fields.get("after") or self._model_named(chain))
            if not branch:
                self._refuse_second(view, after)
            model = fields.get("model") or (after.id if view.space == "full" or view.base is None else view.base.id)
            request = TrainingRequest.model_validate(fields | {"strategy": "ewc", "model": model, "after": after.id})
            return self._training.start(request)

    def _refuse_second(self, view: ChainView, after: ModelInfo) -> None:
        number = after.card[CHAIN]["number"]
        link = next((each for each in view.links if each.link == after.card[CHAIN]["link"]), None)
        remedy = "with branch=true this becomes a branch of its own beside it"
        for task in self._unfinished():
            if task.resolved.get(CHAIN) == view.id and task.resolved.get("model") == after.id:
                raise Conflict(
                    f"the run {task.name!r} ({task.id}, {task.state}) is already going on from {after.name!r} as task "
                    f"{number + 1} of this chain; wait for it and go on from what it makes, or {remedy}"
                )
        if link is not None and link.children:
            others = [each for each in view.links if each.link in link.children]
            named = ", ".join(repr(each.model.name if each.model else each.link) for each in others)
            raise Conflict(
                f"{named} already goes on from {after.name!r} as task {number + 1} of this chain; go on from that "
                f"(after), or {remedy}"
            )

    # -- taking away --

    def erase(self, chain: str, *, link: str | None = None) -> Erased:
        """Delete the rows that links keep of their tasks, for good; of one link, or of all.

        Raises: ChainNotFound, NotFound; Conflict while a run of the chain is unfinished.
        """
        with self._turn:
            view = self.get(chain)
            self._refuse_running(view, "its rows can be erased")
            chosen = [each for each in view.links if link in (None, each.link)]
            if link is not None and not chosen:
                raise NotFound(f"no link {link!r}{did_you_mean(link, [each.link for each in view.links])}")
            folder = self._folders.chain(view.id)
            freed = sum(erase_kept(folder / each.link) for each in chosen if not each.kept.is_empty)
            rows = sum(each.kept.replay_rows + each.kept.heldout_rows for each in chosen)
            return Erased(tuple(each.link for each in chosen if not each.kept.is_empty), rows, freed, costs_of(chosen))

    def delete(self, chain: str, *, with_models: bool = False) -> None:
        """Delete every link; ``with_models`` the models of the chain before, newest first.

        Raises: ChainNotFound; Conflict while a run of it is unfinished, or while models are that could go on.
        """
        with self._turn:
            view = self.get(chain)
            self._refuse_running(view, "the chain can be deleted")
            own = self._models_of(view.id)
            if own and not with_models:
                names = ", ".join(repr(model.name) for model in own)
                raise Conflict(
                    f"{names} could not be gone on from without this chain; delete with models=true, or keep it"
                )
            self._refuse_needed(own)
            for model in sorted(own, key=lambda each: each.id, reverse=True):
                self._models.delete(model.id)
            _remove(self._folders.chain(view.id))

    def delete_link(self, chain: str, link: str) -> None:
        """Delete the end of a branch whose model is gone: what a deleted model or a failed run has left.

        Raises: ChainNotFound, NotFound; Conflict if anything stands on it.
        """
        with self._turn:
            view = self.get(chain)
            found = next((each for each in view.links if each.link == link), None)
            if found is None:
                raise NotFound(f"no link {link!r}{did_you_mean(link, [each.link for each in view.links])}")
            self._refuse_running(view, "a link can be deleted")
            if found.children:
                raise Conflict(
                    f"the link {link!r} is what {', '.join(map(repr, found.children))} is built on; delete that"
                )
            if found.model is not None:
                raise Conflict(f"the model {found.model.name!r} stands on the link {link!r}; delete the model first")
            path = self._folders.chain(view.id) / link
            notes = notes_of(path)
            _remove(path)
            for note in notes:
                note.unlink()

    # -- parts --

    def _refuse_running(self, view: ChainView, when: str) -> None:
        if view.running:
            raise Conflict(f"the run {view.running[0]!r} of this chain is unfinished; when it has ended {when}")

    def _refuse_needed(self, own: Sequence[ModelInfo]) -> None:
        """So that all of a chain's models can be deleted, or none is. Raises: Conflict."""
        ids = {model.id for model in own}
        for model in self._models.list_models():
            if model.parent_id in ids and model.id not in ids:
                raise Conflict(f"the model {model.name!r} is built on one of this chain; delete it first")
        for task in self._tasks.list_tasks(states=_UNFINISHED, limit=_MOST_TASKS):
            if ids & set(map(str, (*task.resolved.values(), *task.request.values()))):
                raise Conflict(f"the unfinished task {task.id!r} needs a model of this chain; cancel it or wait")

    def _head(self, view: ChainView, wanted: str | None) -> ModelInfo:
        """The model of a chain that was named, or the only one nothing has gone on from."""
        if wanted is not None:
            model = self._models.find(wanted)
            if model.card.get(CHAIN, {}).get("id") != view.id:
                names = ", ".join(repr(each.model.name) for each in view.links if each.model)
                raise InvalidConfig(f"{model.name!r} is not in this chain; it has {names or 'no model left'}")
            return model
        if len(view.heads) != 1:
            problem = f"it branches into {', '.join(map(repr, view.heads))}" if view.heads else "no model of it is left"
            raise InvalidConfig(f"which model of the chain {view.id!r} is meant is not clear: {problem}; name one")
        return self._models.find(view.heads[0])

    def _id_of(self, chain: str) -> str:
        if self._is_chain(chain):
            return chain
        try:
            model = self._models.find(chain)
        except ModelNotFound:
            model = None
        if model is not None and CHAIN in model.card:
            return str(model.card[CHAIN]["id"])
        if model is not None:
            raise ChainNotFound(f"{model.name!r} is in no chain; strategy 'ewc' makes models that are")
        names = [each.name for each in self._models.list_models() if CHAIN in each.card]
        raise ChainNotFound(f"no chain {chain!r}, and no model of one{did_you_mean(chain, names)}")

    def _model_named(self, chain: str) -> str | None:
        return None if self._is_chain(chain) else chain

    def _is_chain(self, name: str) -> bool:
        return is_id(name) and (self._folders.chain(name).is_dir() or name in _begun(self._unfinished()))

    def _models_of(self, chain_id: str) -> Sequence[ModelInfo]:
        return [model for model in self._models.list_models() if model.card.get(CHAIN, {}).get("id") == chain_id]

    def _unfinished(self) -> Sequence[Task]:
        return self._tasks.list_tasks(states=_UNFINISHED, limit=_MOST_TASKS)

    def _view(
        self, chain_id: str, models: Sequence[ModelInfo], datasets: Sequence[DatasetInfo], unfinished: Sequence[Task]
    ) -> ChainView:
        return view_chain(self._folders.chain(chain_id), models=models, datasets=datasets, unfinished=unfinished)

    def _as_followed(self, folder: Path, link: LinkView) -> str:
        """What the hash of a link without a model must be: what the next names, or what it is where none does."""
        for child in link.children:
            if (parent := link_facts(folder / child).parent) is not None:
                return parent
        return manifest_sha256(folder / link.link) or ""


def _begun(unfinished: Sequence[Task]) -> set[str]:
    """Chains that runs are at work on; the first of one makes its folder at its end."""
    return {str(task.resolved[CHAIN]) for task in unfinished if task.resolved.get(CHAIN)}


def costs_of(links: Sequence[LinkView]) -> tuple[Cost, ...]:
    """Return what erasing the rows of these links means; nothing where there are none."""
    costs: list[Cost] = []
    if any(link.kept.replay_rows for link in links):
        costs += [NO_REHEARSAL, NO_BUDGET]
    if any(link.kept.heldout_rows for link in links):
        costs.append(NO_CELL)
    return (*costs, IRREVERSIBLE) if costs else ()


def _remove(folder: Path) -> None:
    """Rename first, so that what a crash leaves is never mistaken for a link or a chain."""
    doomed = folder.with_name(f".removed-{secrets.token_hex(8)}")
    folder.rename(doomed)
    shutil.rmtree(doomed)
