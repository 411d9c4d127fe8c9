"""Datasets as clients see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from terakoya.domain.datasets import DatasetInfo
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

    @classmethod
    def of(cls, info: DatasetInfo) -> DatasetView:
        return cls.model_validate(info)


class DatasetList(BaseModel):
    datasets: list[DatasetView]


class Preview(BaseModel):
    rows: list[dict[str, Any]]
