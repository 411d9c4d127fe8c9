from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from terakoya.domain.models import ModelInfo, ModelKind
from terakoya.exceptions import InvalidConfig, UnsafeArtifact
from terakoya.models.adapter_base import check_base, declared_base, named_model
from terakoya.models.sources import STARTERS

STARTER = STARTERS["smollm2-135m-instruct-q4_1"]


def model(name: str, source: str, kind: ModelKind = ModelKind.BASE) -> ModelInfo:
    number = str(sum(map(ord, name)))
    return ModelInfo(f"model_{number:0>26}", name, kind, "llama", 1, 1, "0" * 64, source, "mit", datetime.now(UTC))


ON_HUB = model("on-hub", f"hf:Org/Base@{'c' * 40}")
MODELS = [
    model("tuned", "task:task_1", ModelKind.FULL),
    ON_HUB,
    model("starter", STARTER.text),
    model("other", "folder:x"),
]
TUNED, _, STARTED, IMPORTED = MODELS


@pytest.mark.parametrize("declared", ["Org/Base", "org/base", ON_HUB.id])
def test_its_own_base_is_accepted_without_a_word(declared: str) -> None:
    assert check_base(declared, ON_HUB) is None
    assert named_model(declared, MODELS) is ON_HUB


@pytest.mark.parametrize(
    ("declared", "base"),
    [
        ("Org/Base-Instruct", ON_HUB),
        (TUNED.id, ON_HUB),
        ("Org/Base", TUNED),
        ("Org/Base", STARTED),
        (ON_HUB.id, IMPORTED),
    ],
)
def test_another_base_is_refused_with_the_one_to_take(declared: str, base: ModelInfo) -> None:
    with pytest.raises(InvalidConfig, match=f"not for '{base.name}'.*as the base"):
        check_base(declared, base, MODELS)


def test_the_starter_stands_in_for_what_it_was_made_of_with_a_warning() -> None:
    said = check_base(STARTER.upstream, STARTED)
    assert said is not None
    assert "fewer bits" in said


@pytest.mark.parametrize("declared", ["/home/me/base", "Org/Base", "model_" + "z" * 26])
def test_what_names_cannot_tell_is_said(declared: str) -> None:
    said = check_base(declared, IMPORTED, MODELS)
    assert said is not None
    assert declared in said


def test_no_model_is_taken_for_the_base_by_its_name_alone() -> None:
    assert named_model("on-hub", MODELS) is None
    embedder = dataclasses.replace(ON_HUB, kind=ModelKind.EMBEDDER)
    assert named_model("Org/Base", [embedder]) is None


def test_the_folder_says_what_it_was_made_for(tmp_path: Path) -> None:
    assert declared_base(tmp_path) is None
    config = tmp_path / "adapter_config.json"
    for value, expected in [("Org/Base", "Org/Base"), (None, None), (3, None), ("", None), ("x" * 9000, "x" * 400)]:
        config.write_text(json.dumps({"base_model_name_or_path": value}))
        assert declared_base(tmp_path) == expected
    config.write_text("[1]")
    assert declared_base(tmp_path) is None
    config.write_text("{")
    with pytest.raises(UnsafeArtifact):
        declared_base(tmp_path)
