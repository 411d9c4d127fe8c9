"""Two tasks of a chain through the whole path: command line, server, supervisor, worker process, registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.servers import Server, run_cli, running_server
from tests.tiny_model import build_tiny_model

from terakoya import Client
from terakoya.domain.tasks import NewModel
from terakoya.storage.database import open_database
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("chain")
    data_dir = DataDir(root / "data").create()
    models = SqlModelRepository(open_database(data_dir), data_dir)
    folder = build_tiny_model(root / "tiny")
    models.save_model(NewModel("tiny", "base", folder, None, "llama", 100_000, "apache-2.0", "folder:made"))
    with running_server(data_dir.root) as running:
        yield running


def rows_file(folder: Path, task: str, answers: tuple[str, str]) -> Path:
    path = folder / f"{task}.jsonl"
    rows = (
        {"prompt": f"{task} {n}?", "completion": answers[n % 2], "split": "heldout" if n % 4 == 0 else "train"}
        for n in range(1, 17)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def trained(server: Server, *arguments: str) -> dict[str, Any]:
    answer = run_cli(server.data_dir, "train", *arguments, "--watch", "--json", timeout=300)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    task: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])["task"]
    return task


def chains(server: Server, *arguments: str) -> dict[str, Any]:
    answer = run_cli(server.data_dir, "chains", *arguments, "--json")
    assert answer.returncode == 0, answer.stderr + answer.stdout
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def events_of(server: Server, name: str) -> list[dict[str, Any]]:
    with Client(server.url) as client:
        (task,) = [task for task in client.tasks.list() if task["name"] == name]
        return client.tasks.events(task["id"])


def test_two_tasks_and_a_branch(server: Server, tmp_path: Path) -> None:
    first = rows_file(tmp_path, "parity", ("even", "odd"))
    second = rows_file(tmp_path, "sides", ("left", "right"))
    options = ("--strategy", "ewc", "--max-steps", "6", "--learning-rate", "0.01")
    trained(server, "tiny", str(first), *options, "--name", "one", "--replay-share", "0.5")
    trained(server, "tiny", str(second), *options, "--name", "two", "--after", "one", "--budget", "0.05")
    trained(server, "one", "sides", *options, "--name", "branch", "--after", "one", "--penalty", "10")
    with Client(server.url) as client:
        models = {model["name"]: model for model in client.models.list()}
        chains = {name: models[name]["card"]["chain"] for name in ("one", "two", "branch")}
        assert chains["one"]["after"] is None
        assert chains["two"]["after"]["name"] == chains["branch"]["after"]["name"] == "one"
        assert len({chain["id"] for chain in chains.values()}) == 1
        assert [chains[name]["number"] for name in ("one", "two", "branch")] == [1, 2, 2]
        assert {models[name]["parent_id"] for name in chains} == {models["tiny"]["id"]}
    links = sorted(path.name for path in (server.data_dir / "chains" / chains["one"]["id"]).iterdir())
    assert [name.rsplit("-", 1)[0] for name in links] == ["001-one", "002-branch", "002-two"]
    told = [event for event in events_of(server, "branch") if event["type"] == "warning"]
    assert any(event["code"] == "chain_branches" and "002-two" in event["message"] for event in told)
    # A dataset that the chain has learned is refused, with the reason.
    again = run_cli(
        server.data_dir, "train", "tiny", "parity", *options, "--after", "two", "--watch", "--json", timeout=300
    )
    assert again.returncode != 0
    assert "has learned this dataset already" in again.stdout + again.stderr
    slide_back(server, models["two"])


def slide_back(server: Server, model: dict[str, Any]) -> None:
    """Points between two models of a chain are scored, and one is kept, registered and opened."""
    shares = ("--share", "0", "--share", "1", "--keep", "0.5", "--name", "half-way")
    answer = run_cli(server.data_dir, "models", "interpolate", "two", *shares, "--json", timeout=300)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    result = json.loads(answer.stdout.splitlines()[-1])["task"]["result"]
    assert [point["share"] for point in result["points"]] == [0, 0.5, 1]
    assert [task["name"] for task in result["points"][0]["tasks"]] == ["sides", "parity"]
    assert all(point["general"] for point in result["points"])
    with Client(server.url) as client:
        kept = client.models.get("half-way")
        assert kept["kind"] == "adapter"
        assert kept["card"]["interpolation"]["share"] == 0.5
        assert kept["card"]["interpolation"]["after"]["id"] == model["id"]
        assert kept["lineage"][-1] == kept["id"]
        answers = [event for event in client.compare("sides 3?", ["half-way"], max_tokens=8) if event.get("finished")]
        assert len(answers) == 1
    told = run_cli(server.data_dir, "models", "interpolate", "two", "--keep", "1.5", timeout=60)
    assert told.returncode != 0


def test_the_chains_commands(server: Server, tmp_path: Path) -> None:
    third = rows_file(tmp_path, "heights", ("high", "low"))
    added = run_cli(server.data_dir, "datasets", "add", str(third))
    assert added.returncode == 0, added.stderr
    (listed,) = chains(server, "list")["chains"]
    assert (listed["name"], listed["tasks"], sorted(listed["heads"])) == ("one", 3, ["branch", "two"])
    unclear = run_cli(server.data_dir, "chains", "extend", listed["id"], "heights")
    assert unclear.returncode == 1
    assert "branches into" in unclear.stderr
    second = run_cli(server.data_dir, "chains", "extend", "one", "heights")
    assert second.returncode == 1
    assert "branch=true" in second.stderr
    options = ("--max-steps", "4", "--penalty", "1", "--name", "three", "--watch", "--json")
    answer = run_cli(server.data_dir, "chains", "extend", "two", "heights", *options, timeout=300)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    shown = chains(server, "show", "three")
    assert [link["number"] for link in shown["links"]] == [1, 2, 2, 3]
    assert shown["verified"]["intact"]
    table = run_cli(server.data_dir, "chains", "show", "three")
    assert "Every byte is as it was written." in table.stdout
    fisher = server.data_dir / "chains" / shown["id"] / shown["links"][0]["link"] / "fisher.safetensors"
    kept = fisher.read_bytes()
    fisher.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    broken = run_cli(server.data_dir, "chains", "verify", "three")
    assert broken.returncode == 1
    assert f"{shown['links'][0]['link']}: fisher.safetensors is changed" in broken.stdout
    fisher.write_bytes(kept)
    erased = chains(server, "erase", "three", "--yes")
    assert erased["rows"] > 0
    assert any(cost["code"] == "no_budget" for cost in erased["costs"])
    refused = run_cli(server.data_dir, "chains", "delete", "three", "--yes")
    assert refused.returncode == 1
    assert chains(server, "delete", "three", "--models", "--yes") == {"deleted": shown["id"]}
    assert chains(server, "list") == {"chains": []}
    assert not (server.data_dir / "chains" / shown["id"]).exists()
