"""The queue, pausing and the list of restarts in a real browser over a real server. No model is trained: it finds
a run whose process is a sleeping stand-in, which it adopts, and others that wait behind it.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from integration.servers import Server, running_server
from terakoya.domain.tasks import TaskKind
from terakoya.storage.database import open_database
from terakoya.storage.event_log import FileEventLog
from terakoya.storage.files import DataDir
from terakoya.storage.task_repository import SqlTaskRepository
from terakoya.tasks.process import identity_of
from terakoya.tasks.service import TaskService

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@dataclass(frozen=True)
class Scene:
    server: Server
    working: str
    waiting: list[str]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    data_dir = DataDir(tmp_path / "data").create()
    engine = open_database(data_dir)
    rows, log = SqlTaskRepository(engine, data_dir), FileEventLog(data_dir)
    service = TaskService(rows, log, data_dir)
    resolved = {"strategy": "lora", "model": "gone", "dataset": "gone"}
    tasks = [
        service.submit(TaskKind.TRAINING, name=name, request={"model": "m", "dataset": "d"}, resolved=resolved)
        for name in ("at-work", "first", "second")
    ]
    sleeper = subprocess.Popen(["sleep", "300"], start_new_session=True)
    working = rows.set_owner(rows.claim(tasks[0].id), identity_of(sleeper.pid))
    (data_dir.task(working.id) / "begun").write_text(str(working.fencing_token))
    (data_dir.task(working.id) / "spec.json").write_text("{}")
    log.append(working.id, "state", attempt=1, state="running")
    log.append(
        working.id, "warning", attempt=1, code="restarted", message="the training process died (signal 9)", restart=1
    )
    engine.dispose()
    try:
        with running_server(
            data_dir.root, TERAKOYA_CANCEL_GRACE_SECONDS="0", TERAKOYA_TRAINING_DEVICES="cpu"
        ) as server:
            yield Scene(server, working.id, [task.id for task in tasks[1:]])
    finally:
        sleeper.send_signal(signal.SIGKILL)
        sleeper.wait()


def test_the_queue_is_seen_and_put_in_another_order(scene: Scene, page: Page, complaints: list[str]) -> None:
    page.goto(f"{scene.server.url}/runs")
    names = page.locator("#queue-list li a")
    expect(names).to_have_text(["first", "second"])
    page.get_by_role("button", name="second to the front").click()
    expect(names).to_have_text(["second", "first"])

    page.goto(f"{scene.server.url}/train/{scene.waiting[0]}")
    expect(page.locator("#order-place")).to_have_text("Number 2 of 2 runs that wait.")
    page.get_by_label("Priority").fill("7")
    page.get_by_role("button", name="Change").click()
    expect(page.locator("#order-place")).to_have_text("Number 1 of 2 runs that wait.")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator("#run-state")).to_have_text("paused")
    expect(page.locator("#order-place")).to_have_text("It waits until it is resumed.")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#run-state")).to_have_text("queued")
    assert complaints == []


def test_a_run_at_work_is_paused_and_its_restarts_are_told(scene: Scene, page: Page, complaints: list[str]) -> None:
    page.goto(f"{scene.server.url}/train/{scene.working}")
    expect(page.locator("#restarts-list li")).to_have_count(1)
    expect(page.locator("#restarts-list")).to_contain_text("signal 9")
    expect(page.locator("#warnings .alert")).to_have_count(0)
    expect(page.locator("#order")).to_be_hidden()
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator("#run-state")).to_have_text("paused", timeout=20_000)
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert complaints == []
