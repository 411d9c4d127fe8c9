"""The citation probe on the starter model itself: too small for it, which must be found out and said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.servers import STARTER

from terakoya.domain.documents import Language
from terakoya.models.client import ModelServerClient
from terakoya.rag.core.probe import CitationProbe
from terakoya.rag.core.probe_cases import VERSION
from terakoya.storage.database import open_database
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository
from terakoya.storage.probe_repository import SqlProbeRepository

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("language", list(Language))
async def test_the_starter_model_may_not_write_answers(
    language: Language, folder_with_starter: Callable[[Path], Path], tmp_path: Path
) -> None:
    data_dir = DataDir(folder_with_starter(tmp_path / "data"))
    engine = open_database(data_dir)
    artifact = SqlModelRepository(engine, data_dir).load_model(STARTER)
    results = SqlProbeRepository(engine)
    client = ModelServerClient(
        socket_path=tmp_path / "s.sock", log_path=tmp_path / "server.log", cache_bytes=1 << 30, threads=1
    )
    try:
        result = await CitationProbe(client, results).result(artifact, language)
    finally:
        await client.stop()
        stored = results.find(artifact.info.content_sha256, language, VERSION)
        engine.dispose()
    assert not result.has_passed
    assert stored is not None
    assert stored["passed"] == result.passed
