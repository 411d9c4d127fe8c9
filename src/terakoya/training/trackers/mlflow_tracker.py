"""A run's curves and settings in the MLflow store that the administrator has named. Sends figures and settings only:
no rows, no samples, no models.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from terakoya.domain.events import EventType
from terakoya.exceptions import InvalidConfig
from terakoya.training.trackers.base import Ending, TrackedRun, Tracker, flat, metrics_of

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing is sent to anyone but the store
os.environ.setdefault("DO_NOT_TRACK", "true")

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

EXPERIMENT = "terakoya"
RUN_FILE = "mlflow.json"
_SEND_SECONDS = 5.0
_MOST_AT_ONCE = 1000
"""Metrics in one call, MLflow's own limit."""
_LONGEST_VALUE = 6000


class MlflowTracker(Tracker):
    def __init__(self, run: TrackedRun) -> None:
        if run.mlflow_uri is None:
            raise InvalidConfig("no MLflow store is named")
        self._client = MlflowClient(tracking_uri=run.mlflow_uri)
        self._waiting: list[Metric] = []
        self._sent = time.monotonic()
        self._last_step = 0
        path = run.task_dir / RUN_FILE
        if path.is_file():
            self._id = str(json.loads(path.read_bytes())["run_id"])
            self._client.update_run(self._id, status="RUNNING")
            return
        found = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found else self._client.create_experiment(EXPERIMENT)
        self._id = self._client.create_run(
            experiment, run_name=run.name, tags={"terakoya.task": run.task_id}
        ).info.run_id
        path.write_text(json.dumps({"run_id": self._id}))
        params = [Param(name, str(value)[:_LONGEST_VALUE]) for name, value in flat(run.settings).items()]
        for start in range(0, len(params), 100):  # the store's limit a call
            self._client.log_batch(self._id, params=params[start : start + 100])

    def take(self, type: EventType, fields: Mapping[str, Any]) -> None:
        step, metrics = metrics_of(type, fields)
        if step is not None:
            self._last_step = step
        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, self._last_step) for name, value in metrics.items()]
        is_full = len(self._waiting) >= _MOST_AT_ONCE - 10
        if is_full or time.monotonic() - self._sent > _SEND_SECONDS:
            self._send()

    def close(self, ending: Ending) -> None:
        self._send()
        self._client.set_terminated(self._id, status=str(ending))

    def _send(self) -> None:
        if self._waiting:
            self._client.log_batch(self._id, metrics=self._waiting)
        self._waiting = []
        self._sent = time.monotonic()
