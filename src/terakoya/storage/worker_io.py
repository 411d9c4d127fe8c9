"""The worker's side of the task protocol: its specification in, its outcome out, and the one place of a worker that
catches every exception. Light to import; knows nothing of the database, nor of what the worker does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from terakoya.domain.events import EventType
from terakoya.domain.tasks import NewModel, Outcome, TaskState
from terakoya.exceptions import AppException, ModelLoadError, StorageFull
from terakoya.storage.control import Action, requested_action
from terakoya.storage.event_log import EVENTS_FILE, EventWriter
from terakoya.storage.files import write_durably
from terakoya.storage.heartbeat import Heartbeat
from terakoya.storage.json_text import to_json

GATE_VARIABLE = "TERAKOYA_GATE_FD"
"""A pipe on which the supervisor says go once it has recorded the process. If it dies before, the worker reads
end-of-file and leaves, so no process works that the database does not know."""
NOT_RELEASED = 75  # EX_TEMPFAIL
DISK_WAS_FULL = 74  # EX_IOERR
"""Exit status of a worker whose outcome found no room: all it could still say."""
_SPEC, _OUTCOME, _BEGUN = "spec.json", "outcome.json", "begun"


class _AudibleWriter(EventWriter):
    """An EventWriter whose every event is a sign of life too."""

    def __init__(self, path: Path, attempt: int, heartbeat: Heartbeat) -> None:
        super().__init__(path, attempt)
        self._heartbeat = heartbeat

    def notify(self, type: EventType, /, **fields: Any) -> None:
        super().notify(type, **fields)
        self._heartbeat.hear(type, fields.get("phase"))


@dataclass(frozen=True, slots=True)
class WorkerContext:
    task_dir: Path
    spec: dict[str, Any]
    attempt: int
    observer: EventWriter
    heartbeat: Heartbeat = field(repr=False)

    def give_up(self, error: AppException) -> None:
        """Record the error and end this process now, without unwinding, from any thread: memory may be gone any
        moment.
        """
        with contextlib.suppress(StorageFull, OSError):
            write_outcome(self.task_dir, _failed(error, self.attempt))
        os._exit(1)

    def requested_action(self) -> Action | None:
        """To be asked at each step boundary or tick of progress; a worker that asks lives."""
        self.heartbeat.beat()
        return requested_action(self.task_dir)


def _failed(error: AppException, attempt: int) -> Outcome:
    return Outcome(TaskState.FAILED, attempt, error=str(error), error_code=error.code)


def run_worker(main: Callable[[WorkerContext], Outcome]) -> NoReturn:
    """Run ``main`` on the task directory named on the command line, record its outcome and exit."""
    task_dir = Path(sys.argv[1]).resolve()
    if not _released():
        sys.exit(NOT_RELEASED)
    spec = read_spec(task_dir)
    attempt = int(spec["attempt"])
    (task_dir / _BEGUN).write_text(str(spec["fencing_token"]))
    heartbeat = Heartbeat(task_dir)
    heartbeat.start()
    observer = _AudibleWriter(task_dir / EVENTS_FILE, attempt, heartbeat)
    context = WorkerContext(task_dir, spec, attempt, observer, heartbeat)
    try:
        outcome = main(context)
    except AppException as error:
        traceback.print_exc()
        outcome = _failed(error, attempt)
    except Exception as error:  # noqa: BLE001  the one place of a worker where every failure is recorded
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        outcome = Outcome(TaskState.FAILED, attempt, error=text, error_code="worker_error")
    try:
        write_outcome(task_dir, outcome)
    except StorageFull:
        sys.exit(DISK_WAS_FULL)
    sys.exit(1 if outcome.status is TaskState.FAILED else 0)


def _released() -> bool:
    descriptor = os.environ.pop(GATE_VARIABLE, None)
    if descriptor is None:
        return True
    with os.fdopen(int(descriptor), "rb", buffering=0) as gate:
        return gate.read(1) == b"\n"


def has_begun(task_dir: Path, fencing_token: int) -> bool:
    """Whether the worker of this launch was released and got as far as its own code."""
    try:
        return (task_dir / _BEGUN).read_text() == str(fencing_token)
    except FileNotFoundError:
        return False


def write_spec(task_dir: Path, spec: dict[str, Any]) -> None:
    write_durably(task_dir / _SPEC, to_json(spec, indent=1))


def read_spec(task_dir: Path) -> dict[str, Any]:
    """Return the launch's specification, with task_id, kind, attempt and fencing_token in it."""
    spec: dict[str, Any] = json.loads((task_dir / _SPEC).read_bytes())
    return spec


def write_outcome(task_dir: Path, outcome: Outcome) -> None:
    write_durably(task_dir / _OUTCOME, to_json(dataclasses.asdict(outcome), indent=1))


def read_outcome(task_dir: Path, attempt: int) -> Outcome | None:
    """Return the last word of this attempt, None if it had none."""
    try:
        fields = json.loads((task_dir / _OUTCOME).read_bytes())
    except FileNotFoundError:
        return None
    outcome = Outcome(**(fields | {"status": TaskState(fields["status"])}))
    is_last_word = outcome.status.is_final or outcome.status is TaskState.PAUSED
    return outcome if outcome.attempt == attempt and is_last_word else None


def discard_outcome(task_dir: Path) -> None:
    (task_dir / _OUTCOME).unlink(missing_ok=True)


def model_of(outcome: Outcome, task_dir: Path) -> NewModel | None:
    """Return the model a worker left. Raises: ModelLoadError if it points out of its task's directory."""
    if outcome.model is None:
        return None
    directory = (task_dir / outcome.model["directory"]).resolve()
    if task_dir.resolve() not in directory.parents:
        raise ModelLoadError(f"the outcome names a model outside its task: {outcome.model['directory']!r}")
    return NewModel(**(outcome.model | {"directory": directory}))
