from __future__ import annotations

from typing import Any

import pytest

from terakoya.exceptions import InvalidConfig
from terakoya.models.engines.json_schema import check_schema

PERSON = {
    "$defs": {"age": {"type": "integer", "minimum": 0}},
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"$ref": "#/$defs/age"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        "other": {"anyOf": [{"type": "null"}, {"const": 1}]},
    },
    "required": ["name"],
    "additionalProperties": False,
}


def test_a_schema_of_known_keywords_passes() -> None:
    check_schema(PERSON)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "nonsense"}, "nonsense"),
        ({"type": []}, "unknown type"),
        ({"type": [["string"]]}, "unknown type"),
        ({"type": "string", "pattern": "("}, "'pattern'"),
        ({"not": {}}, "'not'"),
        ({"properties": {"a": {"$ref": "http://elsewhere/"}}}, "http://elsewhere/"),
        ({"properties": {"a": {"$ref": "#/$defs/missing"}}}, "missing"),
        ({"items": [{"type": "string"}]}, "no schema"),
        ({"x-guidance": {}}, "x-guidance"),
        ({"description": "x" * 30_000}, "20000 characters"),
        ({"enum": "ab"}, "$.enum must be a list of at least one value; got 'ab'"),
        ({"enum": []}, "$.enum must be"),
        ({"required": "name"}, "$.required must be a list of different names"),
        ({"required": [1]}, "$.required must be"),
        ({"required": ["a", "a"]}, "$.required must be"),
        ({"properties": {"a": {"required": {}}}}, "$.properties.a.required"),
        ({"additionalProperties": "no"}, "$.additionalProperties must be true or false"),
        ({"maxItems": -1}, "$.maxItems must be a whole number from 0 to 10000; got -1"),
        ({"maxLength": 10**9}, "$.maxLength must be"),
        ({"minItems": True}, "$.minItems must be"),
        ({"minimum": "1"}, "$.minimum must be a number"),
        ({"maximum": float("inf")}, "$.maximum must be a number"),
    ],
)
def test_what_an_answer_cannot_be_held_to_is_refused_by_name(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        check_schema(schema)
    assert said in str(refused.value)


def test_a_schema_without_bottom_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(50):
        schema = {"items": schema}
    with pytest.raises(InvalidConfig, match="nested"):
        check_schema(schema)
