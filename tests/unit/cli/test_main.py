from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import terakoya
from terakoya.cli import main
from terakoya.exceptions import Conflict

NOUNS = ("serve", "train", "tasks", "models", "datasets", "chat", "demo", "doctor")


def test_help_loads_nothing_heavy() -> None:
    # Time depends on the machine; what is imported does not. benchmarks/startup.py has the seconds.
    heavy = ("rich", "httpx", "pydantic", "fastapi", "sqlalchemy", "torch", "babel", "websockets")
    code = (
        "import sys; sys.argv = ['terakoya', '--help']\n"
        "from terakoya.cli.main import app\n"
        "app(standalone_mode=False)\n"
        f"print(sorted(set({heavy}) & set(sys.modules)), file=sys.stderr)"
    )
    environment = {"LANG": "C", "PATH": ""}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert answer.stderr.strip() == "[]"


def test_every_noun_has_help() -> None:
    for noun in NOUNS:
        answer = CliRunner().invoke(main.app, [noun, "--help"])
        assert answer.exit_code == 0
        assert "--help" in answer.output


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(main.app, ["--version"]).output.strip() == terakoya.__version__


@pytest.mark.parametrize(
    "arguments",
    [
        ["teach"],
        ["train", "model"],
        ["train", "model", "dataset", "--rank", "0"],
        ["train", "model", "dataset", "--learning-rate", "abc"],
        ["train", "model", "dataset", "--ewc", "1"],
        ["models", "compare", "only a prompt"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(main.app, arguments).exit_code == 2


def _run_main(monkeypatch: pytest.MonkeyPatch, error: BaseException, *arguments: str) -> int:
    def fail() -> None:
        raise error

    monkeypatch.setattr("terakoya.cli.settings.read_settings", fail)
    monkeypatch.setattr(sys, "argv", ["terakoya", *arguments])
    with pytest.raises(SystemExit) as exit_status:
        main.main()
    assert isinstance(exit_status.value.code, int)
    return exit_status.value.code


def test_an_error_is_a_message_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run_main(monkeypatch, Conflict("the name 'a' is taken"), "doctor") == 1
    captured = capsys.readouterr()
    assert captured.err == "Error: the name 'a' is taken\n"
    assert captured.out == ""


def test_under_json_an_error_is_json_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run_main(monkeypatch, Conflict("the name 'a' is taken"), "doctor", "--json") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"error": "the name 'a' is taken", "code": "conflict"}
    assert captured.err == ""


def test_an_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _run_main(monkeypatch, KeyboardInterrupt(), "doctor") == 130
