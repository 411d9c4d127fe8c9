"""The routes over real services: shapes of answers and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from terakoya.domain.tasks import TaskKind
from web_app import ROWS, web_client

JSON = {"content-type": "application/json"}


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[TestClient]:
    with web_client(tmp_path / "data", upload_limit_bytes=100_000) as client:
        yield client


def test_a_dataset_goes_in_as_form_or_raw_body_and_out_again(fresh: TestClient) -> None:
    form = fresh.post("/api/datasets", files={"file": ("../../inbox.jsonl", ROWS)}, data={"name": "by form"})
    raw = fresh.put("/api/datasets/受信箱", content=ROWS)
    unnamed = fresh.post("/api/datasets", files={"file": ("../../march.jsonl", ROWS)})
    assert [answer.status_code for answer in (form, raw, unnamed)] == [201, 201, 201]
    assert [answer.json()["name"] for answer in (form, raw, unnamed)] == ["by form", "受信箱", "march"]
    assert form.json()["rows"] == 12
    dataset_id = raw.json()["id"]
    assert fresh.get(f"/api/datasets/{dataset_id}").json() == raw.json()
    row = fresh.get(f"/api/datasets/{dataset_id}/preview?limit=1").json()["rows"][0]
    assert row["messages"][1] == {"role": "assistant", "content": "order_status"}
    assert fresh.delete(f"/api/datasets/{dataset_id}").status_code == 204
    assert fresh.get(f"/api/datasets/{dataset_id}").json()["code"] == "dataset_not_found"


def test_columns_are_mapped_by_form_and_query(fresh: TestClient) -> None:
    table = "分割,質問,回答\ntest,どこ?,ここ\n,いつ?,いま\n".encode("cp932")
    mapping = {"prompt": "質問", "answer": "回答", "split": "分割"}
    form = fresh.post("/api/datasets", files={"file": ("表.csv.gz", table)}, data={"mapping": json.dumps(mapping)})
    raw = fresh.put(
        "/api/datasets/raw", content=table, params={"mapping": ",".join(f"{k}={v}" for k, v in mapping.items())}
    )
    for answer in (form, raw):
        assert answer.status_code == 201, answer.text
        assert (answer.json()["rows"], answer.json()["heldout_rows"]) == (2, 1)
        assert answer.json()["kind"] == "conversation"
    assert form.json()["name"] == "表"
    report = fresh.get("/api/datasets/raw/report").json()
    assert report["mapping"] == mapping
    assert report["file"] == {
        "name": None,
        "format": "csv",
        "compression": None,
        "encoding": "cp932",
        "size_bytes": len(table),
        "columns": ["分割", "質問", "回答"],
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mapping": "prompt"}, "prompt=COLUMN"),
        ({"mapping": "prompt=a,prompt=b"}, "once"),
        ({"mapping": "prompt=a"}, "a mapping names"),
        ({"mapping": "prompt=a,answer=a"}, "'a' has several meanings"),
        ({"mapping": "query=a,answer=b"}, "can name"),
        ({"mapping": '{"prompt": 1}'}, "object of texts"),
        ({"mapping": '{"prompt"'}, "not JSON"),
        ({"mapping": "[" * 4000}, "prompt=COLUMN"),
        ({"mapping": "{" * 4000}, "not JSON"),
        ({"mapping": f"prompt={'x' * 201},answer=b"}, "1 to 200 characters"),
        ({"skip_bad_rows": "maybe"}, "true or false"),
        ({"nmae": "x"}, "has a field 'nmae'"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(fresh: TestClient, fields: dict[str, str], message: str) -> None:
    answer = fresh.post("/api/datasets", files={"file": ("rows.jsonl", ROWS)}, data=fields)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_config")
    assert message in answer.json()["error"]


def test_a_refused_file_is_told_row_by_row_and_its_bad_rows_can_be_left_out(fresh: TestClient) -> None:
    content = ROWS + b'{"prompt": "?"}\n' + ROWS
    refused = fresh.put("/api/datasets/some", content=content, params={"filename": "some.jsonl"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_dataset")
    report = refused.json()["details"]["report"]
    assert report["rows"] == {"read": 25, "good": 24, "bad": 1}
    assert report["bad_rows"] == [
        {
            "row": 13,
            "code": "missing_field",
            "values": {"present": "'prompt'", "missing": "'completion'"},
            "reason": "it has 'prompt' but no 'completion'",
            "fix": "add the field, or say which column is what",
        }
    ]
    taken = fresh.put("/api/datasets/some", content=content, params={"skip_bad_rows": True})
    assert taken.status_code == 201
    assert taken.json()["rows"] == 24
    assert "1 of 25 rows cannot be used and were left out." in taken.json()["notices"]
    assert fresh.get("/api/datasets/some/report").json()["bad_rows"] == report["bad_rows"]


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "invalid_dataset"),
        (b"not json\n", 422, "invalid_dataset"),
        (b'{"neither": 1}\n', 422, "invalid_dataset"),
        (b"x" * 100_001, 413, "too_large"),
    ],
)
def test_bad_uploads_are_clear_errors_and_leave_nothing(
    fresh: TestClient, tmp_path: Path, content: bytes, status: int, code: str
) -> None:
    before = fresh.get("/api/datasets").json()
    for answer in (
        fresh.put("/api/datasets/bad", content=content),
        fresh.post("/api/datasets", files={"file": ("bad.jsonl", content)}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert fresh.get("/api/datasets").json() == before
    assert not list((tmp_path / "data" / "uploads").iterdir())


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e%2f%2e%2e%2fx", "a%2Fb", "a%5Cb", "%00", "a%0Ab", "x" * 101, "data_" + "0" * 26]
)
def test_names_that_could_be_paths_are_refused(client: TestClient, tmp_path: Path, name: str) -> None:
    answer = client.put(f"/api/datasets/{name}", content=ROWS)
    assert answer.status_code in (404, 405, 422)
    assert set(answer.json()) >= {"error", "code", "request_id"}
    form = client.post("/api/datasets", files={"file": ("rows.jsonl", ROWS)}, data={"name": "../../" + name})
    assert form.status_code == 422


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"dataset": "d"}, "body.model"),
        ({"model": "m", "dataset": "d", "rank": 4}, "body.rank"),
        ({"model": "m", "dataset": "d", "adapter": {"rank": 0}}, "body.adapter.rank"),
        ({"model": "m", "dataset": "d", "learning_rate": "abc"}, "body.learning_rate"),
        ({"model": "m", "dataset": "d", "strategy": "nope"}, "body.strategy"),
    ],
)
def test_a_bad_training_request_names_its_field(client: TestClient, body: dict[str, object], field: str) -> None:
    answer = client.post("/api/train", content=json.dumps(body), headers=JSON)
    envelope = answer.json()
    assert answer.status_code == 422
    assert envelope["code"] == "validation_error"
    assert field in [each["field"] for each in envelope["fields"]]
    assert field in envelope["error"]


@pytest.mark.parametrize("body", ['{"model": "\\ud800"}', '{"\\ud800": 1}', '{"model": NaN}', "\x00", '"', "null", ""])
def test_text_that_no_answer_can_carry_is_still_a_clear_error(client: TestClient, body: str) -> None:
    answer = client.post("/api/train", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


def test_unknown_things_are_404_in_the_envelope(client: TestClient) -> None:
    for path, code in [
        ("/api/train/task_00000000000000000000000000", "task_not_found"),
        ("/api/tasks/..%2f..%2fetc/logs", "not_found"),
        ("/api/models/nope", "model_not_found"),
        ("/api/nope", "not_found"),
    ]:
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, code), path
    unknown = client.post("/api/train", json={"model": "nope", "dataset": "inbox-sample"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "model_not_found")


def test_a_body_larger_than_any_request_needs_is_not_read(client: TestClient) -> None:
    answer = client.post("/api/train", content=b"[" * (2 * 2**20 + 1), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_deeply_nested_body_is_a_bad_request(client: TestClient) -> None:
    answer = client.post("/api/train", content=b"[" * 100_000, headers=JSON)
    assert answer.status_code in (400, 422)


def test_what_was_not_foreseen_is_told_without_internals(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(client.app.state.container.tasks, "list", fail)  # type: ignore[attr-defined]
    answer = client.get("/api/tasks")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_queued_task_is_listed_cancelled_and_resumed(client: TestClient) -> None:
    container = client.app.state.container  # type: ignore[attr-defined]
    task = container.tasks.submit(TaskKind.TRAINING, name="r", request={}, resolved={"strategy": "lora"})
    run = client.get("/api/train").json()["runs"][0]
    assert (run["id"], run["state"], run["report"]) == (task.id, "queued", None)
    assert not {"owner", "fencing_token"} & set(run)
    assert client.post(f"/api/train/{task.id}/cancel", json={"keep": False}).json()["state"] == "cancelled"
    assert client.post(f"/api/train/{task.id}/cancel").json()["code"] == "conflict"
    assert client.post(f"/api/train/{task.id}/resume").json()["state"] == "queued"
    events = client.get(f"/api/tasks/{task.id}/events?after=1").json()["events"]
    assert [event["seq"] for event in events] == list(range(2, 2 + len(events)))
    assert client.get(f"/api/tasks/{task.id}/logs").json() == {"text": ""}
    metrics = client.get("/metrics").text
    assert 'terakoya_tasks{kind="training",state="queued"} 1.0' in metrics


def test_a_pull_is_no_training_run(client: TestClient) -> None:
    task_id = client.post("/api/models/pull", json={"source": "smollm2-135m-instruct-q4_1"}).json()["task_id"]
    assert client.get(f"/api/tasks/{task_id}").json()["kind"] == "pull"
    assert client.get(f"/api/train/{task_id}").json()["code"] == "task_not_found"
    assert client.post(f"/api/train/{task_id}/cancel").json()["code"] == "task_not_found"
    assert client.get(f"/api/tasks/{task_id}").json()["state"] == "queued"


def test_the_system_page_says_what_is_on_and_off(client: TestClient) -> None:
    system = client.get("/api/system").json()
    assert system["protections"]["loopback_only"]["active"]
    assert not system["protections"]["api_key"]["active"]
    assert client.get("/healthz").json() == {"status": "ok"}


def test_the_api_describes_itself(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/api/train", "/api/datasets/{name}", "/api/models/compare", "/api/tasks/{task_id}/events"} <= set(paths)
    assert not any(path.startswith("/train") for path in paths)


def queued(client: TestClient, kind: TaskKind = TaskKind.TRAINING) -> str:
    tasks = client.app.state.container.tasks  # type: ignore[attr-defined]
    return str(tasks.submit(kind, name="r", request={}, resolved={"strategy": "lora"}).id)


def queue(client: TestClient) -> list[str]:
    return [task["id"] for task in client.get("/api/queue?kind=training").json()["tasks"]]


def test_the_queue_is_put_in_order_held_and_resumed(fresh: TestClient) -> None:
    first, second, third = (queued(fresh) for _ in range(3))
    assert fresh.patch(f"/api/tasks/{third}", json={"priority": 7}).json()["priority"] == 7
    assert queue(fresh) == [third, first, second]
    moved = fresh.patch(f"/api/tasks/{second}", json={"front": True}).json()
    assert (moved["priority"], queue(fresh)) == (7, [second, third, first])
    assert fresh.post(f"/api/train/{third}/pause").json()["state"] == "paused"
    assert queue(fresh) == [second, first]
    assert fresh.post(f"/api/tasks/{third}/pause").json()["state"] == "paused"
    assert fresh.post(f"/api/train/{third}/resume").json()["state"] == "queued"
    assert queue(fresh) == [second, third, first], "its priority is kept"
    pull = queued(fresh, TaskKind.PULL)
    assert fresh.post(f"/api/train/{pull}/pause").json()["code"] == "task_not_found"


@pytest.mark.parametrize(
    "body",
    [{}, {"priority": 101}, {"priority": -101}, {"priority": 1, "front": True}, {"front": False}, {"place": 1}],
)
def test_an_order_that_is_none_is_refused(client: TestClient, body: dict[str, object]) -> None:
    answer = client.patch(f"/api/tasks/{queued(client)}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


def test_an_ended_task_has_no_place_and_cannot_be_paused(client: TestClient) -> None:
    task_id = queued(client)
    client.post(f"/api/tasks/{task_id}/cancel")
    for answer in (
        client.patch(f"/api/tasks/{task_id}", json={"priority": 1}),
        client.post(f"/api/tasks/{task_id}/pause"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"max_hours": 0}, "max_hours"),
        ({"max_hours": 10_000}, "max_hours"),
        ({"no_progress_minutes": 0.1}, "no_progress_minutes"),
        ({"max_restarts": -1}, "max_restarts"),
        ({"max_restarts": 101}, "max_restarts"),
        ({"patience": 1}, "patience"),
    ],
)
def test_limits_are_bounded(client: TestClient, limits: dict[str, object], field: str) -> None:
    answer = client.post("/api/train", json={"model": "m", "dataset": "d", "limits": limits})
    assert answer.status_code == 422
    assert f"body.limits.{field}" in [each["field"] for each in answer.json()["fields"]]


def test_the_options_list_objectives_with_their_settings_and_which_fit(fresh: TestClient) -> None:
    pairs = b'{"prompt": "Hi", "chosen": "Hello", "rejected": "What"}\n' * 3
    assert fresh.put("/api/datasets/pairs", content=pairs).json()["kind"] == "preference"
    options = fresh.get("/api/train/options?dataset=pairs").json()
    objectives = {each["name"]: each for each in options["objectives"]}
    assert {name: each["fits"] for name, each in objectives.items()} == {
        "dpo": True,
        "orpo": True,
        "supervised": True,
        "text": False,
    }
    assert objectives["dpo"]["settings"] == [
        {"name": "beta", "default": 0.1, "least": 0.0001, "most": 10.0},
        {"name": "label_smoothing", "default": 0.0, "least": 0.0, "most": 0.49},
    ]
    kinds = {each["name"]: each["quantization"] for each in options["adapter_kinds"]}
    assert kinds == {"dora": None, "lora": None, "qlora": "nf4", "rslora": None}
    assert options["quantizations"] == ["nf4"]
    refused = fresh.get("/api/train/options?objective=grpo")
    assert refused.status_code == 422
    assert "available: dpo, orpo, supervised, text" in refused.text
