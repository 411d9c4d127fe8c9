"""Tasks that the web process does itself, on its event loop: started, cancelled, ended, and left for the next web
process when this one stops. Their process is the web process: recovery finds it gone and queues them again, unless
it is the task that ends it. Knows the work only as a coroutine.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from terakoya.domain.events import EventType
from terakoya.domain.ports import EventLog, InlineWork, TaskRepository
from terakoya.domain.tasks import Task, TaskKind, TaskState
from terakoya.exceptions import AppException, Conflict, StaleWriter, StorageFull, Unavailable
from terakoya.storage.event_log import EVENTS_FILE, EventWriter
from terakoya.storage.files import DataDir
from terakoya.tasks.conclusion import announce, queue_again, say_paused
from terakoya.tasks.process import identity_of

log = structlog.get_logger(__name__)
_RETRY_SECONDS = 5.0


@dataclass(slots=True)
class _Working:
    kind: TaskKind
    coroutine: asyncio.Task[None]


class InlineTasks:
    def __init__(
        self,
        repository: TaskRepository,
        event_log: EventLog,
        data_dir: DataDir,
        works: Mapping[TaskKind, InlineWork],
    ) -> None:
        self._repository = repository
        self._event_log = event_log
        self._data_dir = data_dir
        self._works = works
        self._working: dict[str, _Working] = {}
        self._is_stopping = False
        self._changed = asyncio.Event()

    def on_end(self, changed: asyncio.Event) -> None:
        """Have ``changed`` set whenever a task has ended and its slot is free."""
        self._changed = changed

    def running(self, kind: TaskKind) -> int:
        return sum(working.kind is kind for working in self._working.values())

    async def start(self, queued: Task) -> None:
        """Claim it and let it work. One that was cancelled since it was looked at stays so.

        Raises: StorageFull, Unavailable.
        """
        try:
            task = await asyncio.to_thread(self._claim, queued)
        except (Conflict, StaleWriter):
            return
        coroutine = asyncio.create_task(self._see_to_its_end(task), name=f"work {task.id}")
        self._working[task.id] = _Working(task.kind, coroutine)
        await asyncio.sleep(0)  # a coroutine that is cancelled before its first step would never see to anything

    def cancel(self, task_id: str) -> None:
        """Stop its work at the next await; none here is no error."""
        if (working := self._working.get(task_id)) is not None:
            working.coroutine.cancel()

    async def let_go(self) -> None:
        """Stop all work, each task queued again for the next web process."""
        self._is_stopping = True
        coroutines = [working.coroutine for working in self._working.values()]
        for coroutine in coroutines:
            coroutine.cancel()
        await asyncio.gather(*coroutines, return_exceptions=True)

    def _claim(self, queued: Task) -> Task:
        claimed = self._repository.claim(queued.id)
        running = self._repository.set_owner(claimed, identity_of(os.getpid()))
        self._event_log.append(running.id, EventType.STATE, attempt=running.attempt, state=running.state)
        return running

    async def _see_to_its_end(self, task: Task) -> None:
        try:
            await self._work(task)
        except StaleWriter as error:
            log.warning("conclusion_refused", task_id=task.id, reason=str(error))
        finally:
            del self._working[task.id]
            self._changed.set()

    async def _work(self, task: Task) -> None:
        observer = EventWriter(self._data_dir.task(task.id) / EVENTS_FILE, task.attempt)
        try:
            result = await self._works[task.kind](task, observer)
        except asyncio.CancelledError:
            await self._recorded(self._after_cancellation, task)
        except AppException as error:
            await self._recorded(self._end, task, TaskState.FAILED, error=str(error), error_code=error.code)
        except Exception as error:
            log.exception("task_failed", task_id=task.id)
            text = f"{type(error).__name__}: {error}"
            await self._recorded(self._end, task, TaskState.FAILED, error=text, error_code="internal_error")
        else:
            await self._recorded(self._end, task, TaskState.SUCCEEDED, result=result)

    async def _recorded(self, write: Callable[..., object], task: Task, *arguments: Any, **fields: Any) -> None:
        """Write how it ended, again and again while a full disk or a locked database forbids it."""
        while True:
            try:
                await asyncio.to_thread(write, task, *arguments, **fields)
            except (StorageFull, Unavailable, OSError) as error:
                log.warning("conclusion_postponed", task_id=task.id, error=str(error), retry_seconds=_RETRY_SECONDS)
                if self._is_stopping:
                    return  # the next web process finds its owner gone and queues it again
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    def _after_cancellation(self, task: Task) -> None:
        state = self._repository.find(task.id).state
        if state is TaskState.CANCELLING:
            self._end(task, TaskState.CANCELLED)
        elif state is TaskState.PAUSING:
            say_paused(self._repository.pause(task), self._event_log)
        else:
            queue_again(self._repository.release(task), self._event_log)

    def _end(
        self,
        task: Task,
        state: TaskState,
        *,
        error: str | None = None,
        error_code: str | None = None,
        result: dict[str, Any] | None = None,
    ) -> Task:
        finished = self._repository.finish(task, state, error=error, error_code=error_code, result=result)
        announce(finished, repository=self._repository, event_log=self._event_log)
        log.info("task_finished", task_id=task.id, state=finished.state, error_code=finished.error_code)
        return finished
