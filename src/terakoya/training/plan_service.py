"""Plans: what a request would lead to, before anything is started. Gathers what ``planning.py`` calculates with --
facts of the data from a child process, measured costs, the machine -- and keeps both by content.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import structlog

from terakoya.data.long_rows import label_tokens
from terakoya.domain.datasets import DatasetInfo
from terakoya.domain.models import ModelArtifact, ModelInfo
from terakoya.domain.ports import ModelRepository
from terakoya.exceptions import AppException, InvalidConfig, Unavailable
from terakoya.models.artifacts import read_json
from terakoya.models.linear_layers import adapter_parameters, linear_layers
from terakoya.models.wire import artifact_to_json
from terakoya.storage.files import write_durably
from terakoya.storage.json_text import to_json
from terakoya.training import plan_child
from terakoya.training.continual.link import KeptRow
from terakoya.training.defaults import ResolvedTraining
from terakoya.training.engine.checkpoint_size import DiskNeed
from terakoya.training.engine.fit import SHARE_OF_MEMORY, ModelShape, Trained
from terakoya.training.link_size import RowTotals, link_bytes
from terakoya.training.long_rows_text import long_rows_text
from terakoya.training.measurements import Measured, Measurements, measurement_key
from terakoya.training.planning import Basis, Estimate, Finding, Machine, Row, estimate, rows_of
from terakoya.training.request import TrainingRequest
from terakoya.training.retention import NO_OLD_DATA
from terakoya.training.service import CheckedRequest
from terakoya.training.spec import RunSpec
from terakoya.utils.gpu_query import gpu_facts
from terakoya.utils.host_memory import host_room_bytes, host_total_bytes

log = structlog.get_logger(__name__)
_FACTS_VERSION = 1
_WAIT_SECONDS = 120.0


class Specifier(Protocol):
    """What of the training service a plan needs."""

    def check(self, request: TrainingRequest) -> CheckedRequest: ...

    def specify(
        self, name: str, request: dict[str, Any], resolved: ResolvedTraining, model: ModelArtifact, dataset: DatasetInfo
    ) -> RunSpec: ...


@dataclass(frozen=True, slots=True)
class Plan:
    resolved: ResolvedTraining
    model: ModelInfo
    dataset: DatasetInfo
    machine: Machine
    basis: Basis
    estimate: Estimate
    facts: dict[str, Any]
    problems: tuple[Finding, ...]
    """Why the run would not start or not end well; none: it is ready."""
    warnings: tuple[Finding, ...]


class PlanService:
    def __init__(
        self,
        training: Specifier,
        models: ModelRepository,
        *,
        cache: Path,
        data_dir: Path,
        threads: int = 0,
        find_machine: Callable[[Path], Machine] | None = None,
    ) -> None:
        self._training = training
        self._models = models
        self._plans = cache / "plans"
        self._measurements = Measurements(cache / "measurements")
        self._data_dir = data_dir
        self._threads = threads
        self._find_machine = find_machine or machine_of
        self._verified: dict[str, ModelArtifact] = {}
        self._turn = threading.Lock()

    def plan(self, request: TrainingRequest, *, measure: bool = True) -> Plan:
        """Blocks, the first time for a model, a method or a data set for some seconds; one plan at a time.

        ``measure``: measure this machine if that has not been done for this model and method.
        Raises: whatever ``TrainingService.start`` raises; Unavailable if other plans take too long.
        """
        checked = self._training.check(request)
        model, dataset, resolved = checked.model, checked.dataset, checked.resolved
        if not self._turn.acquire(timeout=_WAIT_SECONDS):
            raise Unavailable("other plans are being made; try again in a moment")
        try:
            artifact = self._artifact(model)
            spec = self._training.specify(
                request.name or "plan", request.model_dump(mode="json", exclude_unset=True), resolved, artifact, dataset
            )
            facts = self._facts(spec)
            measured = self._measured(artifact, resolved, measure=measure)
        finally:
            self._turn.release()
        return self._assemble(model, dataset, resolved, artifact, facts, measured, checked.kept)

    def _artifact(self, model: ModelInfo) -> ModelArtifact:
        """Hashing all weights once is enough: a plan runs nothing of them."""
        if model.content_sha256 not in self._verified:
            self._verified[model.content_sha256] = self._models.load_model(model.id)
        return self._verified[model.content_sha256]

    def _facts(self, spec: RunSpec) -> dict[str, Any]:
        resolved = spec.resolved
        parts = [_FACTS_VERSION, spec.model.root.info.content_sha256, spec.dataset_sha256, resolved.objective]
        # Windows of text are as long as asked for; what else becomes of long rows is not a matter of the facts.
        parts += [resolved.max_length if resolved.objective == "text" else None]
        parts += [resolved.heldout_fraction, resolved.seed, resolved.max_evaluation_examples]
        path = self._plans / f"{hashlib.sha256(to_json(parts)).hexdigest()[:32]}.json"
        try:
            cached: dict[str, Any] = json.loads(path.read_bytes())
            return cached
        except (FileNotFoundError, ValueError):
            pass
        try:
            facts = plan_child.facts(spec.to_json())
        except AppException as error:
            return {"error": str(error), "code": error.code}
        self._plans.mkdir(parents=True, exist_ok=True)
        write_durably(path, to_json(facts))
        return facts

    def _measured(self, artifact: ModelArtifact, resolved: ResolvedTraining, *, measure: bool) -> Measured | None:
        key = measurement_key(artifact.info.content_sha256, resolved, self._threads)
        measured = self._measurements.measured(key)
        if measured is None and measure:
            try:
                found = plan_child.measured(artifact_to_json(artifact), resolved.to_json(), self._threads)
                measured = Measured.from_json(found)
            except AppException as error:  # the estimate by shape is less exact, and says so
                log.warning("not_measured", model=artifact.info.name, reason=str(error))
            else:
                self._measurements.keep_measured(key, measured)
        return measured

    def _assemble(
        self,
        model: ModelInfo,
        dataset: DatasetInfo,
        resolved: ResolvedTraining,
        artifact: ModelArtifact,
        facts: dict[str, Any],
        measured: Measured | None,
        kept: Sequence[KeptRow] = (),
    ) -> Plan:
        machine = self._find_machine(self._data_dir)
        if measured is not None:
            machine = replace(machine, device=measured.device)
        basis = self._basis(model, artifact, resolved, measured)
        train, heldout = rows_of(facts.get("train", ())), rows_of(facts.get("heldout", ()))
        train_rows = _train_rows(dataset, resolved, facts)
        disk = DiskNeed.of(
            basis.trained.parameters,
            keeps_best=resolved.early_stopping_patience is not None,
            link_bytes=link_bytes(
                resolved, basis.trained.parameters, train=_totals(train, train_rows), heldout=_totals(heldout)
            ),
        )
        found = estimate(
            resolved,
            basis,
            machine,
            train=train,
            heldout=heldout,
            shared=facts.get("shared", 0),
            train_rows=train_rows,
            disk=disk,
            replayed=_replayed(kept, resolved, len(train)),
        )
        problems = tuple(_problems(found, machine, facts))
        warnings = tuple(_warnings(resolved, found, facts, basis))
        return Plan(resolved, model, dataset, machine, basis, found, facts, problems, warnings)

    def _basis(
        self, model: ModelInfo, artifact: ModelArtifact, resolved: ResolvedTraining, measured: Measured | None
    ) -> Basis:
        shape = ModelShape.of(read_json(artifact.root.path / "config.json"), model.parameters)
        low = measured is not None and measured.compute_type != "float32"
        trained = trained_part(artifact, shape, resolved, low_precision=low)
        key = measurement_key(artifact.info.content_sha256, resolved, self._threads)
        return Basis(shape, trained, measured, self._measurements.earlier_run(key))


def _totals(rows: Sequence[Row], count: int | None = None) -> RowTotals:
    """``count``: of all rows, where these are a sample."""
    scale = (count or len(rows)) / max(len(rows), 1)
    tokens, labels = sum(length for _, length, _ in rows), sum(label_tokens(spans) for _, _, spans in rows)
    return RowTotals(round(len(rows) * scale), round(tokens * scale), round(labels * scale))


def _replayed(kept: Sequence[KeptRow], resolved: ResolvedTraining, rows: int) -> list[Row]:
    """As many rows of earlier tasks as the run will draw beside these; which is drawn does not matter here."""
    mix = resolved.retention.replay_mix if resolved.retention else 0.0
    if not kept or not mix:
        return []
    drawn = (kept[place % len(kept)] for place in range(round(rows * mix / (1 - mix))))
    return [(0, length, spans) for length, spans in drawn]


def trained_part(
    artifact: ModelArtifact, shape: ModelShape, resolved: ResolvedTraining, *, low_precision: bool
) -> Trained:
    """Return what will be trained, counted from the headers of the model's files."""
    adapter = resolved.adapter
    if adapter is None:
        return Trained(shape.parameters, is_adapter=False, low_precision=low_precision)
    layers = linear_layers(artifact.root.path)
    count = adapter_parameters(layers, adapter.targets, adapter.rank, has_magnitudes="dora" in adapter.kind)
    if not count and adapter.targets != "all-linear":
        names = ", ".join(sorted({layer.name for layer in layers}))
        raise InvalidConfig(f"this model has none of the linear layers {list(adapter.targets)!r}; it has {names}")
    quantized = adapter.quantization is not None
    return Trained(count, is_adapter=True, low_precision=low_precision, is_quantized=quantized)


