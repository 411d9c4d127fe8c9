"""Shows a task's events as they come: a live line on a terminal, plain lines elsewhere, one JSON object a line under
``--json``. Knows the event vocabulary and no server.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from terakoya.cli.output import console, duration_text, json_wanted, print_json, remark
from terakoya.cli.texts import _, explain, shared

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Event = dict[str, Any]
PLAIN_LINE_SECONDS = 10.0


class View(Protocol):
    def show(self, event: Event) -> None: ...
    def __enter__(self) -> View: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def show_events(events: Iterable[Event]) -> Event | None:
    """Show every event and return the last ``finished`` one, None if they end without it."""
    finished: Event | None = None
    with _view() as view:
        for event in events:
            view.show(event)
            if event["type"] == "finished":
                finished = event
    return finished


def _view() -> View:
    if json_wanted():
        return JsonView()
    return LiveView() if console(stderr=True).is_terminal else PlainView()


class _NoResources:
    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class JsonView(_NoResources):
    def show(self, event: Event) -> None:
        print_json(event)


class PlainView(_NoResources):
    """For pipes and CI: each new phase, each remark, and a step every ten seconds."""

    def __init__(self) -> None:
        self._last_step_at = float("-inf")
        self._phase = ""

    def show(self, event: Event) -> None:
        if event["type"] == "phase" and event["phase"] != self._phase:
            self._phase = event["phase"]
            remark(_phase_text(event))
        elif event["type"] == "step":
            now = time.monotonic()
            if now - self._last_step_at >= PLAIN_LINE_SECONDS or event["step"] == event["total_steps"]:
                self._last_step_at = now
                remark(
                    _("step %(step)s of %(total)s", step=event["step"], total=event["total_steps"]) + _figures(event)
                )
        elif (text := _remark_text(event)) is not None:
            remark(text)


class LiveView:
    """One line that moves: phase, bar, loss, tokens per second, time left; remarks scroll above it."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[count]}{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            console=console(stderr=True),
            transient=False,
        )
        self._line: TaskID = self._progress.add_task(shared("phase.queued"), total=None, count="", figures="")
        self._phase = ""

    def show(self, event: Event) -> None:
        kind = event["type"]
        if kind == "phase":
            if event["phase"] != self._phase:
                self._phase = event["phase"]
                self._progress.update(self._line, description=_phase_text(event), figures="")
            self._move(event.get("done"), event.get("total"))
        elif kind == "step":
            self._move(event["step"], event["total_steps"])
            self._progress.update(self._line, figures=_figures(event))
        elif kind == "eval" and event.get("total"):
            self._move(event.get("done"), event["total"])
            self._progress.update(self._line, figures="")
        elif (text := _remark_text(event)) is not None:
            self._progress.console.print(text, markup=False)

    def _move(self, done: int | None, total: int | None) -> None:
        if total:
            completed = done or 0
            count = f"{completed:,}/{total:,}"
            self._progress.update(self._line, completed=completed, total=total, count=count)
        else:
            self._progress.update(self._line, completed=0, total=None, count="")

    def __enter__(self) -> LiveView:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            # Nothing is left to wait for: no spinner, no half bar.
            self._progress.update(self._line, visible=False)
        self._progress.stop()


def _phase_text(event: Event) -> str:
    text = shared(f"phase.{event['phase']}")
    return f"{text} ({event['detail']})" if event.get("detail") else text


def _figures(event: Event) -> str:
    parts = []
    if (loss := event.get("loss")) is not None:
        parts.append(_("loss %(loss)s", loss=f"{loss:.3f}"))
    if (rate := event.get("tokens_per_second")) is not None:
        parts.append(_("%(rate)s tokens/s", rate=f"{rate:,.0f}"))
    if (left := event.get("eta_seconds")) is not None:
        parts.append(_("%(time)s left", time=duration_text(left)))
    return "".join(f"  {part}" for part in parts)


def _remark_text(event: Event) -> str | None:
    if event["type"] == "warning":
        return _("Warning: %(message)s", message=explain("warning", event.get("code", ""), event.get("message", "")))
    if event["type"] == "eval" and event.get("when") == "during":
        text = _("step %(step)s: held-out loss %(loss)s", step=event["step"], loss=f"{event['loss']:.3f}")
        return text + (" *" if event.get("is_best") else "")
    if event["type"] == "checkpoint":
        return _("checkpoint at step %(step)s", step=event.get("step"))
    return None
