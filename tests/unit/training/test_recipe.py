from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import yaml

from terakoya.domain.datasets import DatasetKind
from terakoya.exceptions import InvalidConfig
from terakoya.training.defaults import ResolvedAdapter, ResolvedTraining, resolve
from terakoya.training.presets import PRESETS, with_preset
from terakoya.training.recipe import MAX_BYTES, read_recipe, recipe_fields, write_recipe
from terakoya.training.request import TrainingRequest

GOOD = """\
# the shop's inbox
model: starter
dataset: inbox
adapter:
  rank: 8
  targets: [q_proj, v_proj]
learning_rate: 1e-3
evaluation: {every_steps: 5}
sample_prompts:
- いつ届きますか
"""


def test_a_recipe_is_a_request() -> None:
    found = read_recipe(GOOD, name="shop.yaml")
    request = TrainingRequest.model_validate(found)
    assert found["learning_rate"] == 0.001, "a number in YAML 1.2, though not in 1.1"
    assert request.adapter is not None
    assert request.adapter.targets == ("q_proj", "v_proj")
    assert request.sample_prompts == ("いつ届きますか",)


def test_model_and_dataset_may_come_from_elsewhere() -> None:
    assert read_recipe("epochs: 2\n", name="r") == {"epochs": 2}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: a\nlearnin_rate: 1\n", r"r:\nline 2: learnin_rate: unknown field; did you mean learning_rate\?"),
        ("adapter:\n  rank: 8\n  zeal: 3\n", r"line 3: adapter.zeal: unknown field; there are: kind, rank"),
        ("epochs: 2\n\nbatch_size: 0\n", "line 3: batch_size: Input should be greater than or equal to 1"),
        ("trackers:\n- tensorboard\n- wandb\n", "line 3: trackers.1: Input should be 'tensorboard' or 'mlflow'"),
        ("epochs: 2\nmodel: [1\n", r"r: line 3: "),
        ("epochs: 2\nepochs: 3\n", "r: line 2: epochs is there twice"),
        ("adapter: &a {rank: 8}\n", "r: line 1: anchors, aliases and tags are not taken"),
        ("model: !!python/object/apply:os.system ['true']\n", "line 1: anchors, aliases and tags are not taken"),
        ("- model\n", "a recipe is a list of `field: value` lines"),
        ("", "a recipe is a list of"),
        ("a: 1\n---\nb: 2\n", "line 2: but found another document"),
        ("{[1]: 2}\n", "a field's name is plain text"),
        ("[" * 5000, "not YAML that can be read|line 1"),
        ("#" * (MAX_BYTES + 1), "a recipe has at most 65,536 bytes"),
        ("model: a\x00b\n", "r: "),
        ("name: 2026-01-01\n", "line 1: name: Input should be a valid string"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, told: str) -> None:
    with pytest.raises(InvalidConfig, match=told):
        read_recipe(text, name="r")


def test_every_mistake_is_told_in_order() -> None:
    with pytest.raises(InvalidConfig) as error:
        read_recipe("epochs: x\nmodel: a\nseed: -1\n", name="r")
    lines = str(error.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["r", "line 1", "line 3"]


REQUESTS: list[dict[str, Any]] = [
    {},
    {"strategy": "full", "max_steps": 7},
    {"adapter": {"rank": 4, "targets": ["q_proj"]}, "schedule": {"kind": "linear", "warmup": 0.2}, "max_length": 99},
    {"evaluation": {"every_steps": 3, "during_examples": 4, "sample_tokens": 9, "max_new_tokens": 33}, "seed": 5},
    {"early_stopping": {"patience": 2}, "sample_prompts": ["a", "b"], "trackers": ["mlflow"], "epochs": 2},
    {"objective": "dpo", "adapter": {"kind": "dora"}, "long_rows": "drop", "gradient_checkpointing": "on"},
    {"strategy": "ewc", "base": "lora", "retention": {"budget": 0.1, "replay": {"share": 0.02, "top_k": 8}}},
    {"strategy": "ewc", "retention": {"regulariser": {"strength": 3.0}, "replay": {"share": 0.0}}},
    *({"preset": name} for name, preset in PRESETS.items() if preset.fits(135e6)),
]


@pytest.mark.parametrize("asked", REQUESTS)
def test_the_recipe_of_a_run_gives_the_same_run_again(asked: dict[str, Any]) -> None:
    request = TrainingRequest.model_validate({"model": "m", "dataset": "d", "name": "mine"} | asked)
    kind = DatasetKind.PREFERENCE if "objective" in asked else DatasetKind.CONVERSATION
    resolved = resolve(with_preset(request, parameters=135_000_000), parameters=135_000_000, rows=200, kind=kind)

    text = write_recipe(recipe_fields(request, resolved, model="m", dataset="d"), notes={"model": "x\ny: 1"})

    again = TrainingRequest.model_validate(read_recipe(text, name="r"))
    assert again.name is None, "taken"
    # Another machine's defaults: a model of another size and other data change nothing.
    assert resolve(again, parameters=7_000_000_000, rows=9, kind=kind) == resolved
    assert text.startswith("# model: x\\ny: 1\nmodel: m\n")


def test_what_a_later_field_was_asked_to_be_is_in_the_recipe() -> None:
    request = TrainingRequest.model_validate({"model": "m", "dataset": "d", "priority": 3, "limits": {"max_hours": 2}})
    resolved = resolve(request, parameters=1000, rows=10)
    recipe = recipe_fields(request, resolved, model="m", dataset="d")
    assert (recipe["priority"], recipe["limits"]) == (3, {"max_hours": 2.0})
    assert yaml.safe_load(write_recipe(recipe, notes={})) == recipe


PINNED = {
    *("strategy", "objective", "epochs", "max_steps", "learning_rate", "batch_size", "max_length", "seed"),
    *("schedule", "warmup", "checkpoint_minutes", "heldout_fraction", "max_evaluation_examples", "max_new_tokens"),
    *("evaluate_every_steps", "evaluate_every_fraction", "during_examples", "sample_tokens", "sample_prompts"),
    *("early_stopping_patience", "early_stopping_min_delta", "objective_settings"),
    *("long_rows", "gradient_checkpointing", "adapter", "base", "retention"),
}
NO_FIELD_OF_A_REQUEST = {"weight_decay", "max_grad_norm"}
AS_ASKED = {"trackers"}
"""Their default is nothing, and will stay so."""


def test_every_setting_of_a_run_is_thought_of() -> None:
    """A new one belongs into ``recipe_fields`` and here: else a later default would change what a recipe gives."""
    assert {field.name for field in fields(ResolvedTraining)} == PINNED | NO_FIELD_OF_A_REQUEST | AS_ASKED
    assert [field.name for field in fields(ResolvedAdapter)] == [
        *("kind", "rank", "alpha", "dropout", "targets", "quantization")
    ]