def machine_of(data_dir: Path) -> Machine:
    """Look at this machine without torch; the GPU's memory is asked of the driver's own tool."""
    free_disk = shutil.disk_usage(data_dir).free
    gpu = _gpu_memory() if not metadata.version("torch").endswith("+cpu") else None
    if gpu is not None:
        return Machine("cuda", gpu[0], gpu[1], free_disk)
    return Machine("cpu", host_room_bytes(), host_total_bytes(), free_disk)


def _gpu_memory() -> tuple[int, int] | None:
    """Return (free, total) bytes of the first GPU."""
    for free, total in gpu_facts("memory.free", "memory.total")[:1]:
        if free.isdigit() and total.isdigit():
            return int(free) << 20, int(total) << 20
    return None


def _train_rows(dataset: DatasetInfo, resolved: ResolvedTraining, facts: dict[str, Any]) -> int:
    """Return how many rows are trained on: those that were read, or the data set's share where that is a sample."""
    read = len(facts.get("train", ()))
    if facts.get("exact", True):
        return read
    held = dataset.heldout_rows or round(dataset.rows * resolved.heldout_fraction)
    return max(dataset.rows - held, read)


def _problems(found: Estimate, machine: Machine, facts: dict[str, Any]) -> list[Finding]:
    problems = []
    if "error" in facts:
        problems.append(Finding("unusable", facts["error"]))
    if refused := facts.get("refused", 0):
        first = facts["refused_rows"][0]
        text = f"{refused:,} rows cannot be used with this model; the first is row {first['row']}: {first['reason']}"
        problems.append(Finding("refused_rows", text))
    told = found.long_rows
    if told.rows and told.policy == "refuse":
        problems.append(Finding("long_rows", long_rows_text(told)))
    if found.schedule is None and not problems:
        problems.append(Finding("nothing_to_train_on", "no row is left to train on"))
    if found.memory is not None and found.memory.peak > machine.available_bytes:
        problems.append(
            Finding(
                "not_enough_memory",
                f"the run needs about {_gb(found.memory.peak)} and {_gb(machine.available_bytes)} are free; a smaller "
                "max_length, gradient checkpointing, LoRA instead of full or fewer other programs would help",
            )
        )
    if (shortage := found.disk.shortage(machine.free_disk_bytes)) is not None:
        problems.append(Finding("storage_full", shortage))
    return problems


