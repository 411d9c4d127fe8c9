"""The one place that starts, watches and stops worker processes: an asyncio task of the web process, which does all
that blocks in threads. Stopping it leaves the workers running; the next one adopts them. Knows kinds of task only as
planners, works and slots.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from terakoya.domain.ports import EventLog, InlineWork, TaskPlanner, TaskRepository
from terakoya.domain.tasks import TIME_LIMIT, UNWANTED_STATES, ProcessIdentity, Task, TaskKind, TaskLimits, TaskState
from terakoya.exceptions import StaleWriter, StorageFull
from terakoya.storage.control import Action, request_action
from terakoya.storage.files import DataDir
from terakoya.tasks.conclusion import conclude
from terakoya.tasks.deaths import pause_before_restart, restarts_in_a_row
from terakoya.tasks.inline import InlineTasks
from terakoya.tasks.launcher import Launcher
from terakoya.tasks.limits import Breach, LimitWatch, Stopwatch, told
from terakoya.tasks.process import group_is_empty, signal_group, wait_for_exit
from terakoya.tasks.recovery import recover, settle_unsettled
from terakoya.tasks.slots import Place, Slots

log = structlog.get_logger(__name__)
_RETRY_SECONDS = 5.0
_GROUP_POLL_SECONDS = 0.05
_GROUP_PATIENCE_SECONDS = 10.0
Result = TypeVar("Result")


@dataclass(slots=True)
class _Watched:
    task_id: str
    kind: TaskKind
    attempt: int
    owner: ProcessIdentity
    limits: TaskLimits
    stopwatch: Stopwatch
    worked_before: float
    why_killed: str | None = None
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    watcher: asyncio.Task[None] | None = None
    stopper: asyncio.Task[None] | None = None
    guard: asyncio.Task[None] | None = None
    asked: Action | None = None

    @property
    def worked_seconds(self) -> float:
        """By this process."""
        return self.stopwatch.seconds - self.worked_before


class Supervisor:
    def __init__(
        self,
        repository: TaskRepository,
        event_log: EventLog,
        data_dir: DataDir,
        *,
        planners: Mapping[TaskKind, TaskPlanner],
        works: Mapping[TaskKind, InlineWork] | None = None,
        slots: Mapping[TaskKind, int],
        devices: Mapping[TaskKind, Sequence[str]] | None = None,
        cancel_grace_seconds: float,
        terminate_grace_seconds: float,
        restart_pause_seconds: float = 0.0,
    ) -> None:
        """``planners``: of kinds with a process of their own; ``works``: of kinds that this process does itself;
        ``slots``: tasks of a kind at once, on each of its ``devices`` where it has any.
        """
        self._repository = repository
        self._event_log = event_log
        self._data_dir = data_dir
        self._launcher = Launcher(repository, event_log, data_dir, planners)
        self._inline = InlineTasks(repository, event_log, data_dir, works or {})
        self._process_kinds = frozenset(planners)
        self._kinds = (*planners, *(works or {}))
        self._inline_slots = slots
        self._slots = Slots(slots, devices=devices)
        self._restart_pause_seconds = restart_pause_seconds
        self._cancel_grace_seconds = cancel_grace_seconds
        self._terminate_grace_seconds = terminate_grace_seconds
        self._watched: dict[str, _Watched] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._inline.on_end(self._changed)

    def wake(self) -> None:
        """Look at the queue and at cancellations now; from any thread, also before ``run`` and after ``stop``."""
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._changed.set)

    async def run(self) -> None:
        """Recover what an earlier web process left, then start, watch and stop workers until ``stop``."""
        self._loop = asyncio.get_running_loop()
        try:
            adopted = await asyncio.to_thread(
                recover,
                self._repository,
                self._event_log,
                self._data_dir,
                inline=frozenset(self._kinds) - self._process_kinds,
            )
            for task in adopted:
                self._watch(task)
            self._changed.set()
            while not self._stopping.is_set():
                await self._changed.wait()
                self._changed.clear()
                await self._look()
        finally:
            self._loop = None
            self._stopping.set()
            await self._let_go()
            self._stopped.set()

    async def stop(self) -> None:
        """End ``run``, a launch under way first being completed. Workers go on."""
        self._stopping.set()
        self._changed.set()
        if self._loop is not None:
            await self._stopped.wait()

    async def _look(self) -> None:
        try:
            await asyncio.to_thread(settle_unsettled, self._repository, self._event_log, self._data_dir)
            for task in await asyncio.to_thread(
                self._repository.list_tasks, states=UNWANTED_STATES, limit=len(self._watched) + 1000
            ):
                self._stop_worker_of(task)
            await self._let_rest_end()
            for kind in self._kinds:
                await self._fill_slots(kind)
        except Exception as error:  # noqa: BLE001  a full disk, a locked database: the queue is served again when it passes
            log.warning("queue_not_served", error=str(error), retry_seconds=_RETRY_SECONDS)
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._changed.set)

    # -- start -------------------------------------------------------------------------------------

    async def _fill_slots(self, kind: TaskKind) -> None:
        while not self._stopping.is_set() and (place := self._free_place(kind)) is not None:
            queued = await asyncio.to_thread(self._repository.next_queued, kind, without=self._slots.resting)
            if queued is None:
                return
            if kind not in self._process_kinds:
                await self._inline.start(queued)
                continue
            task = await asyncio.to_thread(self._launcher.launch, queued, device=place.device)
            if task.state.is_active:
                self._watch(task)
            if task.state in UNWANTED_STATES:
                self._stop_worker_of(task)

    def _free_place(self, kind: TaskKind) -> Place | None:
        if kind in self._process_kinds:
            return self._slots.free(kind)
        return Place(kind, None) if self._inline.running(kind) < self._inline_slots.get(kind, 1) else None

    async def _rest(self, task: Task) -> None:
        """Keep the place of a task whose worker died, and start it again after a while."""
        deaths = restarts_in_a_row(await asyncio.to_thread(self._event_log.read, task.id))
        seconds = pause_before_restart(deaths, first_seconds=self._restart_pause_seconds)
        asyncio.get_running_loop().call_later(seconds, self._end_rest, task.id)

    def _end_rest(self, task_id: str) -> None:
        if task_id in self._slots.resting:
            self._slots.give_back(task_id)
            self._changed.set()

    async def _let_rest_end(self) -> None:
        """Give back the place of a task that was paused or cancelled while it rested."""
        for task_id in self._slots.resting - self._watched.keys():  # those are being concluded
            if (await asyncio.to_thread(self._repository.find, task_id)).state is not TaskState.QUEUED:
                self._slots.give_back(task_id)

    # -- watch -------------------------------------------------------------------------------------

    def _watch(self, task: Task) -> None:
        assert task.owner is not None
        stopwatch = Stopwatch.of(task, task.owner)
        limits = TaskLimits.of(task.resolved)
        watched = _Watched(task.id, task.kind, task.attempt, task.owner, limits, stopwatch, task.worked_seconds)
        self._watched[task.id] = watched
        self._slots.take(task.id, Place(task.kind, task.device))
        watched.watcher = asyncio.create_task(self._see_to_its_end(watched), name=f"watch {task.id}")
        watched.guard = asyncio.create_task(self._keep_to_limits(watched), name=f"guard {task.id}")

    async def _see_to_its_end(self, watched: _Watched) -> None:
        exit_code = await self._unless_stopping(wait_for_exit(watched.owner))
        if self._stopping.is_set():
            return
        watched.exited.set()
        await self._empty_group(watched)
        self._slots.rest(watched.task_id)  # before its row says queued: whoever serves the queue leaves it alone
        concluded = await self._conclude(watched, exit_code)
        if self._watched.get(watched.task_id) is watched:
            del self._watched[watched.task_id]
            if concluded is not None and concluded.state is TaskState.QUEUED:
                await self._rest(concluded)
            else:
                self._slots.give_back(watched.task_id)
        self._changed.set()

    async def _empty_group(self, watched: _Watched) -> None:
        """End whatever the worker started and left behind, so that nothing holds its memory, device or files."""
        deadline = asyncio.get_running_loop().time() + _GROUP_PATIENCE_SECONDS
        while not await asyncio.to_thread(group_is_empty, watched.owner):
            if asyncio.get_running_loop().time() > deadline:
                log.error("group_not_empty", task_id=watched.task_id, group=watched.owner.pid)
                return
            await asyncio.to_thread(signal_group, watched.owner, signal.SIGKILL)
            await asyncio.sleep(_GROUP_POLL_SECONDS)

    async def _conclude(self, watched: _Watched, exit_code: int | None) -> Task | None:
        task_id, worked_seconds = watched.task_id, watched.worked_seconds
        while not self._stopping.is_set():
            try:
                task = await asyncio.to_thread(self._repository.find, task_id)
                if task.attempt != watched.attempt:
                    return (
                        None  # finished, and resumed before its end could be said: the next attempt is another's to end
                    )
                finished = await asyncio.to_thread(
                    conclude,
                    task,
                    exit_code,
                    repository=self._repository,
                    event_log=self._event_log,
                    data_dir=self._data_dir,
                    worked_seconds=worked_seconds,
                    why=watched.why_killed,
                    restart_pause_seconds=self._restart_pause_seconds,
                )
            except StaleWriter as error:
                log.warning("conclusion_refused", task_id=task_id, reason=str(error))
                return None
            except Exception as error:  # noqa: BLE001  the record cannot be written now; it must be, later
                log.warning("conclusion_postponed", task_id=task_id, error=str(error), retry_seconds=_RETRY_SECONDS)
                await self._unless_stopping(asyncio.sleep(_RETRY_SECONDS))
            else:
                log.info("task_concluded", task_id=task_id, state=finished.state, error_code=finished.error_code)
                return finished
        return None

    # -- stop --------------------------------------------------------------------------------------

    def _stop_worker_of(self, task: Task) -> None:
        self._inline.cancel(task.id)
        watched = self._watched.get(task.id)
        action = Action.PAUSE if task.state is TaskState.PAUSING else Action.CANCEL
        if watched is not None and watched.asked is not action and watched.asked is not Action.CANCEL:
            self._stop(watched, action)

    def _stop(self, watched: _Watched, action: Action, **reason: str) -> None:
        """Ask, then signal. One that was asked to pause may be asked to end instead."""
        if watched.stopper is not None:
            watched.stopper.cancel()
        watched.asked = action
        watched.stopper = asyncio.create_task(
            self._stop_worker(watched, action, **reason), name=f"stop {watched.task_id}"
        )

    async def _stop_worker(self, watched: _Watched, action: Action, **reason: str) -> None:
        """Ask, then SIGTERM, then SIGKILL; its watcher concludes it whichever of them worked."""
        try:
            await asyncio.to_thread(request_action, self._data_dir.task(watched.task_id), action, **reason)
        except (StorageFull, OSError) as error:  # signals need no disk
            log.warning("request_not_written", task_id=watched.task_id, action=action, error=str(error))
        await self._signal(watched, self._cancel_grace_seconds)

    async def _keep_to_limits(self, watched: _Watched) -> None:
        """Stop a worker that has worked for as long as it may, or that gives no sign of life."""
        watch = LimitWatch(watched.limits, watched.stopwatch, self._data_dir.task(watched.task_id))
        while watch.is_needed and not (self._stopping.is_set() or watched.exited.is_set()):
            breach = None if watched.asked else await asyncio.to_thread(watch.look)
            if breach is not None and not watched.exited.is_set():
                await self._end_after(breach, watched)
                return
            await self._unless_stopping(watched.exited.wait(), timeout_seconds=watch.seconds_between_looks)

    async def _end_after(self, breach: Breach, watched: _Watched) -> None:
        text = told(breach, watched.limits)
        log.warning("limit_reached", task_id=watched.task_id, limit=breach.name.lower())
        if breach is Breach.TIME_LIMIT:
            self._stop(watched, Action.CANCEL, error=text, error_code=TIME_LIMIT)
            return
        watched.why_killed = text
        await self._signal(watched, 0.0)  # it hears nothing

    async def _signal(self, watched: _Watched, patience_seconds: float) -> None:
        for grace_seconds, number in (
            (patience_seconds, signal.SIGTERM),
            (self._terminate_grace_seconds, signal.SIGKILL),
        ):
            await self._unless_stopping(watched.exited.wait(), timeout_seconds=grace_seconds)
            if self._stopping.is_set() or watched.exited.is_set():
                return
            log.warning("worker_signalled", task_id=watched.task_id, signal=number.name)
            await asyncio.to_thread(signal_group, watched.owner, number)

    async def _unless_stopping(
        self, work: Coroutine[Any, Any, Result], *, timeout_seconds: float | None = None
    ) -> Result | None:
        """Return the result; None, the work cancelled, if the supervisor is stopped or time is up before."""
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({working, stopping}, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            working.cancel()
            stopping.cancel()

    async def _let_go(self) -> None:
        """Wait for what is being written; every task here ends by itself once ``_stopping`` is set."""
        tasks = [
            task
            for watched in self._watched.values()
            for task in (watched.watcher, watched.stopper, watched.guard)
            if task is not None
        ]
        await asyncio.gather(*tasks, self._inline.let_go())
