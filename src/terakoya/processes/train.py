"""Entry point of a training process: ``python -m terakoya.processes.train <task directory>``.

Says that it lives before the libraries load, which takes seconds; everything else is ``training/run.py``'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from terakoya.domain.events import EventType, Phase
from terakoya.domain.tasks import Outcome
from terakoya.storage.files import MEMORY_LEASES
from terakoya.storage.memory_leases import give_back, hold
from terakoya.storage.worker_io import WorkerContext, run_worker

if TYPE_CHECKING:
    from terakoya.training.spec import RunSpec


def main(context: WorkerContext) -> Outcome:
    context.observer.notify(EventType.PHASE, phase=Phase.LOADING_LIBRARIES)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of the libraries would bury the last lines of the log

    from terakoya.training.engine.fit import least_memory
    from terakoya.training.spec import RunSpec

    spec, task_id = RunSpec.from_json(context.spec), str(context.spec["task_id"])
    leases = spec.evaluation_cache.parent / MEMORY_LEASES
    # The model server closes what it does not use while the libraries load, and opens nothing that would not fit.
    hold(leases, task_id, least_memory(spec.model.root.info.parameters, is_adapter=spec.resolved.adapter is not None))
    try:
        return _trained(context, spec, task_id, hold_memory=lambda size_bytes: hold(leases, task_id, size_bytes))
    finally:
        give_back(leases, task_id)


def _trained(context: WorkerContext, spec: RunSpec, task_id: str, *, hold_memory: Callable[[int], None]) -> Outcome:
    from terakoya.training.run import TrainingRun

    run = TrainingRun(
        spec,
        task_id=task_id,
        task_dir=context.task_dir,
        attempt=context.attempt,
        observer=context.observer,
        requested_action=context.requested_action,
        give_up=context.give_up,
        hold_memory=hold_memory,
    )
    return run.execute()


if __name__ == "__main__":
    run_worker(main)