def _warnings(resolved: ResolvedTraining, found: Estimate, facts: dict[str, Any], basis: Basis) -> list[Finding]:
    warnings = [Finding(**each) for each in facts.get("warnings", ())]
    if resolved.retention is not None and resolved.retention.replay_share == 0:
        warnings.append(Finding("no_old_data", NO_OLD_DATA))
    told = found.long_rows
    if told.rows and told.policy != "refuse":
        warnings.append(Finding("long_rows", long_rows_text(told)))
    if not facts.get("exact", True):
        text = f"the figures are of a random sample of {len(facts['train']):,} rows"
        warnings.append(Finding("sampled", text))
    schedule = found.schedule
    if schedule is not None and schedule.fit.gradient_checkpointing:
        text = "activations are recomputed to save memory, which makes steps about a third to a half slower"
        warnings.append(Finding("gradient_checkpointing", text))
    if schedule is not None and schedule.fit.is_tight:
        text = (
            f"less than {SHARE_OF_MEMORY:.0%} of the free memory does not suffice for the longest row by this estimate"
        )
        warnings.append(Finding("memory_is_tight", text))
    if basis.measured is None:
        text = "this machine has not been measured for this model and method: memory is a rough guess, time unknown"
        warnings.append(Finding("not_measured", text))
    return warnings


