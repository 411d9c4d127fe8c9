"""Prometheus metrics, read when they are asked for; nothing is counted in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from terakoya.tasks.service import TaskService

LIMIT = 1000
"""Older tasks are not looked at."""


class TaskCollector(Collector):
    def __init__(self, tasks: TaskService) -> None:
        self._tasks = tasks

    def collect(self) -> Iterator[Metric]:
        gauge = GaugeMetricFamily("terakoya_tasks", "Unfinished tasks by kind and state", labels=["kind", "state"])
        unfinished = [task for task in self._tasks.list(limit=LIMIT) if not task.state.is_final]
        for (kind, state), number in Counter((task.kind, task.state) for task in unfinished).items():
            gauge.add_metric([kind, state], number)
        yield gauge


def task_registry(tasks: TaskService) -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(TaskCollector(tasks))
    return registry
