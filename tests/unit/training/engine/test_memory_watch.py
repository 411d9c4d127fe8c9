from __future__ import annotations

import threading
import time

import pytest

from terakoya.training.engine.memory_watch import MemoryWatch, low_water_bytes
from terakoya.utils.host_memory import host_total_bytes

MIB = 2**20


class Falling:
    """Memory as the watch sees it."""

    def __init__(self) -> None:
        self.room = 1000 * MIB
        self.low: list[int] = []
        self.critical = threading.Event()

    def watch(self) -> MemoryWatch:
        return MemoryWatch(
            on_low=self.low.append,
            on_critical=lambda _: self.critical.set(),
            room=lambda: self.room,
            low_bytes=200 * MIB,
            poll_seconds=0.001,
        )

    def wait_until_low(self, times: int) -> None:
        deadline = time.monotonic() + 5
        while len(self.low) < times and time.monotonic() < deadline:
            time.sleep(0.001)


@pytest.fixture
def memory() -> Falling:
    return Falling()


def test_low_is_told_once_and_again_when_asked(memory: Falling) -> None:
    with memory.watch() as watch:
        time.sleep(0.02)
        assert memory.low == []
        memory.room = 150 * MIB
        memory.wait_until_low(1)
        time.sleep(0.02)
        assert memory.low == [150 * MIB]
        watch.again()
        memory.wait_until_low(2)
        assert memory.low == [150 * MIB] * 2
        assert not memory.critical.is_set()


def test_when_there_is_no_more_time_that_is_told(memory: Falling) -> None:
    with memory.watch():
        memory.room = 40 * MIB
        assert memory.critical.wait(5)
    assert memory.low == [40 * MIB]


def test_what_is_low_follows_the_machine() -> None:
    assert 192 * MIB <= low_water_bytes() < host_total_bytes()
