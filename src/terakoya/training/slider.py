"""The use of the slider after a run: have points between the weights before and after scored, and one of them kept.
Knows models, their cards and data sets; never imports torch. Weights are ``points.py``'s, in a process of its own.

Source: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.domain.names import check_name, name_key
from terakoya.domain.ports import DatasetRepository, ModelRepository, TaskQueue
from terakoya.domain.tasks import Launch, Task, TaskKind
from terakoya.exceptions import Conflict, DatasetNotFound, InvalidConfig, ModelNotFound
from terakoya.models.artifacts import read_json
from terakoya.models.wire import artifact_to_json
from terakoya.training.chains import CHAIN

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_SHARES = 11
ROWS = 200
MOST_ROWS = 5000
_KINDS = ("lora", "rslora")


class SliderService:
    def __init__(self, *, models: ModelRepository, datasets: DatasetRepository, queue: TaskQueue, threads: int) -> None:
        """``threads``: of the process that scores; 0 takes every core."""
        self._models = models
        self._datasets = datasets
        self._queue = queue
        self._threads = threads

    def start(
        self,
        id_or_name: str,
        *,
        shares: Sequence[float] = SHARES,
        keep: float | None = None,
        rows: int = ROWS,
        name: str | None = None,
    ) -> Task:
        """Start scoring the points at ``shares`` of the way from the weights before the run (0) to those after (1).

        ``keep``: the point to register as a model. ``rows``: so many held-out rows of each task at most.
        Raises: ModelNotFound; InvalidConfig for shares out of range, or a model whose weights lie on no such line;
        Conflict if the name is taken.
        """
        points = _checked(shares, keep)
        if not 1 <= rows <= MOST_ROWS:
            raise InvalidConfig(f"1 to {MOST_ROWS:,} rows of a task can be scored; got {rows}")
        if keep is None and name is not None:
            raise InvalidConfig(f"a name is for the point that is kept, and none is: give 'keep' beside name={name!r}")
        after = self._models.find(id_or_name)
        before = self._before(after)
        wanted = check_name(name or f"{after.name}-{keep:g}"[:100]) if keep is not None else after.name
        if keep is not None:
            self._refuse_taken(wanted)
        request = {"model": after.name, "shares": list(shares), "keep": keep, "rows": rows, "name": name}
        resolved = {"model": after.id, "before": before and before.id, "shares": points, "keep": keep, "name": wanted}
        return self._queue.submit(
            TaskKind.INTERPOLATE, name=wanted, request=request, resolved=resolved | {"rows": rows}
        )

    def plan(self, task: Task, task_dir: Path) -> Launch:
        """Return the process that scores (a TaskPlanner)."""
        after = self._models.load_model(task.resolved["model"])
        before_id = task.resolved["before"]
        before = None if before_id is None else self._models.load_model(before_id)
        tasks, missing = self._tasks(after.info)
        spec = {name: task.resolved[name] for name in ("name", "shares", "keep", "rows")} | {
            "after": artifact_to_json(after),
            "before": None if before is None else artifact_to_json(before),
            "tasks": tasks,
            "missing": missing,
            "threads": self._threads,
        }
        return Launch("terakoya.processes.interpolate", spec)

    def _before(self, after: ModelInfo) -> ModelInfo | None:
        """What the run began with; None is the base without an adapter.

        Raises: InvalidConfig for a model that no run made, or whose weights lie on no line with those before.
        """
        if after.kind is ModelKind.ADAPTER:
            _check_adapter(self._models.load_model(after.id))
            if "configuration" not in after.card:
                raise InvalidConfig(f"{after.name!r} was not trained here, so nothing says what it began with")
            link = after.card.get(CHAIN) or {}
            earlier = link.get("after")
            return self._found(after, earlier["id"]) if earlier else None
        if after.kind is ModelKind.FULL and after.parent_id is not None:
            return self._found(after, after.parent_id)
        raise InvalidConfig(
            f"{after.name!r} is no adapter and no fully tuned model of a run, so there is no 'before' to slide back to"
        )

    def _found(self, after: ModelInfo, model_id: str) -> ModelInfo:
        try:
            return self._models.find(model_id)
        except ModelNotFound as error:
            raise InvalidConfig(
                f"the model that {after.name!r} began with is deleted; without its weights there is nothing to slide to"
            ) from error

    def _tasks(self, info: ModelInfo) -> tuple[list[dict[str, Any]], list[str]]:
        """What the model learned, newest first, as far as the data is still here; and the names of what is not."""
        tasks, missing = [], []
        for model in self._line(info):
            known, configuration = model.card.get("dataset"), model.card.get("configuration")
            if known is None or configuration is None:
                continue
            try:
                rows = self._datasets.rows_path(known["id"])
            except DatasetNotFound:
                missing.append(known["name"])
                continue
            names = ("objective", "heldout_fraction", "max_evaluation_examples", "max_length", "seed")
            tasks.append({"name": known["name"], "rows": str(rows)} | {name: configuration[name] for name in names})
        return tasks, missing

    def _line(self, info: ModelInfo) -> Iterator[ModelInfo]:
        """The model and those it went on from, as far as they are registered."""
        seen: set[str] = set()
        current: ModelInfo | None = info
        while current is not None and current.id not in seen:
            seen.add(current.id)
            yield current
            earlier = (current.card.get(CHAIN) or {}).get("after")
            before = earlier["id"] if earlier else current.parent_id if current.kind is ModelKind.FULL else None
            try:
                current = None if before is None else self._models.find(before)
            except ModelNotFound:
                current = None

    def _refuse_taken(self, name: str) -> None:
        taken = [model.name for model in self._models.list_models() if name_key(model.name) == name_key(name)]
        if taken:
            raise Conflict(f"there is already a model {taken[0]!r}; choose another name or delete that model")


def _checked(shares: Sequence[float], keep: float | None) -> list[float]:
    """Return the points to score, in order. Raises: InvalidConfig naming the bound that was crossed."""
    if keep is not None and not 0 < keep < 1:
        raise InvalidConfig(
            f"the point to keep lies between before (0) and after (1), which are there already; got {keep!r}"
        )
    if not 1 <= len(shares) <= MOST_SHARES or len(set(shares)) != len(shares):
        raise InvalidConfig(f"1 to {MOST_SHARES} different points can be scored; got {list(shares)!r}")
    if wrong := [share for share in shares if not 0 <= share <= 1]:
        raise InvalidConfig(f"a point between two models has a share from 0 (before) to 1 (after); got {wrong[0]!r}")
    return sorted({*shares, *([] if keep is None else [keep])})


def _check_adapter(artifact: ModelArtifact) -> None:
    """Raises: InvalidConfig for an adapter that does more than add a low-rank matrix."""
    config = read_json(artifact.path / "adapter_config.json")
    odd = [key for key in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save") if config.get(key)]
    if odd or artifact.info.card.get("loader") == "qlora":
        what = odd[0] if odd else "a base in 4 bits"
        raise InvalidConfig(
            f"{artifact.info.name!r} is an adapter with {what}; points between are exact only for kinds "
            f"{' and '.join(_KINDS)} on whole weights"
        )
