"""A real worker without torch: does what its specification's ``do`` says, by the same protocol as a trainer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from terakoya.domain.events import EventType
from terakoya.domain.tasks import Outcome, TaskState
from terakoya.exceptions import TrainingError
from terakoya.storage.worker_io import WorkerContext, run_worker


def main(context: WorkerContext) -> Outcome:
    print("worker at work", flush=True)
    context.observer.notify(EventType.PHASE, phase="training", pid=os.getpid())
    return globals()[context.spec["do"]](context)


def succeed(context: WorkerContext) -> Outcome:
    result = context.task_dir / "result"
    result.mkdir(exist_ok=True)
    (result / "model.safetensors").write_bytes(context.spec.get("weights", "weights").encode())
    (result / "config.json").write_text('{"model_type": "llama"}')
    model = {
        "name": context.spec.get("name", "tuned"),
        "kind": "full",
        "directory": "result",
        "parent_id": None,
        "architecture": "llama",
        "parameters": 7,
        "license": "apache-2.0",
        "source": f"task:{context.spec['task_id']}",
        "card": {},
    }
    return Outcome(TaskState.SUCCEEDED, context.attempt, model=model, result={"loss": float("nan")})


def succeed_when_told(context: WorkerContext) -> Outcome:
    while not (context.task_dir / "go").exists():
        time.sleep(0.01)
    return succeed(context)


def obey(context: WorkerContext) -> Outcome:
    while (action := context.requested_action()) is None:
        time.sleep(0.01)
    if action == "finish":
        return succeed(context)
    return Outcome(TaskState.CANCELLED, context.attempt)


def rest(context: WorkerContext) -> Outcome:
    """Work until paused; the next attempt succeeds."""
    if context.attempt > 1:
        return succeed(context)
    while (action := context.requested_action()) is None:
        time.sleep(0.01)
    return Outcome(TaskState.PAUSED if action == "pause" else TaskState.CANCELLED, context.attempt)


def die(context: WorkerContext) -> Outcome:
    """Die in the first ``times`` attempts; ``checkpoints``: after one that reaches further each time."""
    if context.attempt > context.spec["times"]:
        return succeed(context)
    if context.spec.get("checkpoints"):
        context.observer.notify(EventType.CHECKPOINT, step=context.attempt, path="step", size_bytes=1)
    match context.spec.get("how", "kill"):
        case "memory":
            return Outcome(TaskState.FAILED, context.attempt, error="too little memory", error_code="out_of_memory")
        case "crash":
            os._exit(7)
        case "disk":
            os._exit(74)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def fall_silent(context: WorkerContext) -> Outcome:
    """Hang in the first attempt, deaf to SIGTERM; ``beats``: ask for orders all the while."""
    if context.attempt > 1:
        return succeed(context)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        if context.spec.get("beats"):
            context.requested_action()
        time.sleep(0.02)


def ignore(context: WorkerContext) -> Outcome:
    """Ignore requests and SIGTERM, and so does a grandchild."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    context.observer.notify(EventType.LOG, message=str(child.pid))
    while True:
        time.sleep(1)


def leave_a_child(context: WorkerContext) -> Outcome:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    context.observer.notify(EventType.LOG, message=str(child.pid))
    return succeed(context)


def refuse(context: WorkerContext) -> Outcome:
    raise TrainingError("rank 0 is no rank")


def stumble(context: WorkerContext) -> Outcome:
    raise ZeroDivisionError("a bug")


if __name__ == "__main__":
    run_worker(main)
