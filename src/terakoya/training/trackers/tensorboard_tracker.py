"""A run's curves as TensorBoard event files in its task's folder: ``tensorboard --logdir <data folder>/tasks``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from terakoya.domain.events import EventType
from terakoya.training.trackers.base import Ending, TrackedRun, Tracker, metrics_of

FOLDER = "tensorboard"
_FLUSH_SECONDS = 10


class TensorboardTracker(Tracker):
    def __init__(self, run: TrackedRun) -> None:
        self._run = run
        self._writer: SummaryWriter | None = None
        self._last_step = 0

    def take(self, type: EventType, fields: Mapping[str, Any]) -> None:
        step, metrics = metrics_of(type, fields)
        if step is not None:
            self._last_step = step
        for name, value in metrics.items():
            self._open(step).add_scalar(name, value, self._last_step)
        if type is EventType.SAMPLE:
            for number, sample in enumerate(fields["samples"], start=1):
                text = f"{sample['prompt']}\n\n---\n\n{sample['text']}"
                self._open(fields["step"]).add_text(f"sample {number}", text, fields["step"])

    def close(self, ending: Ending) -> None:
        if self._writer is not None:
            self._writer.close()

    def _open(self, step: int | None) -> SummaryWriter:
        """Open the file at the first figure; those of a broken-off attempt from that step on are taken back."""
        if self._writer is None:
            purge = step if self._run.attempt > 1 else None
            self._writer = SummaryWriter(self._run.task_dir / FOLDER, purge_step=purge, flush_secs=_FLUSH_SECONDS)
            if self._run.attempt == 1:
                settings = json.dumps(dict(self._run.settings), indent=1, ensure_ascii=False)
                self._writer.add_text("settings", f"```json\n{settings}\n```")
        return self._writer
