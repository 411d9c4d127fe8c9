from __future__ import annotations

import pytest
from sqlalchemy import Engine

from terakoya.exceptions import NotFound, RAGError
from terakoya.storage.files import new_id
from terakoya.storage.trace_repository import MAX_TRACE_BYTES, SqlTraceRepository


def test_a_trace_comes_back_with_its_id_and_time(engine: Engine) -> None:
    traces = SqlTraceRepository(engine)
    trace_id = new_id("trace")
    traces.save(trace_id, "collection_1", {"query": "送料は?", "hits": [{"score": 0.5}]})
    found = traces.find(trace_id)
    assert found.pop("created_at").endswith("+00:00")
    assert found == {
        "trace_id": trace_id,
        "collection_id": "collection_1",
        "query": "送料は?",
        "hits": [{"score": 0.5}],
    }


def test_only_the_newest_are_kept(engine: Engine) -> None:
    traces = SqlTraceRepository(engine, max_traces=3)
    ids = [new_id("trace") for _ in range(5)]
    for trace_id in ids:
        traces.save(trace_id, "collection_1", {})
    for old in ids[:2]:
        with pytest.raises(NotFound, match="newest 3"):
            traces.find(old)
    assert [traces.find(kept)["trace_id"] for kept in ids[2:]] == ids[2:]


def test_a_trace_has_a_bounded_size(engine: Engine) -> None:
    traces = SqlTraceRepository(engine)
    with pytest.raises(RAGError, match="at most"):
        traces.save(new_id("trace"), "collection_1", {"query": "x" * MAX_TRACE_BYTES})
