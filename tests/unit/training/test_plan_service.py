"""Plans over a real tiny model, real SQLite and the real child process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.chain_links import add_chained_model
from tests.tiny_model import build_tiny_model

from terakoya.domain.tasks import NewModel
from terakoya.exceptions import ModelNotFound
from terakoya.training.measurements import EarlierRun, Measurements, measurement_key
from terakoya.training.plan_service import PlanService, machine_of
from terakoya.training.planning import Machine
from terakoya.training.request import TrainingRequest
from web_app import web_client

MIB = 2**20
ROWS = b"".join(
    b'{"prompt": "Number %d?", "completion": "%s"}\n' % (number, b"long answer " * 20 if number == 7 else b"even")
    for number in range(1, 41)
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    root = tmp_path_factory.mktemp("plan")
    with web_client(root / "data") as client:
        container: Any = client.app.state.container  # type: ignore[attr-defined]
        for name, template in (("tiny", {}), ("untemplated", {"chat_template": None})):
            folder = build_tiny_model(root / name, **template)
            made = NewModel(name, "base", folder, None, "llama", 100_000, "apache-2.0", "folder:tiny")
            container.models._repository.save_model(made)
        client.put("/api/datasets/numbers", content=ROWS)
        yield client


def planned(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/api/train/plan?measure=false", json={"model": "tiny", "dataset": "numbers"} | fields)
    assert answer.status_code == 200, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


def test_a_plan_says_what_the_run_needs_and_starts_nothing(client: TestClient) -> None:
    plan = planned(client, batch_size=4, epochs=2)
    assert plan["ready"] is True
    assert plan["basis"] == "shape"
    assert plan["tokens"]["exact"] is True
    assert plan["tokens"]["rows"] + plan["tokens"]["heldout_rows"] == 40
    assert plan["steps"]["total"] == 2 * -(-plan["tokens"]["rows"] // 4)
    assert 0 < plan["memory"]["activations"] < plan["memory"]["peak"] < plan["memory"]["total"]
    assert plan["disk"]["needed_bytes"] > 12 * 3 * plan["steps"]["trained_parameters"]
    assert client.get("/api/train").json()["runs"] == []


def test_samples_show_each_token_and_which_are_learned(client: TestClient) -> None:
    sample = planned(client)["samples"][0]
    learned = "".join(each["text"] for each in sample["beginning"] if each["trained"])
    read = "".join(each["text"] for each in sample["beginning"] if not each["trained"])
    assert learned == "even<|im_end|>"
    assert read == f"<|im_start|>user\nNumber {sample['row']}?<|im_end|>\n<|im_start|>assistant\n"
    assert sample["trained_tokens"] == 5
    assert planned(client)["samples"][-1]["row"] == 7


def test_long_rows_are_reported_and_the_remedies_work(client: TestClient) -> None:
    refused = planned(client, max_length=100)
    assert refused["ready"] is False
    assert [each["code"] for each in refused["problems"]] == ["long_rows"]
    assert refused["long_rows"]["numbers"] == [7]
    assert refused["long_rows"]["lost_share"] > 0
    assert planned(client, max_length=refused["long_rows"]["lengthen_to"])["ready"] is True
    for policy, rows in (("drop", 0), ("truncate", 1), ("split", 4)):
        plan = planned(client, max_length=100, long_rows=policy, epochs=1, batch_size=1)
        assert plan["ready"] is True
        assert [each["code"] for each in plan["warnings"] if each["code"] == "long_rows"] == ["long_rows"]
        assert plan["long_rows"]["pieces"] == rows
        assert plan["steps"]["total"] == refused["tokens"]["rows"] - 1 + rows


@pytest.mark.parametrize("max_length", [8, 12, 16, 24, 32, 50])
def test_rows_split_into_short_pieces_are_planned(client: TestClient, max_length: int) -> None:
    plan = planned(client, max_length=max_length, long_rows="split", epochs=1, batch_size=4)
    assert plan["steps"]["total"] > 0
    assert plan["steps"]["micro_batches"] > 0


def test_a_second_plan_of_the_same_data_reads_nothing_again(client: TestClient) -> None:
    planned(client)
    started = time.monotonic()
    planned(client, learning_rate=0.001, batch_size=3)
    assert time.monotonic() - started < 1.0


def test_a_model_without_a_template_is_planned_plainly(client: TestClient) -> None:
    plan = planned(client, model="untemplated")
    assert plan["ready"] is True
    sample = plan["samples"][0]
    text = "".join(each["text"] for each in sample["beginning"])
    assert text == f"Number {sample['row']}?\neven<|im_end|>"


def service(client: TestClient, **machine: int) -> PlanService:
    """Plans for a machine that differs from this one."""
    container: Any = client.app.state.container  # type: ignore[attr-defined]

    def found(data_dir: Path) -> Machine:
        return replace(machine_of(data_dir), device="cpu", **machine)  # type: ignore[arg-type]

    return PlanService(
        container.training,
        container.models._repository,
        cache=container.data_dir.cache,
        data_dir=container.data_dir.root,
        find_machine=found,
    )


def test_too_little_memory_or_disk_is_a_reason_not_to_start(client: TestClient) -> None:
    request = TrainingRequest(model="tiny", dataset="numbers")
    poor = service(client, available_bytes=100 * MIB, free_disk_bytes=MIB)
    plan = poor.plan(request, measure=False)
    assert [each.code for each in plan.problems] == ["not_enough_memory", "storage_full"]
    assert "0.00 GB are free" in plan.problems[1].message
    rich = service(client, available_bytes=2**36, free_disk_bytes=2**36).plan(request, measure=False)
    assert rich.problems == ()


def test_what_cannot_be_started_cannot_be_planned(client: TestClient) -> None:
    answer = client.post("/api/train/plan", json={"model": "tiny", "dataset": "numbers", "epochs": 1, "max_steps": 1})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_config")
    container: Any = client.app.state.container  # type: ignore[attr-defined]
    with pytest.raises(ModelNotFound):
        container.plans.plan(TrainingRequest(model="none", dataset="numbers"))


def test_a_pair_is_planned_as_two_rows_and_a_text_as_its_windows(client: TestClient) -> None:
    pair = b'{"prompt": "Number %d?", "chosen": "even", "rejected": "odd", "split": "%s"}\n'
    client.put(
        "/api/datasets/pairs", content=b"".join(pair % (n, b"heldout" if n > 9 else b"train") for n in range(12))
    )
    client.put("/api/datasets/texts", content=b'{"text": "%s"}\n{"text": "%s"}\n' % (b"a" * 150, b"b" * 20))

    pairs = planned(client, dataset="pairs", epochs=1, batch_size=4)
    assert pairs["ready"] is True
    assert pairs["steps"]["total"] == 3  # ten pairs in fours
    assert pairs["tokens"]["rows"] == 20
    assert {sample["trained_tokens"] for sample in pairs["samples"]} <= {4, 5}  # "odd", "even", each with its end

    options = {"epochs": 1, "batch_size": 1, "max_length": 64, "evaluation": {"heldout_fraction": 0.5}}
    texts = planned(client, dataset="texts", **options)
    assert texts["ready"] is True
    assert texts["steps"]["total"] in (1, 3)  # one document is held out; the long one has three windows
    assert texts["steps"]["total"] == texts["tokens"]["rows"]


def test_an_earlier_run_with_the_same_model_and_method_tells_how_long_it_takes(client: TestClient) -> None:
    container: Any = client.app.state.container  # type: ignore[attr-defined]
    request = TrainingRequest(model="tiny", dataset="numbers", epochs=2, strategy="full")
    checked = container.training.check(request)
    earlier = EarlierRun(
        training_seconds=50.0,
        trained_tokens=1000,
        gradient_checkpointing=False,
        start_seconds=9.0,
        evaluation_seconds=8.0,
        evaluated_rows=4,
    )
    key = measurement_key(checked.model.content_sha256, checked.resolved, 0)
    Measurements(container.data_dir.cache / "measurements").keep_run(key, earlier)
    plan = planned(client, epochs=2, strategy="full")
    assert plan["basis"] == "earlier_run"
    assert plan["time"]["training_seconds"] == pytest.approx(2 * plan["tokens"]["total"] * 0.05)
    assert plan["time"]["start_seconds"] == 9.0
    assert plan["time"]["evaluation_seconds"] == pytest.approx(2.0 * plan["tokens"]["heldout_rows"])


def test_a_task_of_a_chain_is_planned_with_the_rows_it_rehearses_and_the_link_it_leaves(
    client: TestClient, tmp_path: Path
) -> None:
    container: Any = client.app.state.container  # type: ignore[attr-defined]
    repository = container.models._repository
    add_chained_model(
        *(repository, container.data_dir, tmp_path / "first", "first"),
        chain_id="chain_01kb2x0000000000000000000a",
        base=repository.find("tiny"),
    )
    options: dict[str, Any] = {"strategy": "ewc", "after": "first", "batch_size": 4, "epochs": 1}
    plan = planned(client, **options)
    rows = plan["tokens"]["rows"]
    assert plan["ready"] is True
    assert plan["steps"]["replayed_rows"] == round(rows / 3)  # a quarter of all
    assert plan["steps"]["total"] == -(-(rows + round(rows / 3)) // 4)
    assert plan["disk"]["link_bytes"] > 4 * plan["steps"]["trained_parameters"] / plan["resolved"]["adapter"]["rank"]
    none = planned(client, **options, retention={"regulariser": {"strength": 1}, "replay": {"mix": 0}})
    assert (none["steps"]["replayed_rows"], none["steps"]["total"]) == (0, -(-rows // 4))
    assert planned(client, batch_size=4)["disk"]["link_bytes"] == 0
