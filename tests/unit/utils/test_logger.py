from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from terakoya.utils.logger import configure_logging


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_line_is_an_event_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", as_json=True)

    structlog.get_logger().info("run_finished", run_id="task_1", seconds=2.5, name="日誌")
    structlog.get_logger().debug("hidden")

    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "run_finished", "level": "info", "run_id": "task_1", "seconds": 2.5, "name": "日誌"}


def test_a_library_speaks_through_a_field_of_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", as_json=True)

    logging.getLogger("uvicorn").warning("port %d", 8050)
    logging.getLogger("uvicorn").info("hidden")

    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["logger"], line["message"]) == ("library_message", "uvicorn", "port 8050")


@pytest.mark.parametrize(("level", "heard"), [("info", False), ("debug", True)])
def test_a_chatty_library_is_heard_only_when_debugging(
    capsys: pytest.CaptureFixture[str], level: Literal["info", "debug"], heard: bool
) -> None:
    configure_logging(level, as_json=True)

    logging.getLogger("uvicorn.error").info("connection open")

    assert ("connection open" in capsys.readouterr().err) is heard


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_shows_no_values_of_variables(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    configure_logging("info", as_json=as_json)
    api_key = "planted-" + "secret"

    try:
        raise ValueError(len(api_key))
    except ValueError:
        structlog.get_logger().exception("failed")

    output = capsys.readouterr().err
    assert "ValueError" in output
    assert "planted-secret" not in output


def test_configuring_twice_gives_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", as_json=True)
    configure_logging("info", as_json=True)

    structlog.get_logger().info("once")

    assert capsys.readouterr().err.count("once") == 1
