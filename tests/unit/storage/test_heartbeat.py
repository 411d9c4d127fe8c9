from __future__ import annotations

import time
from pathlib import Path

import pytest

from terakoya.domain.events import EventType, Phase
from terakoya.storage import heartbeat
from terakoya.storage.heartbeat import Heartbeat, pulse


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.05)


def test_events_and_questions_are_signs_of_life_at_most_so_often(tmp_path: Path) -> None:
    beating = Heartbeat(tmp_path)
    before = pulse(tmp_path)
    beating.hear(EventType.STEP, None)
    first = pulse(tmp_path)
    assert first != before
    beating.beat()
    assert pulse(tmp_path) == first
    time.sleep(0.06)
    beating.beat()
    assert pulse(tmp_path) != first


def test_resources_are_none_for_their_thread_outlives_a_hang(tmp_path: Path) -> None:
    beating = Heartbeat(tmp_path)
    beating.hear(EventType.RESOURCES, None)
    assert pulse(tmp_path) == pulse(tmp_path / "nowhere")


def beats_while(tmp_path: Path, phase: Phase, work: object) -> bool:
    beating = Heartbeat(tmp_path)
    beating.start()
    beating.hear(EventType.PHASE, phase)
    before = pulse(tmp_path)
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        work()  # type: ignore[operator]
    return pulse(tmp_path) != before


def compute() -> None:
    sum(range(1000))


def hang() -> None:
    time.sleep(0.4)


@pytest.mark.parametrize(
    ("phase", "work", "beats"),
    [
        (Phase.LOADING_MODEL, compute, True),
        (Phase.LOADING_MODEL, hang, False),
        (Phase.TRAINING, compute, False),  # there the loop itself asks for orders, or hangs
    ],
)
def test_a_quiet_phase_lives_while_it_computes(tmp_path: Path, phase: Phase, work: object, beats: bool) -> None:
    assert beats_while(tmp_path, phase, work) is beats


def test_a_disk_without_room_is_no_reason_to_die(tmp_path: Path) -> None:
    Heartbeat(tmp_path / "gone").beat()
