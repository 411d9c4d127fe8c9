"""Recipes: the request of a training run as YAML, in and out. What comes in is plain data with the line of every
mistake; what goes out says every setting that was in effect. Knows no server and no files.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from terakoya.domain.merging import merged
from terakoya.exceptions import InvalidConfig
from terakoya.training.defaults import ResolvedTraining
from terakoya.training.request import TrainingRequest

MAX_BYTES = 65_536
_SHOWN_MISTAKES = 10
_ELSEWHERE = ("model", "dataset")
"""May come from the command line instead."""
Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Plain data only; 1e-3 is a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def read_recipe(text: str, *, name: str) -> dict[str, Any]:
    """Return the fields of a TrainingRequest that a recipe gives; ``name`` is what messages call it.

    Raises: InvalidConfig naming the line of every mistake: no YAML, an unknown or repeated field, a value that a
    field does not take.
    """
    if len(text.encode()) > MAX_BYTES:
        raise InvalidConfig(f"{name}: a recipe has at most {MAX_BYTES:,} bytes; this has {len(text.encode()):,}")
    lines: dict[Path, int] = {}
    try:
        fields = _parse(text, lines)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InvalidConfig(f"{name}: {line}{error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidConfig(f"{name}: not YAML that can be read ({error})") from error
    if not isinstance(fields, dict):
        raise InvalidConfig(f"{name}: a recipe is a list of `field: value` lines; see docs/how-to/recipes.md")
    try:
        TrainingRequest.model_validate(fields)
    except ValidationError as error:
        mistakes = [each for each in error.errors() if not _comes_from_elsewhere(each)]
        if mistakes:
            raise InvalidConfig(_told(name, mistakes, lines)) from error
    return fields


def _parse(text: str, lines: dict[Path, int]) -> Any:
    for token in yaml.scan(text, Loader=_Loader):
        if isinstance(token, yaml.AnchorToken | yaml.AliasToken | yaml.TagToken):
            raise yaml.MarkedYAMLError(problem="anchors, aliases and tags are not taken", problem_mark=token.start_mark)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _value(loader, node, (), lines)
    finally:
        loader.dispose()


def _value(loader: _Loader, node: yaml.Node, path: Path, lines: dict[Path, int]) -> Any:
    """Return the node as plain data and note the line of each field."""
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        fields: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                raise yaml.MarkedYAMLError(problem="a field's name is plain text", problem_mark=key_node.start_mark)
            if key in fields:
                raise yaml.MarkedYAMLError(problem=f"{key} is there twice", problem_mark=key_node.start_mark)
            lines[(*path, key)] = key_node.start_mark.line + 1
            fields[key] = _value(loader, value_node, (*path, key), lines)
        return fields
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, each, (*path, number), lines) for number, each in enumerate(node.value)]
    return loader.construct_object(node)


def _comes_from_elsewhere(mistake: ErrorDetails) -> bool:
    return mistake["type"] == "missing" and mistake["loc"] in {(field,) for field in _ELSEWHERE}


def _told(name: str, mistakes: list[ErrorDetails], lines: Mapping[Path, int]) -> str:
    told: dict[tuple[int, Path], str] = {}
    for mistake in mistakes:
        loc = mistake["loc"]
        place = next(loc[:end] for end in range(len(loc), -1, -1) if loc[:end] in lines)
        told.setdefault((lines[place], place), _what_is_wrong(mistake))
    in_order = sorted(told.items(), key=lambda each: each[0][0])
    shown = [f"line {line}: {'.'.join(map(str, place))}: {text}" for (line, place), text in in_order]
    more = len(shown) - _SHOWN_MISTAKES
    return f"{name}:\n" + "\n".join(shown[:_SHOWN_MISTAKES]) + (f"\nand {more} more" if more > 0 else "")


def _what_is_wrong(mistake: ErrorDetails) -> str:
    if mistake["type"] != "extra_forbidden":
        return mistake["msg"].removeprefix("Value error, ")
    known = list(_model_at(mistake["loc"][:-1]).model_fields)
    near = difflib.get_close_matches(str(mistake["loc"][-1]), known, n=1)
    return f"unknown field; did you mean {near[0]}?" if near else f"unknown field; there are: {', '.join(known)}"


def _model_at(path: Path) -> type[BaseModel]:
    model: type[BaseModel] = TrainingRequest
    for name in path:
        field = model.model_fields.get(str(name))
        inner = [] if field is None else [field.annotation, *get_args(field.annotation)]
        model = next((each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)), model)
    return model


def recipe_fields(request: TrainingRequest, resolved: ResolvedTraining, *, model: str, dataset: str) -> dict[str, Any]:
    """Return the request that gives the same run again, whatever later versions take by default or by a preset's name.

    The new model's name is left out: it is taken.
    """
    asked = request.model_dump(mode="json", exclude_unset=True)
    for field in ("preset", "name"):
        asked.pop(field, None)
    length = {"max_steps": resolved.max_steps} if resolved.epochs is None else {"epochs": resolved.epochs}
    adapter = resolved.adapter
    pinned: dict[str, Any] = {
        "model": model,
        "dataset": dataset,
        "strategy": resolved.strategy,
        "objective": resolved.objective,
        **({"objective_settings": resolved.objective_settings} if resolved.objective_settings else {}),
        **length,
        "learning_rate": resolved.learning_rate,
        "batch_size": resolved.batch_size,
        "schedule": {
            "kind": resolved.schedule,
            "warmup": resolved.warmup,
            "checkpoint_minutes": resolved.checkpoint_minutes,
        },
        "evaluation": {
            "heldout_fraction": resolved.heldout_fraction,
            "max_examples": resolved.max_evaluation_examples,
        },
        "long_rows": resolved.long_rows,
        "gradient_checkpointing": resolved.gradient_checkpointing,
        "seed": resolved.seed,
    }
    pinned["evaluation"] |= _given(
        max_new_tokens=resolved.max_new_tokens,
        every_steps=resolved.evaluate_every_steps,
        every_fraction=resolved.evaluate_every_fraction,
        during_examples=resolved.during_examples,
        sample_tokens=resolved.sample_tokens,
    )
    pinned |= _given(max_length=resolved.max_length, sample_prompts=resolved.sample_prompts)
    if resolved.early_stopping_patience is not None:
        pinned["early_stopping"] = {
            "patience": resolved.early_stopping_patience,
            "min_delta": resolved.early_stopping_min_delta,
        }
    pinned |= _given(base=resolved.base, retention=resolved.retention and resolved.retention.as_request())
    if adapter is not None and request.after is None:
        targets = adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets)
        pinned["adapter"] = {
            "kind": adapter.kind,
            "rank": adapter.rank,
            "alpha": adapter.alpha,
            "dropout": adapter.dropout,
            "targets": targets,
            **_given(quantization=adapter.quantization),
        }
    return merged(pinned, merged(asked, pinned))


def _given(**fields: Any) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in fields.items() if value is not None
    }


def write_recipe(fields: Mapping[str, Any], *, notes: Mapping[str, str]) -> str:
    """Return the fields as YAML, with ``notes`` as comments above them."""
    head = "".join(f"# {name}: {json.dumps(value, ensure_ascii=False)[1:-1]}\n" for name, value in notes.items())
    return head + yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True, width=120)
