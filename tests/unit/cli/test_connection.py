"""Which server a command talks to; servers themselves are in tests/integration/test_serve.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from terakoya.cli import connection
from terakoya.cli.settings import read_settings
from terakoya.cli.train import _file_named
from terakoya.exceptions import InvalidConfig, InvalidDataset
from terakoya.storage.files import DataDir

ELSEWHERE = "http://127.0.0.1:8050"


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataDir:
    for name in ("TERAKOYA_URL", "TERAKOYA_PORT", "TERAKOYA_API_KEY", "TERAKOYA_API_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERAKOYA_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(connection, "_answers", lambda url: url == ELSEWHERE)
    return DataDir(tmp_path).create()


def found(data_dir: DataDir) -> str | None:
    return connection._find(read_settings(), data_dir)


def test_an_address_from_the_environment_wins(data_dir: DataDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERAKOYA_URL", "http://elsewhere:1")
    with data_dir.lock("http://127.0.0.1:2"):
        assert found(data_dir) == "http://elsewhere:1"


def test_the_server_that_has_the_data_folder_is_found(data_dir: DataDir) -> None:
    with data_dir.lock("http://127.0.0.1:2"):
        assert found(data_dir) == "http://127.0.0.1:2"
    assert found(data_dir) is None


def test_a_chosen_data_folder_never_leads_to_another_ones_server(data_dir: DataDir) -> None:
    assert found(data_dir) is None


def test_without_a_chosen_folder_the_default_port_will_do(
    data_dir: DataDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TERAKOYA_DATA_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert found(data_dir) == ELSEWHERE


def test_keys_are_taken_from_the_environment(data_dir: DataDir, monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection._api_key(read_settings()) is None
    monkeypatch.setenv("TERAKOYA_API_KEYS", "servers-first,servers-second")
    assert connection._api_key(read_settings()) == "servers-first"
    monkeypatch.setenv("TERAKOYA_API_KEY", "mine")
    assert connection._api_key(read_settings()) == "mine"


def test_a_bad_setting_names_its_variable_and_value(data_dir: DataDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERAKOYA_PORT", "80x")
    with pytest.raises(InvalidConfig, match=r"TERAKOYA_PORT='80x'"):
        read_settings()
    with pytest.raises(InvalidConfig, match=r"--port=99999"):
        read_settings(port=99999)


def test_a_dataset_argument_that_is_a_file_is_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}")
    assert _file_named("rows.jsonl") == Path("rows.jsonl")
    assert _file_named("inbox-sample") is None
    for missing in ("other.jsonl", "folder/rows"):
        with pytest.raises(InvalidDataset, match="no file"):
            _file_named(missing)
