"""What each question did, for the newest questions. Knows nothing of what a trace holds but its size."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, delete, select

from terakoya.exceptions import NotFound, RAGError
from terakoya.storage.database import reading, writing
from terakoya.storage.json_text import to_json
from terakoya.storage.tables import TraceRow

MAX_TRACES = 1000
MAX_TRACE_BYTES = 256 * 1024


class SqlTraceRepository:
    """The TraceRepository. Ids sort by time: the oldest go first."""

    def __init__(self, engine: Engine, *, max_traces: int = MAX_TRACES) -> None:
        self._engine = engine
        self._max_traces = max_traces

    def save(self, trace_id: str, collection_id: str, trace: dict[str, Any]) -> None:
        """Keep the trace and drop the oldest beyond the bound. Raises: RAGError if it is too large; StorageFull."""
        if (size := len(to_json(trace))) > MAX_TRACE_BYTES:
            raise RAGError(f"a trace has at most {MAX_TRACE_BYTES:,} bytes; {trace_id!r} has {size:,}")
        with writing(self._engine) as session:
            session.add(TraceRow(id=trace_id, collection_id=collection_id, created_at=datetime.now(UTC), trace=trace))
            session.flush()
            surplus = select(TraceRow.id).order_by(TraceRow.id.desc()).offset(self._max_traces).limit(1)
            newest_surplus = session.scalars(surplus).first()
            if newest_surplus is not None:
                session.execute(delete(TraceRow).where(TraceRow.id <= newest_surplus))

    def find(self, trace_id: str) -> dict[str, Any]:
        """Return what was saved, with ``trace_id``, ``collection_id`` and ``created_at``. Raises: NotFound."""
        with reading(self._engine) as session:
            row = session.get(TraceRow, trace_id)
            if row is None:
                raise NotFound(
                    f"no trace {trace_id!r}: only those of the newest {self._max_traces:,} questions are kept"
                )
            facts = {
                "trace_id": row.id,
                "collection_id": row.collection_id,
                "created_at": row.created_at.isoformat(),
            }
            return facts | row.trace
