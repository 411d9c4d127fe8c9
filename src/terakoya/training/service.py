"""Starting and looking at training runs, for routes and command line. Knows the ports; never imports torch:
the computing happens in a process of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from terakoya.domain.datasets import DatasetInfo
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.domain.names import check_name, name_key
from terakoya.domain.ports import DatasetRepository, ModelRepository, TaskQueue, TaskRepository
from terakoya.domain.tasks import ACTIVE_STATES, LIMITS, Launch, Task, TaskKind, TaskLimits, TaskState
from terakoya.exceptions import (
    Conflict,
    DatasetNotFound,
    InvalidConfig,
    InvalidDataset,
    ModelNotFound,
    StorageFull,
    TaskNotFound,
)
from terakoya.training.chains import CHAIN, Chains
from terakoya.training.continual.link import KeptRow
from terakoya.training.defaults import ResolvedTraining, resolve, resolve_limits
from terakoya.training.engine.checkpoint_size import DiskNeed
from terakoya.training.link_size import link_bytes
from terakoya.training.presets import with_preset
from terakoya.training.recipe import recipe_fields, write_recipe
from terakoya.training.request import TrainingRequest
from terakoya.training.retention import ChainPlace
from terakoya.training.spec import RunSpec
from terakoya.training.trackers import check_available

WORKER = "terakoya.processes.train"
REPORT = "report.json"
_UNFINISHED = ACTIVE_STATES | {TaskState.QUEUED, TaskState.PAUSED}


class TaskFolders(Protocol):
    """Where things of tasks lie: ``storage.files.DataDir``."""

    cache: Path
    tokens: Path

    def task(self, task_id: str) -> Path: ...

    def chain(self, chain_id: str) -> Path: ...


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request that can be started, with what it means."""

    filled: TrainingRequest
    """With what a preset says."""
    model: ModelInfo
    dataset: DatasetInfo
    resolved: ResolvedTraining
    limits: TaskLimits
    kept: tuple[KeptRow, ...] = ()
    """Rows that earlier tasks of its chain kept, to be mixed in."""


