"""Datasets as clients see them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from terakoya.data.mapping import MEANINGS
from terakoya.domain.datasets import DatasetInfo, DatasetKind
from terakoya.domain.names import check_name
from terakoya.exceptions import InvalidConfig


def _checked_name(value: str) -> str:
    try:
        return check_name(value)
    except InvalidConfig as error:
        raise ValueError(str(error)) from error


ResourceName = Annotated[str, AfterValidator(_checked_name)]
"""What a person calls a dataset or model. Never part of a path on disk."""


class DatasetView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    rows: int
    heldout_rows: int
    format: str
    encoding: str
    size_bytes: int
    content_sha256: str
    created_at: datetime
    notices: list[str]
    statistics: dict[str, Any]
    kind: DatasetKind

    @classmethod
    def of(cls, info: DatasetInfo) -> DatasetView:
        return cls.model_validate(info)


class DatasetList(BaseModel):
    datasets: list[DatasetView]


class Report(BaseModel):
    """What the import found; see docs/how-to/datasets.md."""

    model_config = ConfigDict(extra="allow")

    version: int
    kind: DatasetKind | None
    place: Literal["line", "row"]
    """What ``row`` counts: lines of the file, or rows."""


class Preview(BaseModel):
    rows: list[dict[str, Any]]


def read_mapping(text: str | None) -> dict[str, str]:
    """Return the mapping that a form field or query holds: JSON, or ``prompt=Frage,answer=Antwort``.

    Raises: InvalidConfig.
    """
    if text is None or not text.strip():
        return {}
    if text.lstrip().startswith("{"):
        return _from_json(text)
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not all(equals for _, equals, _ in pairs):
        raise InvalidConfig(f"a mapping is written prompt=COLUMN,answer=COLUMN or as a JSON object; got {text[:80]!r}")
    if len({meaning.strip() for meaning, _, _ in pairs}) < len(pairs):
        raise InvalidConfig(f"a mapping names each of {', '.join(MEANINGS)} once; got {text[:80]!r}")
    return {meaning.strip(): column.strip() for meaning, _, column in pairs}


def _from_json(text: str) -> dict[str, str]:
    try:
        mapping = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"the mapping is not JSON ({str(error)[:80]}); got {text[:80]!r}") from error
    if not isinstance(mapping, dict) or not all(isinstance(column, str) for column in mapping.values()):
        raise InvalidConfig(f'a mapping is an object of texts, such as {{"prompt": "Frage"}}; got {text[:80]!r}')
    return mapping


def read_flag(text: str | None, name: str) -> bool:
    """Return what a form field says. Raises: InvalidConfig."""
    match (text or "").strip().lower():
        case "" | "false" | "0":
            return False
        case "true" | "1":
            return True
    raise InvalidConfig(f"{name!r} is true or false; got {(text or '')[:40]!r}")
