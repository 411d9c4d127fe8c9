"""From a queued row to a worker at work: claimed, planned, specified on disk, started, recorded, released, in this
order, so that a crash between two of them leaves something recovery understands. Blocks; knows no event loop.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import structlog

from terakoya.domain.events import EventType
from terakoya.domain.ports import EventLog, TaskPlanner, TaskRepository
from terakoya.domain.tasks import Task, TaskKind, TaskState
from terakoya.exceptions import AppException, Conflict, StaleWriter, StorageFull, Unavailable
from terakoya.security.environment import child_environment
from terakoya.storage.files import DataDir
from terakoya.storage.worker_io import discard_outcome, write_spec
from terakoya.tasks.conclusion import OUTPUT_FILE, announce, fail, say_paused
from terakoya.tasks.devices import environment_for
from terakoya.tasks.process import start_worker

log = structlog.get_logger(__name__)
_MORE_ENVIRONMENT: Mapping[TaskKind, tuple[str, ...]] = {
    # A pull runs pip, whose index, certificate and proxy may be set here.
    TaskKind.PULL: ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
}


class Launcher:
    def __init__(
        self,
        repository: TaskRepository,
        event_log: EventLog,
        data_dir: DataDir,
        planners: Mapping[TaskKind, TaskPlanner],
    ) -> None:
        self._repository = repository
        self._event_log = event_log
        self._data_dir = data_dir
        self._planners = planners

    def launch(self, queued: Task, *, device: str | None = None) -> Task:
        """Return the task with its process, or in whatever state it is without one instead.

        Raises: StorageFull, Unavailable, the task being queued again.
        """
        try:
            task = self._repository.claim(queued.id, device=device)
        except Conflict:  # cancelled or paused between the look and the claim
            return self._repository.find(queued.id)
        try:
            self._say_state(task)
            return self._plan_and_start(task)
        except StaleWriter:
            return self._repository.find(task.id)
        except (StorageFull, Unavailable):
            self._say_state(self._repository.release(task))
            raise
        except AppException as error:
            return fail(task, str(error), error.code, repository=self._repository, event_log=self._event_log)
        except Exception as error:
            log.exception("launch_failed", task_id=task.id)
            text = f"the {task.kind} process could not be started: {type(error).__name__}: {error}"
            return fail(task, text, "internal_error", repository=self._repository, event_log=self._event_log)

    def _plan_and_start(self, task: Task) -> Task:
        task_dir = self._data_dir.task(task.id)
        launch = self._planners[task.kind](task, task_dir)
        state = self._repository.find(task.id).state
        if state is TaskState.CANCELLING:
            cancelled = self._repository.finish(task, TaskState.CANCELLED)
            announce(cancelled, repository=self._repository, event_log=self._event_log)
            return cancelled
        if state is TaskState.PAUSING:
            paused = self._repository.pause(task)
            say_paused(paused, self._event_log)
            return paused
        facts = {"task_id": task.id, "kind": task.kind, "attempt": task.attempt, "fencing_token": task.fencing_token}
        discard_outcome(task_dir)
        write_spec(task_dir, launch.spec | facts)
        environment = child_environment(os.environ, more_prefixes=_MORE_ENVIRONMENT.get(task.kind, ()))
        environment |= environment_for(task.device) | dict(launch.secrets)
        worker = start_worker(launch.module, task_dir, task_dir / OUTPUT_FILE, environment)
        try:
            running = self._repository.set_owner(task, worker.identity)
        except BaseException:
            worker.dismiss()
            raise
        worker.release()
        log.info("task_started", task_id=task.id, attempt=task.attempt, pid=worker.identity.pid)
        try:
            self._say_state(running)
        except (StorageFull, OSError) as error:  # it works already: to launch it again would make two of it
            log.warning("state_not_said", task_id=task.id, state=running.state, error=str(error))
        return running

    def _say_state(self, task: Task) -> None:
        self._event_log.append(task.id, EventType.STATE, attempt=task.attempt, state=task.state)
