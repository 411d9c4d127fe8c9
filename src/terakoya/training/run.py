"""One training run from its specification to its outcome: read, load, probe, train, judge, keep. Says at every
moment what it is doing. Knows nothing of queues, processes or the database.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from torch import nn

from terakoya.data.token_store import lengths_of
from terakoya.data.tokenization import EncodedExample
from terakoya.domain.events import EventType, Observer, Phase
from terakoya.domain.models import ModelArtifact, ModelKind
from terakoya.domain.tasks import CHECKPOINTS, Outcome, TaskState
from terakoya.exceptions import AppException, InvalidConfig, StorageFull
from terakoya.models.base_loader import LoadedModel
from terakoya.models.factory import create_model_loader, loader_type
from terakoya.models.label_forward import LabelForward, Way
from terakoya.models.packing import label_count
from terakoya.models.probe import ComputeChoice, choose_compute_type
from terakoya.models.quantization import quantize_nf4
from terakoya.storage.disk_cache import DiskCache
from terakoya.storage.files import write_durably
from terakoya.storage.json_text import to_json
from terakoya.training.chain_scoring import ChainScorer, Judged, own_rows, told
from terakoya.training.chaining import Chained
from terakoya.training.continual.budget import Controller
from terakoya.training.continual.scored import MATRIX
from terakoya.training.curve import curve_of
from terakoya.training.decisions import Decisions
from terakoya.training.engine.batching import StepPlan, lane_count
from terakoya.training.engine.checkpoint import Checkpoints, Position
from terakoya.training.engine.checkpoint_size import DiskNeed
from terakoya.training.engine.evaluation_plan import EvaluationPlan, plan_evaluation, spread
from terakoya.training.engine.fit import (
    BatchShape,
    Costs,
    ModelShape,
    Trained,
    choose_fit,
    lane_bytes,
    memory_need,
    optimizer_bytes,
)
from terakoya.training.engine.loop import LoopResult, Stop, TrainingLoop, Watch, make_optimizer
from terakoya.training.engine.schedule import Schedule
from terakoya.training.ewc_strategy import EWCTrainingStrategy
from terakoya.training.fitting import FitInForce, keep_fit, next_fit
from terakoya.training.generating import LIKE_ROWS, Writer
from terakoya.training.judging import MOST_EVALUATED_TOKENS, Judge
from terakoya.training.keeping import keep
from terakoya.training.link_size import RowTotals, link_bytes
from terakoya.training.long_rows_text import long_rows_text
from terakoya.training.measurements import EarlierRun, Measurements, measurement_key
from terakoya.training.memory_guard import MemoryGuard
from terakoya.training.methods import STRATEGIES
from terakoya.training.objectives.methods import OBJECTIVES
from terakoya.training.objectives.objective import Objective, Start
from terakoya.training.preparation import EncodedMaterial, encode_material, read_material, refuse_unknown_tokens
from terakoya.training.resources import ResourceWatch
from terakoya.training.retention import NO_OLD_DATA
from terakoya.training.sampling import Sampling, choose_samples
from terakoya.training.spec import RunSpec
from terakoya.training.steering import Canaries, CanaryWatch, GeneralText, steps_between
from terakoya.training.strategy import TrainingStrategy
from terakoya.training.token_cache import TokenCache
from terakoya.training.trackers import TRACKERS, check_available
from terakoya.training.trackers.base import TrackedRun
from terakoya.training.trackers.tracking import TrackedObserver
from terakoya.training.watching import EarlyStopping, HeldoutWatch
from terakoya.utils.freed_memory import return_freed_memory
from terakoya.utils.gpu_utils import available_memory_bytes, peak_memory_bytes, training_device

RESULT = "result"
REPORT = "report.json"
REFERENCE = "reference.json"
EVENTS = "events.jsonl"
CALIBRATION = "calibration.json"
GENERATED_ROWS = "generated-rows"
_COUNTED_ROWS = 1000


_ENDS = {Stop.CANCEL: TaskState.CANCELLED, Stop.PAUSE: TaskState.PAUSED, Stop.MEMORY: TaskState.FAILED}
"""What a run has come to that is to stop without a result."""


class RunStopped(Exception):
    """Unwinds a run that was asked to end or to pause. Never leaves this module."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop)
        self.stop = stop


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything a loop needs, and what was decided on the way."""

    loaded: LoadedModel
    module: nn.Module
    strategy: TrainingStrategy
    objective: Objective
    material: EncodedMaterial
    forward: LabelForward
    accelerator: Accelerator
    plan: StepPlan
    evaluation: EvaluationPlan
    sampling: Sampling
    shape: ModelShape
    trained: Trained
    fit: FitInForce
    effective: dict[str, Any]
    own_rows: Sequence[EncodedExample]
    """This dataset's, without those of earlier tasks."""
    chained: Chained | None
    """The run's part in a chain of tasks, if it has one."""


