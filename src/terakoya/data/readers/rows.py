"""What readers of every format give: numbered rows, each parsed or with the reason why it could not be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from terakoya.data.problems import Problem

Rows: TypeAlias = Iterator[tuple[int, dict[str, Any] | Problem]]
"""The number is that of the line, or the position among the rows where lines say nothing (JSON, Parquet)."""
