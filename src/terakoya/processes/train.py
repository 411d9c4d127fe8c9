"""Entry point of a training process: ``python -m terakoya.processes.train <task directory>``.

Says that it lives before the libraries load, which takes seconds; everything else is ``training/run.py``'s.
"""

from __future__ import annotations

import os

from terakoya.domain.events import EventType, Phase
from terakoya.domain.tasks import Outcome
from terakoya.storage.worker_io import WorkerContext, run_worker


def main(context: WorkerContext) -> Outcome:
    context.observer.notify(EventType.PHASE, phase=Phase.LOADING_LIBRARIES)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of the libraries would bury the last lines of the log

    from terakoya.training.run import TrainingRun
    from terakoya.training.spec import RunSpec

    run = TrainingRun(
        RunSpec.from_json(context.spec),
        task_id=context.spec["task_id"],
        task_dir=context.task_dir,
        attempt=context.attempt,
        observer=context.observer,
        requested_action=context.requested_action,
        give_up=context.give_up,
    )
    return run.execute()


if __name__ == "__main__":
    run_worker(main)
