from __future__ import annotations

from pathlib import Path

from terakoya.domain.events import EventType
from terakoya.storage.event_log import EventWriter
from terakoya.training.curve import POINTS, curve_of


def test_a_long_run_is_told_in_few_points_each_a_mean(tmp_path: Path) -> None:
    log = EventWriter(tmp_path / "events.jsonl", 1)
    for step in range(1, 401):
        log.notify(EventType.STEP, step=step, loss=float(step))
        log.notify(EventType.RESOURCES, rss_bytes=1)
    curve = curve_of(tmp_path / "events.jsonl")
    assert len(curve) == POINTS
    assert curve[0] == sum(range(1, 11)) / 10
    assert curve[-1] == sum(range(391, 401)) / 10


def test_a_later_attempt_replaces_what_was_broken_off(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for attempt, steps in ((1, (1, 2, 3, 4)), (2, (3, 4))):
        for step in steps:
            EventWriter(path, attempt).notify(EventType.STEP, step=step, loss=float(10 * attempt + step))
        with path.open("ab") as file:
            file.write(b'{"type":"step","torn')
    assert curve_of(path) == [11.0, 12.0, 23.0, 24.0]


def test_without_steps_there_is_no_curve(tmp_path: Path) -> None:
    EventWriter(tmp_path / "events.jsonl", 1).notify(EventType.LOG, message="x")
    assert curve_of(tmp_path / "events.jsonl") == []