def _gb(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.1f} GB"


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as API and command line show it."""
    found, facts = plan.estimate, plan.facts
    schedule, memory, time = found.schedule, found.memory, found.time
    told = found.long_rows
    return {
        "ready": not plan.problems,
        "problems": [each.to_json() for each in plan.problems],
        "warnings": [each.to_json() for each in plan.warnings],
        "model": {"id": plan.model.id, "name": plan.model.name},
        "dataset": {"id": plan.dataset.id, "name": plan.dataset.name},
        "resolved": plan.resolved.to_json(),
        "basis": plan.basis.name,
        "device": plan.machine.device,
        "compute_type": plan.basis.measured.compute_type if plan.basis.measured else None,
        "tokens": {
            "exact": facts.get("exact", True),
            "rows": len(found.lengths),
            "heldout_rows": found.heldout_rows,
            "total": found.row_tokens,
            "trained": found.trained_tokens,
            "p50": found.lengths.quantile(0.5),
            "p95": found.lengths.quantile(0.95),
            "p99": found.lengths.quantile(0.99),
            "max": found.longest,
            "histogram": [asdict(bar) for bar in found.lengths.histogram()],
        },
        "long_rows": {
            "limit": told.limit,
            "policy": told.policy,
            "rows": told.rows,
            "dropped": told.dropped,
            "pieces": told.pieces,
            "lost_tokens": told.lost_labels,
            "lost_share": round(told.lost_share, 4),
            "numbers": list(told.numbers),
            "lengthen_to": min(told.longest, plan.basis.shape.context),
        },
        "steps": None
        if schedule is None
        else {
            "total": schedule.total_steps,
            "per_epoch": schedule.steps_per_epoch,
            "micro_batch_tokens": schedule.fit.budget_tokens,
            "micro_batches": round(schedule.micro_batches_per_step, 2),
            "gradient_checkpointing": schedule.fit.gradient_checkpointing,
            "trained_parameters": plan.basis.trained.parameters,
            "replayed_rows": found.replayed_rows,
        },
        "memory": None
        if memory is None
        else memory.to_json() | {"available": plan.machine.available_bytes, "total": plan.machine.total_bytes},
        "time": None if time is None else time.to_json(),
        "disk": found.disk.to_json() | {"free_bytes": plan.machine.free_disk_bytes},
        "samples": facts.get("samples", []),
    }
