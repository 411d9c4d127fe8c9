"""Whatever is asked of plan and start: a plan, a task, or an error in the one envelope; never a 5xx of our making."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tiny_model import build_tiny_model

from terakoya.domain.tasks import NewModel
from terakoya.training.request import TrainingRequest
from web_app import ROWS, web_client

HOSTILE = ("", " ", "../../etc/passwd", "%2e%2e", "\x00", "a" * 300, ";touch x", "{{7*7}}", "日本語", "nan")
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=40), st.sampled_from(HOSTILE)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
)
PLAUSIBLE: dict[str, st.SearchStrategy[Any]] = {
    "strategy": st.sampled_from(["lora", "full", "ewc", "none"]),
    "epochs": st.integers(-1, 2000),
    "max_steps": st.integers(-1, 10),
    "batch_size": st.integers(-1, 70_000),
    "max_length": st.integers(0, 2_000_000),
    "long_rows": st.sampled_from(["refuse", "drop", "truncate", "split", "lengthen"]),
    "gradient_checkpointing": st.sampled_from(["auto", "on", "off", "yes"]),
    "adapter": st.fixed_dictionaries(
        {}, optional={"rank": st.integers(-1, 2000), "targets": st.lists(st.text(max_size=8))}
    ),
    "evaluation": st.fixed_dictionaries(
        {}, optional={"heldout_fraction": st.floats(-1, 2), "max_examples": st.integers(-1, 9)}
    ),
    "seed": st.integers(-1, 2**40),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    root = tmp_path_factory.mktemp("fuzz")
    with web_client(root / "data") as client:
        folder = build_tiny_model(root / "tiny")
        made = NewModel("tiny", "base", folder, None, "llama", 100_000, "apache-2.0", "folder:tiny")
        container: Any = client.app.state.container  # type: ignore[attr-defined]
        container.models._repository.save_model(made)
        client.put("/api/datasets/mail?filename=mail.jsonl", content=ROWS.replace(b"order?", b"first order?"))
        yield client


def fields() -> st.SearchStrategy[dict[str, Any]]:
    names = sorted(TrainingRequest.model_fields)
    wild = st.dictionaries(st.sampled_from([*names, "nonsense"]), VALUES, max_size=2)
    sound = st.fixed_dictionaries({"model": st.just("tiny"), "dataset": st.just("mail")}, optional=PLAUSIBLE)
    return st.builds(lambda base, over: base | over, sound, wild)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=fields())
@pytest.mark.parametrize("path", ["/api/train/plan?measure=false", "/api/train"])
def test_every_field_is_answered(client: TestClient, path: str, body: dict[str, Any]) -> None:
    text = json.dumps(body).encode("utf-8", errors="surrogatepass")
    answer = client.post(path, content=text, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 202, 400, 404, 409, 413, 422, 507), answer.text
    if answer.status_code >= 400:
        assert set(answer.json()) >= {"error", "code", "request_id"}
    else:
        assert "task_id" in answer.json() or answer.json()["ready"] in (True, False)


@pytest.mark.parametrize(
    "body",
    [
        {"epochs": 1, "max_steps": 5},
        {"strategy": "full", "adapter": {"rank": 4}},
        {"adapter": {"targets": ["none_such"]}},
        {"early_stopping": {"patience": 2}, "evaluation": {"every_steps": 0}},
    ],
)
def test_settings_that_contradict_each_other_are_named(client: TestClient, body: dict[str, Any]) -> None:
    answer = client.post("/api/train/plan?measure=false", json={"model": "tiny", "dataset": "mail"} | body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] in ("invalid_config", "validation_error")


def test_a_data_set_that_is_gone_is_named(client: TestClient) -> None:
    for path in ("/api/train/plan?measure=false", "/api/train"):
        answer = client.post(path, json={"model": "tiny", "dataset": "gone"})
        assert (answer.status_code, answer.json()["code"]) == (404, "dataset_not_found")