class TrainingRun:
    def __init__(
        self,
        spec: RunSpec,
        *,
        task_id: str,
        task_dir: Path,
        attempt: int,
        observer: Observer,
        requested_action: Callable[[], str | None],
        give_up: Callable[[AppException], None] | None = None,
        hold_memory: Callable[[int], None] | None = None,
    ) -> None:
        """``give_up``: record the error as the outcome and end this process now, from any thread. ``hold_memory``: tell
        others how many bytes this process is going to hold."""
        self.spec = spec
        self.task_id = task_id
        self.task_dir = task_dir
        self.attempt = attempt
        self.observer = observer
        self.asked = requested_action
        self.hold_memory = hold_memory
        self.memory = MemoryGuard(task_dir, observer, give_up)
        self.device = training_device()
        self.tokens = (
            None
            if spec.token_cache is None
            else TokenCache(DiskCache(spec.token_cache, spec.token_cache_bytes), spec.dataset_sha256)
        )
        self.started = time.monotonic()
        self.start_seconds = 0.0

    def execute(self) -> Outcome:
        """Raises: AppException for everything that is wrong with request, model, data or machine."""
        try:
            with self._tracked(), ResourceWatch(self.observer, self.device), self.memory.watch():
                prepared = self._prepare()
                trained = self._train(prepared)
                if trained.stop in _ENDS:
                    raise RunStopped(trained.stop)
                return self._conclude(prepared, trained)
        except RunStopped as stopped:
            if stopped.stop is Stop.MEMORY:
                raise self.memory.error() from None
            return Outcome(_ENDS[stopped.stop], self.attempt)
        finally:
            if self.tokens is not None:
                self.tokens.close()

    def requested_action(self) -> str | None:
        """Return what a person asked for, or that memory runs low while something can be done about it."""
        return self.asked() or (Stop.MEMORY if self.memory.is_low else None)

    @contextmanager
    def _tracked(self) -> Iterator[None]:
        """Within, what is told also reaches the trackers asked for. Raises: InvalidConfig if one is not installed."""
        spec, own = self.spec, self.observer
        check_available(spec.resolved.trackers, mlflow_uri=spec.mlflow_uri)
        settings = {"model": spec.model.info.name, "dataset": spec.dataset_name, **spec.resolved.to_json()}
        tracked = TrackedRun(self.task_id, spec.name, self.task_dir, self.attempt, spec.mlflow_uri, settings)
        names = spec.resolved.trackers
        with TrackedObserver(own, names, tracked, load=TRACKERS.load, stopped=RunStopped) as self.observer:
            try:
                yield
            finally:
                self.observer = own

    def _prepare(self) -> Prepared:
        resolved = self.spec.resolved
        if self.device.type == "cpu":
            torch.set_num_threads(self.spec.threads or os.cpu_count() or 1)
        self._phase(Phase.READING_DATA)
        material = read_material(self.spec, self.observer)
        strategy = STRATEGIES.load(resolved.strategy)(resolved)
        objective = OBJECTIVES.load(resolved.objective).load()(resolved.objective_settings)
        self._phase(Phase.LOADING_MODEL, detail=self.spec.model.info.name)
        loaded = self.load_base(device="cpu" if strategy.quantizes else str(self.device))
        shape = ModelShape.of(loaded.module.config, self.spec.model.root.info.parameters)
        self._phase(Phase.TOKENIZING)
        encoded = encode_material(
            material,
            loaded.tokenizer,
            objective.encoding,
            max_length=resolved.max_length,
            context=shape.context,
            long_rows=resolved.long_rows,
            cache=self.tokens,
            progress=lambda done, total: self.tick(Phase.TOKENIZING, done, total),
        )
        refuse_unknown_tokens(encoded, loaded.tokenizer, cast(Any, loaded.module).get_input_embeddings().num_embeddings)
        if encoded.was_ready:
            self.observer.notify(
                EventType.LOG,
                message=f"the {len(encoded.train):,} rows were tokenised by an earlier run and are taken as they are",
            )
        self._tell_split(encoded)
        self._tell_long_rows(encoded)
        self._phase(Phase.PROBING)
        compute = self._compute_type(shape)
        low_precision = compute.dtype is not torch.float32
        torch.manual_seed(resolved.seed)  # an adapter's start is drawn at random
        if strategy.quantizes:  # from the full weights, as the loader of the result does it
            quantize_nf4(loaded.module, compute_dtype=compute.dtype, device=self.device)
        if low_precision:
            strategy.lower(loaded.module, compute.dtype)
        base = self.spec.model.root if strategy.kind is ModelKind.ADAPTER else self.spec.model
        module = strategy.prepare(loaded.module, base_id=base.info.id)
        accelerator = Accelerator(cpu=self.device.type == "cpu", mixed_precision="bf16" if low_precision else "no")
        own_rows, chained = encoded.train, None
        if isinstance(strategy, EWCTrainingStrategy):
            chained = self._chained(strategy, module, loaded.tokenizer, objective, encoded, accelerator)
            encoded, objective = chained.mixed(encoded, objective)
        forward = self._choose_forward(module, encoded, accelerator)
        plan = StepPlan.of(
            rows=encoded.examples,
            batch_size=resolved.batch_size,
            seed=resolved.seed,
            epochs=resolved.epochs,
            max_steps=resolved.max_steps,
        )
        evaluation = self._plan_evaluation(plan, encoded)
        sampling = choose_samples(
            resolved, encoded.heldout if objective.encoding.asks else [], loaded.tokenizer, context=shape.context
        )
        trained = Trained(
            sum(parameter.numel() for parameter in strategy.trained_parameters(module).values()),
            is_adapter=not strategy.trains_whole_model,
            low_precision=low_precision,
            is_quantized=strategy.quantizes,
        )
        self._refuse_full_disk(trained, encoded, own_rows)
        lanes = self._lanes(forward, encoded, plan)
        fit = self._fit(module, shape, trained, encoded, lanes)
        effective = {
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "compute_type": compute.name,
            "gflops": {"float32": compute.gflops_float32, "bfloat16": compute.gflops_bfloat16},
            "forward": str(forward.way),
            "lanes": lanes,
            "shares_prefix": forward.shares_prefix,
            "micro_batch_tokens": fit.budget_tokens,
            "gradient_checkpointing": fit.gradient_checkpointing,
            "rows": encoded.examples,
            "heldout_rows": len(encoded.heldout),
            "longest_row_tokens": encoded.longest,
            "total_steps": plan.total_steps,
            "evaluate_every_steps": evaluation.every,
            "evaluated_rows": len(evaluation.rows),
            "evaluation_share": round(evaluation.share, 4),
            **strategy.describe(module),
        }
        self.observer.notify(EventType.LOG, message=_told(effective), effective=effective)
        self._start_objective(objective, strategy, module, forward, encoded, plan, accelerator)
        return Prepared(
            loaded,
            module,
            strategy,
            objective,
            encoded,
            forward,
            accelerator,
            plan,
            evaluation,
            sampling,
            shape,
            trained,
            fit,
            effective,
            own_rows,
            chained,
        )

    def _chained(
        self,
        strategy: EWCTrainingStrategy,
        module: nn.Module,
        tokenizer: Any,
        objective: Objective,
        material: EncodedMaterial,
        accelerator: Accelerator,
    ) -> Chained:
        """Take up the chain behind the run, with rows of earlier tasks that were kept or that the model writes."""
        chained = Chained.open(self.spec, strategy, module)
        self._tell_branch(chained)
        if chained.keeps_nothing:
            self.observer.notify(EventType.WARNING, code="no_old_data", message=NO_OLD_DATA)
        writer = Writer(
            module=module,
            tokenizer=tokenizer,
            encoding=objective.encoding,
            autocast=accelerator.autocast,
            like=[material.train[place] for place in range(min(len(material.train), LIKE_ROWS))],
            seed=self.spec.resolved.seed,
            tick=lambda done, total: self.tick(Phase.WRITING_EARLIER_ROWS, done, total),
        )
        return chained.with_generated(writer, kept_in=self.task_dir / GENERATED_ROWS)

    def _start_objective(
        self,
        objective: Objective,
        strategy: TrainingStrategy,
        module: nn.Module,
        forward: LabelForward,
        material: EncodedMaterial,
        plan: StepPlan,
        accelerator: Accelerator,
    ) -> None:
        """Show the objective the model before it is trained, and before a checkpoint is put into it."""
        steps = min(plan.total_steps, plan.steps_per_epoch)
        with strategy.as_before(module):
            objective.start(
                Start(
                    module=module,
                    forward=forward,
                    rows=material.train,
                    examples=sorted({example for step in range(1, steps + 1) for example in plan.rows_of(step)}),
                    autocast=accelerator.autocast,
                    store=self.task_dir / REFERENCE,
                    fingerprint=self._fingerprint(),
                    tick=lambda done, total: self.tick(Phase.SCORING_REFERENCE, done, total),
                )
            )

    def _compute_type(self, shape: ModelShape) -> ComputeChoice:
        decisions = Decisions(self.task_dir, device=str(self.device), is_first_attempt=self.attempt == 1)
        return ComputeChoice.from_json(
            decisions.once(
                "compute_type",
                lambda: choose_compute_type(
                    self.device, hidden=shape.hidden, intermediate=shape.intermediate
                ).to_json(),
            )
        )

    def _tell_split(self, material: EncodedMaterial) -> None:
        if material.split_conversations:
            self.observer.notify(
                EventType.WARNING,
                code="conversations_split",
                message=f"the model's chat template writes earlier turns of {material.split_conversations:,} "
                "conversations differently once later ones follow; each of their answers is an example of its own",
            )

    def _tell_long_rows(self, material: EncodedMaterial) -> None:
        if (told := material.long_rows) is not None:
            self.observer.notify(EventType.WARNING, code="long_rows", message=long_rows_text(told))
        if material.unscored:
            self.observer.notify(
                EventType.WARNING,
                code="long_heldout_rows",
                message=f"{material.unscored:,} held-out rows are longer than the model reads and are not scored",
            )

    def load_base(self, *, device: str | None = None) -> LoadedModel:
        """Open the model the run starts from, in float32."""
        return self._load(self.spec.model, device=device)

    def _load(self, artifact: ModelArtifact, *, device: str | None = None) -> LoadedModel:
        loader = create_model_loader(loader_type(artifact))
        return loader.load(artifact, dtype="float32", device=device or str(self.device))

    def _tell_branch(self, chained: Chained) -> None:
        if siblings := chained.siblings():
            self.observer.notify(
                EventType.WARNING,
                code="chain_branches",
                message=f"another task has gone on from here already ({', '.join(siblings)}): this run is a branch of "
                "the chain beside it; neither changes the other, and neither knows what the other learns",
            )

    def _choose_forward(self, module: nn.Module, material: EncodedMaterial, accelerator: Accelerator) -> LabelForward:
        """Try the fast ways on three rows of different lengths; dropout would be shared along with a prefix."""
        by_length = np.argsort(lengths_of(material.train), kind="stable")
        rows = [material.train[int(by_length[len(by_length) * quarter // 4])] for quarter in range(3)]
        adapter = self.spec.resolved.adapter
        with accelerator.autocast():
            forward = LabelForward.choose(module, rows, share_prefix=adapter is None or adapter.dropout == 0)
        if forward.way is Way.WHOLE:
            self.observer.notify(
                EventType.WARNING,
                code="plain_forward",
                message="this model's code does not allow the faster ways through it; "
                "training takes the model's own, with padding",
            )
        return forward

    def _plan_evaluation(self, plan: StepPlan, material: EncodedMaterial) -> EvaluationPlan:
        """Raises: InvalidConfig for early stopping without held-out rows."""
        resolved = self.spec.resolved
        lengths = [lengths_of(part).tolist() for part in (material.train, material.heldout)]
        if resolved.early_stopping_patience is not None and not material.heldout:
            raise InvalidConfig("early_stopping needs held-out rows to watch, and none can be held out of this data")
        evaluation = plan_evaluation(resolved, plan, *lengths)
        if evaluation.every:
            message = (
                f"{len(evaluation.rows)} held-out rows are scored every {evaluation.every} steps, which adds about "
                f"{evaluation.share:.1%} to the computing"
            )
        else:
            message = "too few steps for evaluations on the way at a small cost; evaluation.every_steps asks for them"
        self.observer.notify(EventType.LOG, message=message)
        return evaluation

    def _lanes(self, forward: LabelForward, material: EncodedMaterial, plan: StepPlan) -> int:
        """Into how many threads a step's rows go; other ways than ours draw random numbers all threads share."""
        if forward.way is not Way.FUSED:
            return 1
        tokens = float(lengths_of(material.train).sum()) / plan.steps_per_epoch
        return lane_count(threads=torch.get_num_threads(), tokens_per_step=tokens)

    def _refuse_full_disk(
        self, trained: Trained, material: EncodedMaterial, own_rows: Sequence[EncodedExample]
    ) -> None:
        """Raises: StorageFull if checkpoints and result would not fit; nothing has been computed yet."""
        resolved = self.spec.resolved
        link = 0
        if resolved.retention is not None:
            totals = [_totals(rows) for rows in (own_rows, material.heldout)]
            link = link_bytes(resolved, trained.parameters, train=totals[0], heldout=totals[1])
        need = DiskNeed.of(trained.parameters, keeps_best=resolved.early_stopping_patience is not None, link_bytes=link)
        written = sum(path.stat().st_size for path in self.task_dir.rglob("*") if path.is_file())
        if (shortage := need.shortage(shutil.disk_usage(self.task_dir).free + written)) is not None:
            raise StorageFull(shortage)

    def _fit(
        self, module: nn.Module, shape: ModelShape, trained: Trained, material: EncodedMaterial, lanes: int
    ) -> FitInForce:
        """Choose, or take over, the micro-batch and whether activations are recomputed; say so where it matters.

        Raises: DoesNotFit after an attempt that ran out of memory with the smallest there is; InvalidConfig if the
        model's code cannot recompute and is to.
        """
        wish = self.spec.resolved.gradient_checkpointing
        longest = material.longest_example
        to_come = optimizer_bytes(trained.parameters) + lane_bytes(trained.parameters, lanes)
        able = bool(getattr(module, "supports_gradient_checkpointing", False))
        if wish == "on" and not able:
            raise InvalidConfig("this model's code cannot recompute activations; gradient_checkpointing 'off' works")
        chosen = choose_fit(
            shape,
            trained,
            available_memory_bytes(self.device) - to_come,
            longest=longest,
            gradient_checkpointing=wish if able else "off",
            device_type=self.device.type,
            costs=self.measured_costs(trained),
        )
        may_recompute = able and wish == "auto"
        fit, failed = next_fit(
            self.task_dir, chosen, attempt=self.attempt, longest=longest, may_recompute=may_recompute
        )
        self._tell_fit(fit, failed, chosen.is_tight, longest)
        keep_fit(self.task_dir, fit)
        self.memory.guards(fit, longest=longest, may_recompute=may_recompute)
        self._hold(fit, shape, trained, longest, lanes)
        if fit.gradient_checkpointing:
            cast(Any, module).activation_checkpointing_enable({"use_reentrant": False})
        return fit

    def _hold(self, fit: FitInForce, shape: ModelShape, trained: Trained, longest: int, lanes: int) -> None:
        if self.hold_memory is None or self.device.type != "cpu":
            return
        largest = BatchShape(rows=1, tokens=fit.budget_tokens, labels=fit.budget_tokens, longest=longest)
        need = memory_need(
            shape,
            trained,
            [largest],
            gradient_checkpointing=fit.gradient_checkpointing,
            costs=self.measured_costs(trained),
            lanes=lanes,
        )
        self.hold_memory(need.peak)

    def _keep_record(self, prepared: Prepared, position: Position, *, evaluation_seconds: float) -> None:
        """Let later plans for this model and method know how it went."""
        if self.spec.measurements is None or not position.trained_tokens:
            return
        record = EarlierRun(
            training_seconds=position.training_seconds,
            trained_tokens=position.trained_tokens,
            gradient_checkpointing=position.gradient_checkpointing,
            start_seconds=self.start_seconds,
            evaluation_seconds=evaluation_seconds,
            evaluated_rows=len(prepared.material.heldout),
        )
        Measurements(self.spec.measurements).keep_run(self._measurement_key, record)

    def measured_costs(self, trained: Trained) -> Costs | None:
        """Return what a micro-batch takes by a measurement for this model and method, if there is one."""
        if self.spec.measurements is None:
            return None
        measured = Measurements(self.spec.measurements).measured(self._measurement_key)
        fits = measured is not None and (measured.compute_type != "float32") == trained.low_precision
        return measured.bytes if measured is not None and fits else None

    @property
    def _measurement_key(self) -> str:
        return measurement_key(self.spec.model.info.content_sha256, self.spec.resolved, self.spec.threads)

    def _tell_fit(self, fit: FitInForce, failed: FitInForce | None, is_tight: bool, longest: int) -> None:
        if failed is not None:
            recomputes = fit.gradient_checkpointing > failed.gradient_checkpointing
            message = (
                f"attempt {failed.attempt} ran out of memory with up to {failed.budget_tokens:,} tokens at once; going "
                f"on with {fit.budget_tokens:,}" + (", recomputing activations" if recomputes else "")
            )
            self.observer.notify(EventType.WARNING, code="smaller_micro_batch", message=message)
        elif fit.gradient_checkpointing and self.spec.resolved.gradient_checkpointing == "auto":
            message = "memory is short: activations are recomputed, which makes steps about a third to a half slower"
            self.observer.notify(EventType.WARNING, code="recomputing", message=message)
        if is_tight:
            self.observer.notify(
                EventType.WARNING,
                code="memory_is_tight",
                message=f"by the estimate the free memory does not suffice for the longest row, {longest:,} tokens; "
                "trying one row at a time. A smaller max_length or fewer other programs would help",
            )

    def _train(self, prepared: Prepared) -> LoopResult:
        resolved = self.spec.resolved
        parameters = prepared.strategy.trained_parameters(prepared.module)
        optimizer = make_optimizer(parameters, weight_decay=resolved.weight_decay)
        checkpoints = Checkpoints(self.task_dir / CHECKPOINTS, fingerprint=self._fingerprint())
        watch = self._steered(prepared, parameters, self._watch(prepared))  # before a checkpoint moves the weights
        position = checkpoints.restore(parameters, optimizer, on_skip=self._tell_skip) if self.attempt > 1 else None
        if position is not None:
            message = f"going on after step {position.step} of {prepared.plan.total_steps}, from its checkpoint"
            self.observer.notify(EventType.LOG, message=message)
        self.start_seconds = time.time() - psutil.Process().create_time()
        return_freed_memory()  # of loading and probing
        self._phase(Phase.TRAINING)
        loop = TrainingLoop(
            module=prepared.module,
            parameters=parameters,
            rows=prepared.material.train,
            objective=prepared.objective,
            forward=prepared.forward,
            plan=prepared.plan,
            schedule=Schedule(
                resolved.learning_rate, prepared.plan.total_steps, resolved.warmup, cast(Any, resolved.schedule)
            ),
            accelerator=prepared.accelerator,
            optimizer=optimizer,
            max_grad_norm=resolved.max_grad_norm,
            checkpoints=checkpoints,
            checkpoint_seconds=resolved.checkpoint_minutes * 60,
            observer=self.observer,
            requested_action=self.requested_action,
            watch=watch,
            regulariser=prepared.chained.regulariser if prepared.chained else None,
            lanes=prepared.effective["lanes"],
        )
        with prepared.forward.held() if prepared.fit.gradient_checkpointing else nullcontext():
            trained = loop.run(_fitted(position or Position(), prepared.fit))
        if trained.stop not in _ENDS:
            self._take_the_best(trained, checkpoints, parameters)
        return trained

    def _tell_skip(self, name: str, reason: str) -> None:
        self.observer.notify(
            EventType.WARNING, code="checkpoint_skipped", message=f"the checkpoint {name!r} is passed over: {reason}"
        )

    def _steered(self, prepared: Prepared, parameters: dict[str, nn.Parameter], watch: Watch) -> Watch:
        """Look at earlier tasks between steps; where the run has a forgetting budget, calibrate lambda and steer it."""
        chained = prepared.chained
        if chained is None or chained.earlier_trace is None:
            return watch
        budget_tokens = min(prepared.fit.budget_tokens, MOST_EVALUATED_TOKENS)
        canaries = Canaries.of(
            chained.replay,
            prepared.module,
            prepared.forward,
            prepared.accelerator.autocast,
            budget_tokens=budget_tokens,
            seed=self.spec.resolved.seed,
        )
        self._phase(Phase.CALIBRATING)
        general = GeneralText.of(canaries, prepared.loaded.tokenizer)
        controller = self._calibrated(prepared, chained, canaries, parameters) if chained.is_budgeted else None
        return CanaryWatch(
            watch,
            canaries,
            general,
            controller,
            chained.retention.general_budget,
            chained.regulariser,
            every=steps_between(prepared.plan.total_steps),
            observer=self.observer,
        )

    def _calibrated(
        self, prepared: Prepared, chained: Chained, canaries: Canaries, parameters: dict[str, nn.Parameter]
    ) -> Controller:
        controller = chained.controller(
            canaries=canaries,
            parameters=parameters,
            objective=prepared.objective,
            material=prepared.material,
            plan=prepared.plan,
            budget_tokens=prepared.fit.budget_tokens,
            kept_in=self.task_dir / CALIBRATION,
            fingerprint=self._fingerprint(),
        )
        self.observer.notify(
            EventType.LOG,
            message=f"a budget of {controller.budget:g} nats a label asks for lambda = {controller.strength:.3g} "
            "by the probe steps; it is steered from here",
        )
        return controller

    def _watch(self, prepared: Prepared) -> HeldoutWatch:
        patience = self.spec.resolved.early_stopping_patience
        return HeldoutWatch(
            module=prepared.module,
            tokenizer=prepared.loaded.tokenizer,
            forward=prepared.forward,
            heldout=prepared.material.heldout,
            plan=prepared.evaluation,
            sampling=prepared.sampling,
            early_stopping=None
            if patience is None
            else EarlyStopping(patience, self.spec.resolved.early_stopping_min_delta),
            autocast=prepared.accelerator.autocast,
            observer=self.observer,
            requested_action=self.requested_action,
        )

    def _take_the_best(
        self, trained: LoopResult, checkpoints: Checkpoints, parameters: dict[str, nn.Parameter]
    ) -> None:
        """Under early stopping go back to the weights with the lowest held-out loss, and say so."""
        position = trained.position
        if position.best_step is None or position.best_step == position.step:
            return
        checkpoints.load_weights(position.best_step, parameters)
        self.observer.notify(
            EventType.WARNING,
            code="best_weights_kept",
            message=f"the weights of step {position.best_step} are kept, whose loss on held-out rows was the lowest "
            f"({position.best_loss:.4f}); training ended after step {position.step}",
        )

    def _conclude(self, prepared: Prepared, trained: LoopResult) -> Outcome:
        stopped_early = trained.stop in (Stop.FINISH, Stop.EARLY)
        if trained.stop is Stop.EARLY:
            self.observer.notify(
                EventType.LOG,
                message=f"early stopping: {trained.position.evaluations_since_best} evaluations in a row without a "
                f"lower loss, after {trained.position.step} of {prepared.plan.total_steps} steps",
            )
        if trained.stop is Stop.FINISH:
            self.observer.notify(
                EventType.WARNING,
                code="stopped_early",
                message=f"stopped as asked after {trained.position.step} of {prepared.plan.total_steps} steps; "
                "what was learned so far is judged and kept",
            )
        effective = prepared.effective | {
            "steps": trained.position.step,
            "micro_batch_tokens": trained.position.budget_tokens,
            "stop": str(trained.stop),
            "kept_step": trained.position.best_step or trained.position.step,
        }
        cost = {
            "training_seconds": round(trained.position.training_seconds, 1),
            "watching_seconds": round(trained.position.watching_seconds, 1),
            "trained_tokens": trained.position.trained_tokens,
            "tokens_per_second": round(
                trained.position.trained_tokens / max(trained.position.training_seconds, 1e-9), 1
            ),
        }
        judging = time.monotonic()
        return_freed_memory()  # judging takes its own
        report, judged = self._judge(prepared, effective, cost)
        self._keep_record(prepared, trained.position, evaluation_seconds=time.monotonic() - judging)
        chain = self._leave_link(prepared, report, judged, training_seconds=trained.position.training_seconds)
        self._phase(Phase.SAVING)
        directory = self.task_dir / RESULT
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        model = keep(
            directory,
            self.spec,
            prepared.strategy,
            prepared.module,
            prepared.loaded.tokenizer,
            task_id=self.task_id,
            report=report,
            effective=effective,
            chain=chain,
        )
        headline = {part: report[part] for part in ("heldout", "verdict", "forgetting")} if report else {}
        result = {"effective": effective, "stopped_early": stopped_early, **cost, **headline, "curve": self._curve()}
        return Outcome(TaskState.SUCCEEDED, self.attempt, model=model | {"directory": RESULT}, result=result)

    def _curve(self) -> list[float]:
        """For lists of runs; a run that is not told into a log has none."""
        try:
            return curve_of(self.task_dir / EVENTS)
        except FileNotFoundError:
            return []

    def _leave_link(
        self, prepared: Prepared, report: dict[str, Any] | None, judged: Judged | None, *, training_seconds: float
    ) -> dict[str, Any] | None:
        """Score the chain's tasks again, tell the report of it, and leave what the next task needs."""
        if prepared.chained is None:
            return None
        heldout = own_rows(
            prepared.material.heldout,
            prepared.own_rows,
            asks=prepared.objective.encoding.asks,
            most_rows=prepared.chained.retention.heldout_rows,
            most_bytes=prepared.chained.retention.max_replay_bytes,
        )
        metrics = self._scorer(prepared, prepared.chained).score(heldout, judged, training_seconds=training_seconds)
        for sentence in told(metrics[MATRIX]):
            self.observer.notify(EventType.LOG, message=sentence)
        if report is not None:
            report["chain"] = metrics[MATRIX]
            write_durably(self.task_dir / REPORT, to_json(report, indent=1))
        left = prepared.chained.leave(
            prepared.own_rows,
            heldout=heldout,
            metrics=metrics,
            module=prepared.module,
            parameters=prepared.strategy.trained_parameters(prepared.module),
            forward=prepared.forward,
            autocast=prepared.accelerator.autocast,
            budget_tokens=prepared.fit.budget_tokens,
            tick=lambda done, total: self.tick(Phase.ESTIMATING_IMPORTANCE, done, total),
        )
        if left["kept_rows"] < left["wanted_rows"]:
            self.observer.notify(
                EventType.WARNING,
                code="replay_capped",
                message=f"{left['kept_rows']:,} of {left['wanted_rows']:,} rows are kept for later tasks: no more "
                "of them, with what the model says, fit into retention.replay.max_megabytes; a larger one or a smaller "
                "replay.top_k keeps more",
            )
        return left

    def _scorer(self, prepared: Prepared, chained: Chained) -> ChainScorer:
        base = self.spec.chain_base
        return ChainScorer(
            task=chained.place.name,
            name=self.spec.name,
            dataset=self.spec.dataset_name,
            earlier=chained.earlier,
            module=prepared.module,
            tokenizer=prepared.loaded.tokenizer,
            autocast=prepared.accelerator.autocast,
            batch_tokens=min(prepared.fit.budget_tokens, MOST_EVALUATED_TOKENS),
            previous_weights=chained.previous_weights,
            load_previous=self.load_base,
            load_base=None if base is None else lambda: self._load(base),
            tick=lambda done, total: self.tick(Phase.SCORING_CHAIN, done, total),
            peak_bytes=lambda: peak_memory_bytes(self.device),
        )

    def _judge(
        self, prepared: Prepared, effective: dict[str, Any], cost: dict[str, Any]
    ) -> tuple[dict[str, Any] | None, Judged | None]:
        """Write ``report.json`` and return it with the scores of general text; None without held-out rows."""
        if not prepared.material.heldout:
            return None, None
        judge = Judge(
            spec=self.spec,
            tokenizer=prepared.loaded.tokenizer,
            heldout=prepared.material.heldout,
            heldout_rejected=prepared.material.heldout_rejected,
            asks=prepared.objective.encoding.asks,
            observer=self.observer,
            tick=self.tick,
            autocast=prepared.accelerator.autocast,
            compute_type=effective["compute_type"],
            batch_tokens=min(prepared.fit.budget_tokens, MOST_EVALUATED_TOKENS),
        )
        scores = judge.judge(prepared.strategy, prepared.module, self.load_base)
        seconds = round(time.monotonic() - self.started, 1)
        cost = {"seconds": seconds, "peak_rss_bytes": peak_memory_bytes(self.device), **cost}
        report = judge.report(scores, configuration=self.spec.resolved.to_json() | effective, cost=cost)
        write_durably(self.task_dir / REPORT, to_json(report, indent=1))
        return report, Judged(scores[0].canaries, scores[1].canaries)

    def tick(self, phase: Phase, done: int, total: int, *, detail: str | None = None) -> None:
        """Tell progress within a phase. Raises: RunStopped if that was asked meanwhile."""
        asked = self.requested_action()
        if asked in _ENDS:
            raise RunStopped(Stop(asked))
        self._phase(phase, **({"detail": detail} if detail else {}), done=done, total=total)

    def _phase(self, phase: Phase, **fields: Any) -> None:
        self.observer.notify(EventType.PHASE, phase=phase, **fields)

    def _fingerprint(self) -> str:
        """What a checkpoint must agree with: what was asked for, weights and data.

        Not the resolved configuration, which belongs to the task as much as its checkpoints do: a field that a newer
        version adds to it would make their newest work worthless.
        """
        parts = [self.spec.request, self.spec.model.info.content_sha256, self.spec.dataset_sha256]
        return hashlib.sha256(to_json(parts)).hexdigest()


def _fitted(position: Position, fit: FitInForce) -> Position:
    """Return the position under the fit in force; what a GPU had to reduce during the attempt stays reduced."""
    budget = min(position.budget_tokens or fit.budget_tokens, fit.budget_tokens)
    return replace(position, budget_tokens=budget, gradient_checkpointing=fit.gradient_checkpointing)


def _totals(rows: Sequence[EncodedExample]) -> RowTotals:
    """Labels as in an even selection of rows: they need not all be read for an estimate."""
    chosen = [rows[place] for place in spread(len(rows), _COUNTED_ROWS)]
    labels = sum(map(label_count, chosen)) / max(len(chosen), 1)
    return RowTotals(len(rows), int(lengths_of(rows).sum()), round(labels * len(rows)))


def _told(effective: dict[str, Any]) -> str:
    return (
        f"{effective['rows']} rows, {effective['total_steps']} steps, {effective['trained_parameters']:,} trained "
        f"parameters, {effective['compute_type']} on {effective['device']} ({effective['threads']} threads, "
        f"{effective['lanes']} lanes), "
        f"{effective['forward']} forward, up to {effective['micro_batch_tokens']:,} tokens at once"
    )
