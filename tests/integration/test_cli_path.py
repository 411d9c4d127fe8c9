"""The path of a person at a terminal, on a real server with the real starter model."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.servers import COMMAND, STARTER, Server, environment, run_cli, running_server

from terakoya import Client

ROWS = [
    {"prompt": f"Customer {number} asks: {question}", "completion": answer, "split": split}
    for number, split in ((1, "train"), (2, "train"), (3, "heldout"))
    for question, answer in (
        ("where is my parcel?", "delivery"),
        ("can I get my money back?", "refund"),
        ("when do you open?", "hours"),
    )
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, folder_with_starter: Callable[[Path], Path]) -> Iterator[Server]:
    with running_server(folder_with_starter(tmp_path_factory.mktemp("path") / "data")) as running:
        yield running


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def lines(answer: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_file_becomes_a_model_with_a_report_card(server: Server, rows_file: Path) -> None:
    arguments = ("train", STARTER, str(rows_file), "--watch", "--max-steps", "2", "--name", "sorter")
    answer = run_cli(server.data_dir, *arguments, "--rank", "4", "--json", timeout=500)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    *events, last = lines(answer)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["step"] for event in events if event["type"] == "step"] == [1, 2]
    assert events[-1]["type"] == "finished"
    report = last["task"]["report"]
    assert report["heldout"]["examples"] == 3

    listed = lines(run_cli(server.data_dir, "models", "list", "--json"))[0]["models"]
    by_name = {model["name"]: model for model in listed}
    assert by_name["sorter"]["parent_id"] == by_name[STARTER]["id"]

    shown = run_cli(server.data_dir, "tasks", "show", last["task"]["id"])
    assert "exact match" in shown.stdout

    answers = run_cli(server.data_dir, "models", "compare", "When?", STARTER, "sorter", "--max-tokens", "4")
    assert answers.returncode == 0, answers.stderr
    assert f"[{STARTER}]" in answers.stdout
    assert "[sorter]" in answers.stdout


@contextmanager
def killed_at_the_end(process: subprocess.Popen[str]) -> Iterator[None]:
    with process:
        try:
            yield
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_interrupted_watch_leaves_the_run_going(server: Server, rows_file: Path) -> None:
    arguments = ("train", STARTER, str(rows_file), "--watch", "--max-steps", "500", "--dataset-name", "long")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background has it ignored
    try:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment(server.data_dir),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with Client(server.url) as client, killed_at_the_end(process):
        task = wait_for(lambda: next((t for t in client.tasks.list() if t["state"] == "running"), None))
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "the run goes on" in stderr
        assert client.tasks.get(task["id"])["state"] == "running"

        assert run_cli(server.data_dir, "tasks", "cancel", task["id"]).returncode == 0
        watched = run_cli(server.data_dir, "tasks", "watch", task["id"])
        assert watched.returncode == 1
        assert f"terakoya tasks resume {task['id']}" in watched.stderr
        assert client.tasks.get(task["id"])["state"] == "cancelled"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--rank", "0"), 2, "--rank"),
        (("--learning-rate", "abc"), 2, "--learning-rate"),
        (("--learning-rate", "-1"), 1, "learning_rate"),
        (("--strategy", "magic"), 1, "magic"),
        (("--epochs", "1", "--max-steps", "1"), 1, "contradict"),
    ],
)
def test_a_wrong_option_is_told_and_leaves_nothing(
    server: Server, rows_file: Path, options: tuple[str, ...], status: int, message: str
) -> None:
    before = state_of(server)
    answer = run_cli(server.data_dir, "train", STARTER, str(rows_file), "--dataset-name", "unused", *options)
    assert answer.returncode == status
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr
    assert state_of(server) == before


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not json\n", "line 1"),
        (b'{"prompt": "without an answer"}\n', "line 1"),
        (b"", "no rows"),
    ],
)
def test_a_bad_file_is_told_and_leaves_nothing(server: Server, tmp_path: Path, content: bytes, message: str) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(content)
    before = state_of(server)
    answer = run_cli(server.data_dir, "datasets", "add", str(bad), "--json")
    assert answer.returncode == 1
    (error,) = lines(answer)
    assert error["code"] == "invalid_dataset"
    assert message in error["error"]
    assert state_of(server) == before


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("train", "no-such-model", "inbox-sample"), "model_not_found"),
        (("train", STARTER, "no-such-data"), "dataset_not_found"),
        (("train", STARTER, "nowhere.jsonl"), "invalid_dataset"),
        (("tasks", "watch", "task_00000000000000000000000000"), "task_not_found"),
        (("models", "show", "../../etc/passwd"), "not_found"),
    ],
)
def test_what_is_not_there_is_told_by_its_code(server: Server, arguments: tuple[str, ...], code: str) -> None:
    answer = run_cli(server.data_dir, *arguments, "--json")
    assert answer.returncode == 1
    assert lines(answer)[0]["code"].endswith(code)


def state_of(server: Server) -> tuple[list[str], list[str]]:
    with Client(server.url) as client:
        return [task["id"] for task in client.tasks.list()], [data["id"] for data in client.datasets.list()]


def wait_for(find: Any, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := find()) is not None:
            return found
        time.sleep(0.1)
    raise AssertionError("did not happen in time")