class TrainingService:
    def __init__(
        self,
        *,
        queue: TaskQueue,
        tasks: TaskRepository,
        models: ModelRepository,
        datasets: DatasetRepository,
        folders: TaskFolders,
        threads: int = 0,
        mlflow_uri: str | None = None,
        token_cache_bytes: int = 0,
        limits: TaskLimits | None = None,
    ) -> None:
        """``limits``: of runs that ask for none; ``max_hours`` bounds all."""
        self._queue = queue
        self._tasks = tasks
        self._models = models
        self._datasets = datasets
        self._folders = folders
        self._threads = threads
        self._mlflow_uri = mlflow_uri
        self._token_cache_bytes = token_cache_bytes
        self._chains = Chains(models, folders)
        self._limits = limits or TaskLimits()

    def start(self, request: TrainingRequest) -> Task:
        """Check the request against model and dataset, fill it in and queue it.

        Raises: ModelNotFound, DatasetNotFound, InvalidConfig, InvalidDataset; Conflict if the name is taken;
        StorageFull if what the run writes does not fit.
        """
        checked = self.check(request)
        model, dataset, resolved = checked.model, checked.dataset, checked.resolved
        if (shortage := self._shortage(model, resolved)) is not None:
            raise StorageFull(shortage)
        name = self._free_name(checked.filled, dataset.name)
        return self._queue.submit(
            TaskKind.TRAINING,
            name=name,
            request=request.model_dump(mode="json", exclude_unset=True),
            resolved=resolved.to_json()
            | {
                "model": model.id,
                "dataset": dataset.id,
                LIMITS: asdict(checked.limits),
                CHAIN: self._chains.id_for(request, model),
            },
            priority=request.priority,
        )

    def check(self, request: TrainingRequest) -> CheckedRequest:
        """Return what the request means.

        Raises: ModelNotFound, DatasetNotFound, InvalidConfig, InvalidDataset; DamagedChain if what it is to go on from
        is not whole.
        """
        model, going_on, settings = self._chains.begins_with(request)
        dataset = self._datasets.find(request.dataset)
        kept: tuple[KeptRow, ...] = ()
        if request.after is not None:
            self._chains.check_links(model, dataset)
            kept = self._chains.kept_behind(model)
        if not model.has_files:
            raise InvalidConfig(
                f"{model.name!r} is an endpoint elsewhere, without weights here to be trained; choose a base model"
            )
        if not model.can_answer:
            raise InvalidConfig(f"{model.name!r} is an embedder, which is not trained; choose a chat model")
        if model.kind is ModelKind.ADAPTER and request.after is None:
            base = self._models.find(model.parent_id).name if model.parent_id else "a whole model"
            raise InvalidConfig(
                f"{model.name!r} is an adapter; in this version a run starts from a whole model, such as {base!r}"
            )
        whole = self._chains.whole(model)
        if not whole.can_be_tuned:
            raise InvalidConfig(f"{model.name!r} is an export, to be used elsewhere; train what it was made of")
        filled = with_preset(going_on, parameters=whole.parameters)
        rows = dataset.rows - dataset.heldout_rows
        if rows <= 0:
            raise InvalidDataset(
                f"the dataset {dataset.name!r} has no rows to train on: all {dataset.rows} are held out; "
                'add rows that do not say "split": "heldout"'
            )
        if not dataset.heldout_rows:
            rows = round(rows * (1 - filled.evaluation.heldout_fraction))
        resolved = resolve(filled, parameters=whole.parameters, rows=rows, kind=dataset.kind)
        if settings is not None:
            resolved = replace(resolved, adapter=settings)
        check_available(resolved.trackers, mlflow_uri=self._mlflow_uri)
        return CheckedRequest(filled, model, dataset, resolved, resolve_limits(filled.limits, self._limits), kept)

    def plan(self, task: Task, task_dir: Path) -> Launch:
        """The TaskPlanner of training. Raises: AppException when model or data are gone or damaged."""
        spec = self.specify(
            task.name,
            task.request,
            ResolvedTraining.from_json(task.resolved),
            self._models.load_model(task.resolved["model"]),
            self._datasets.find(task.resolved["dataset"]),
            chain=self._chains.place(task),
            chain_base=self._chains.base_of(task),
        )
        return Launch(module=WORKER, spec=spec.to_json())

    def specify(
        self,
        name: str,
        request: dict[str, Any],
        resolved: ResolvedTraining,
        model: ModelArtifact,
        dataset: DatasetInfo,
        *,
        chain: ChainPlace | None = None,
        chain_base: ModelArtifact | None = None,
    ) -> RunSpec:
        """Return what a training process is told."""
        return RunSpec(
            name=name,
            request=request,
            resolved=resolved,
            model=model,
            dataset_id=dataset.id,
            dataset_name=dataset.name,
            dataset_sha256=dataset.content_sha256,
            rows_path=self._datasets.rows_path(dataset.id),
            evaluation_cache=self._folders.cache / "evaluations",
            token_cache=self._folders.tokens,
            token_cache_bytes=self._token_cache_bytes,
            threads=self._threads,
            mlflow_uri=self._mlflow_uri,
            measurements=self._folders.cache / "measurements",
            chain=chain,
            chain_base=chain_base,
        )

    def get(self, task_id: str) -> Task:
        """Raises: TaskNotFound, also for a task of another kind."""
        task = self._tasks.find(task_id)
        if task.kind is not TaskKind.TRAINING:
            raise TaskNotFound(f"{task_id!r} is a {task.kind} task, not a training run; see /api/tasks/{task_id}")
        return task

    def list(self, *, limit: int = 100) -> Sequence[Task]:
        """Newest first."""
        return self._tasks.list_tasks(kind=TaskKind.TRAINING, limit=limit)

    def report(self, task_id: str) -> dict[str, Any] | None:
        """The report card, None while there is none. Raises: TaskNotFound."""
        path = self._folders.task(self.get(task_id).id) / REPORT
        try:
            report: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        return report

    def recipe(self, task_id: str) -> tuple[dict[str, Any], str]:
        """Return the request that gives this run again, as fields and as YAML. Raises: TaskNotFound."""
        task = self.get(task_id)
        model, dataset = self._known(task)
        fields = recipe_fields(
            TrainingRequest.model_validate(task.request),
            ResolvedTraining.from_json(task.resolved),
            model=model.name if model else task.request["model"],
            dataset=dataset.name if dataset else task.request["dataset"],
        )
        notes = {"Recipe of": f"{task.name}, run {task.id}"}
        if model:
            notes["model"] = f"{model.id}, SHA-256 {model.content_sha256}"
        if dataset:
            notes["dataset"] = f"{dataset.id}, {dataset.rows} rows, SHA-256 {dataset.content_sha256}"
        return fields, write_recipe(fields, notes=notes)

    def _known(self, task: Task) -> tuple[ModelInfo | None, DatasetInfo | None]:
        """The model and the dataset of a run, where they are still there."""
        try:
            model = self._models.find(task.resolved["model"])
        except ModelNotFound:
            model = None
        try:
            dataset = self._datasets.find(task.resolved["dataset"])
        except DatasetNotFound:
            dataset = None
        return model, dataset

    def _shortage(self, model: ModelInfo, resolved: ResolvedTraining) -> str | None:
        """Return what to say if the disk is too full for what the run writes. An adapter's size is known to the run,
        which looks again before its first step; here it counts as nothing.
        """
        trained = model.parameters if resolved.adapter is None else 0
        link = link_bytes(resolved, trained, train=None, heldout=None)
        need = DiskNeed.of(trained, keeps_best=resolved.early_stopping_patience is not None, link_bytes=link)
        return need.shortage(shutil.disk_usage(self._folders.cache).free)

    def _free_name(self, request: TrainingRequest, dataset: str) -> str:
        """Return the name asked for, or a made one with a number if need be. Raises: Conflict, InvalidConfig."""
        unfinished = self._tasks.list_tasks(kind=TaskKind.TRAINING, states=_UNFINISHED, limit=10_000)
        names = [*(each.name for each in self._models.list_models()), *(each.name for each in unfinished)]
        taken = {name_key(name) for name in names}
        if request.name is not None:
            name = check_name(request.name)
            if name_key(name) in taken:
                raise Conflict(f"the name {name!r} is taken by another model or an unfinished run; choose another")
            return name
        made = check_name(f"{dataset[:80]}-{request.strategy}")
        numbered = (made if number == 1 else f"{made}-{number}" for number in range(1, len(taken) + 2))
        return next(name for name in numbered if name_key(name) not in taken)
