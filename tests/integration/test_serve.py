"""Starting and stopping the web process for real."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.servers import Server, run_cli, running_server

from terakoya import Client
from terakoya.storage.files import DataDir

linux_only = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("serve") / "data") as running:
        yield running


def test_a_server_says_where_it_is_and_answers_there(server: Server) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
    with Client(server.url) as client:
        assert client.is_ready()
        assert client.models.list() == []


@linux_only
def test_the_web_process_maps_no_torch_and_stays_small(server: Server) -> None:
    with Client(server.url) as client:
        client.runs.options()
        client.datasets.list()
        client.system()
    process = Path(f"/proc/{server.process.pid}")
    assert "torch" not in (process / "maps").read_text()
    resident_kb = int(re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())[1])  # type: ignore[index]
    assert resident_kb < 250_000


def test_a_second_server_on_the_same_data_folder_names_the_first(server: Server) -> None:
    answer = run_cli(server.data_dir, "serve", "--port", "0")
    assert answer.returncode == 1
    assert server.url in answer.stderr
    assert "TERAKOYA_DATA_DIR" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_commands_find_the_server_of_their_data_folder(server: Server) -> None:
    answer = run_cli(server.data_dir, "datasets", "list", "--json")
    assert answer.returncode == 0
    assert answer.stderr == ""
    assert "datasets" in json.loads(answer.stdout)


def test_doctor_shows_the_running_server(server: Server) -> None:
    facts = json.loads(run_cli(server.data_dir, "doctor", "--json").stdout)
    assert facts["server"] == server.url
    assert facts["server_view"]["version"]
    assert facts["pytorch"]


def test_a_taken_port_is_named_with_a_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = run_cli(tmp_path / "data", "serve", "--port", str(port))
    assert answer.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken" in answer.stderr
    assert f"make run PORT={port + 1}" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert DataDir(tmp_path / "data").running_server() is None


def test_other_machines_are_not_served_without_a_key(tmp_path: Path) -> None:
    answer = run_cli(tmp_path / "data", "serve", "--port", "0", "--host", "0.0.0.0")
    assert answer.returncode == 1
    assert "TERAKOYA_API_KEYS" in answer.stderr
    assert not (tmp_path / "data" / "terakoya.db").exists()


@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [("TERAKOYA_PORT", "80x", "TERAKOYA_PORT='80x'"), ("TERAKOYA_LOG_LEVEL", "loud", "TERAKOYA_LOG_LEVEL='loud'")],
)
def test_a_bad_setting_is_named(tmp_path: Path, variable: str, value: str, shown: str) -> None:
    answer = run_cli(tmp_path / "data", "serve", **{variable: value})
    assert answer.returncode == 1
    assert shown in answer.stderr
    assert "Traceback" not in answer.stderr


def test_with_a_key_only_its_bearer_is_served(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", TERAKOYA_API_KEYS="first-key,second-key") as running:
        assert run_cli(tmp_path / "data", "models", "list", TERAKOYA_API_KEY="second-key").returncode == 0
        refused = run_cli(tmp_path / "data", "models", "list", "--json", TERAKOYA_API_KEY="wrong")
        assert refused.returncode == 1
        assert json.loads(refused.stdout)["code"] == "unauthorized"
        running.process.terminate()
        assert running.process.wait(20) == 0, "SIGTERM is an orderly end"


def test_a_command_without_a_server_starts_one_and_ends_it(tmp_path: Path) -> None:
    answer = run_cli(tmp_path / "data", "models", "list")
    assert answer.returncode == 0
    assert "starting one for this command" in answer.stderr
    assert "no models yet" in answer.stdout
    assert DataDir(tmp_path / "data").running_server() is None
