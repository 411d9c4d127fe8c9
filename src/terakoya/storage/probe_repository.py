"""Results of the citation probe: one a model and language. Knows nothing of what is probed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from terakoya.domain.documents import Language
from terakoya.storage.database import reading, writing
from terakoya.storage.tables import ProbeRow


class SqlProbeRepository:
    """The ProbeRepository. Models are known by the hash of their content, so a result outlives names and copies."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, model_sha256: str, language: Language, probe: str) -> dict[str, Any] | None:
        with reading(self._engine) as session:
            row = session.get(ProbeRow, (model_sha256, language.value))
            return row.result if row is not None and row.probe == probe else None

    def save(self, model_sha256: str, language: Language, probe: str, result: dict[str, Any]) -> None:
        """Replace the result of any earlier probe."""
        row = ProbeRow(
            model_sha256=model_sha256,
            language=language.value,
            probe=probe,
            created_at=datetime.now(UTC),
            result=result,
        )
        with writing(self._engine) as session:
            session.merge(row)
