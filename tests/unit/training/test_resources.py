from __future__ import annotations

import threading
import time

import torch
from tests.unit.training.conftest import Recorder

from terakoya.domain.events import EventType
from terakoya.exceptions import StorageFull
from terakoya.training.resources import ResourceWatch

CPU = torch.device("cpu")


def test_what_a_run_takes_is_told_while_it_lasts_and_not_after(recorder: Recorder) -> None:
    with ResourceWatch(recorder, CPU, seconds=0.02):
        deadline = time.monotonic() + 5
        while len(recorder.of(EventType.RESOURCES)) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
    told = recorder.of(EventType.RESOURCES)
    assert len(told) >= 3
    assert told[0]["rss_bytes"] > 10_000_000
    assert told[0]["available_bytes"] > 0
    assert told[0]["cores"] >= 1
    time.sleep(0.05)
    assert len(recorder.of(EventType.RESOURCES)) == len(told)
    assert not [each for each in threading.enumerate() if each.name == "resources"]


def test_a_full_disk_ends_the_telling_without_ending_the_run() -> None:
    class Full:
        calls = 0

        def notify(self, type: EventType, /, **fields: object) -> None:
            self.calls += 1
            raise StorageFull("no room")

    observer = Full()
    with ResourceWatch(observer, CPU, seconds=0.01):
        time.sleep(0.1)
    assert observer.calls == 1
